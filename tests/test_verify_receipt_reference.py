"""docs/verify_receipt.py, the reference written from the pages alone, on the receipts of the project's own tests."""

import ast
import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import dag_cbor
import pytest
from conftest import ROOT
from dicom_make import real_files
from node_make import drain, make_node, store
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from receipt_world import FORMS, World, refused, saved, swallowed, tampered

from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.errors import CustodyError
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger.identity import create_organisation, issue, load_identity

REFERENCE = ROOT / "docs" / "verify_receipt.py"
PROVEN, NOT_PROVEN, UNSUPPORTED = 0, 1, 2
NATIVE = ("native", "implicit, several frames", "no pixels")

Verify = Callable[..., int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_receipt", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def verify(reference: ModuleType, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Runs the reference in this process: receipt, file or nothing, organisations whose log or peers are believed."""

    def run(
        receipt: bytes,
        file: bytes | None = None,
        trust: tuple[str | Path, ...] = ("owner",),
        peers: tuple[str, ...] = (),
    ) -> int:
        words = [str(tmp_path / "receipt.json")]
        Path(words[0]).write_bytes(receipt)
        if file is not None:
            words.append(str(tmp_path / "file.dcm"))
            Path(words[1]).write_bytes(file)
        for role in trust:  # or an organisation's folder
            words += ["--trust", str(world.organisations / role / "cacerts" / "ca.pem")]
        for role in peers:
            words += ["--peers", f"{role}={world.organisations / role / 'cacerts' / 'ca.pem'}"]
        monkeypatch.setattr(sys, "argv", ["verify_receipt.py", *words])
        try:
            return int(reference.main())
        except NotImplementedError:
            return UNSUPPORTED
        except Exception:
            return NOT_PROVEN

    return run


def test_it_is_short_and_imports_nothing_of_the_project() -> None:
    source = REFERENCE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 270
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"cryptography", "dag_cbor", "pydicom"}


@pytest.mark.parametrize("form", NATIVE)
def test_native_files_are_proven(world: World, verify: Verify, form: str) -> None:
    receipt, file = world.receipts[form].encode(), world.files[form]
    assert verify(receipt, file) == PROVEN
    assert verify(receipt, file, trust=("custodian", "research")) == NOT_PROVEN
    assert verify(receipt) == NOT_PROVEN


def test_an_embedded_receipt_does_not_pass_for_one_of_two_organisations(world: World, verify: Verify) -> None:
    receipt = world.disclosed.encode()
    for peers in (("owner", "custodian"), ("owner",)):
        assert verify(receipt, trust=(), peers=peers) == NOT_PROVEN


@pytest.mark.parametrize(("trust", "peers"), [((), ()), (("owner",), ("owner",))], ids=["nobody", "both"])
def test_who_is_believed_is_said_in_one_way(
    world: World, verify: Verify, trust: tuple[str, ...], peers: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        verify(world.disclosed.encode(), trust=trust, peers=peers)
    assert stopped.value.code == 2


@pytest.mark.parametrize("form", [form for form in FORMS if form not in NATIVE])
def test_other_files_are_left_to_verify_receipt(world: World, verify: Verify, form: str) -> None:
    assert verify(world.receipts[form].encode(), world.files[form]) == UNSUPPORTED


def test_a_compressed_object_is_proven_when_it_is_made_native(world: World, verify: Verify) -> None:
    decoded = dcmread(io.BytesIO(world.files["RLE"]))
    decoded.decompress(generate_instance_uid=False)
    assert verify(world.receipts["RLE"].encode(), saved(decoded)) == PROVEN
    decoded.PixelData = bytes([decoded.PixelData[0] ^ 1]) + decoded.PixelData[1:]
    assert verify(world.receipts["RLE"].encode(), saved(decoded)) == NOT_PROVEN


@pytest.mark.parametrize("form", FORMS)
def test_elements_of_every_form_are_proven(world: World, verify: Verify, form: str, capsys: Any) -> None:
    uid = str(dcmread(io.BytesIO(world.files[form])).SOPInstanceUID)
    assert verify(world.issue(uid, "00080018").encode()) == PROVEN
    assert f"element 00080018, kind 1: {uid.encode()}" in capsys.readouterr().out


def test_nothing_is_shown_of_a_receipt_whose_last_element_is_forged(world: World, verify: Verify, capsys: Any) -> None:
    receipt = json.loads(world.disclosed.encode())
    receipt["content"]["elements"][-1]["value"] = "00"
    assert (verify(json.dumps(receipt).encode()), capsys.readouterr().out) == (NOT_PROVEN, "")


def test_elements_with_a_file_prove_nothing_of_the_file(world: World, verify: Verify) -> None:
    assert verify(world.disclosed.encode(), world.files["native"]) == NOT_PROVEN


@pytest.mark.parametrize("form", NATIVE)
def test_every_field_of_a_files_receipt_counts(world: World, verify: Verify, form: str) -> None:
    for at, data in tampered(world.receipts[form]):
        assert verify(data, world.files[form]) in (NOT_PROVEN, UNSUPPORTED), f"{at} may be changed"


def test_every_field_of_a_disclosed_receipt_counts(world: World, verify: Verify) -> None:
    for at, data in tampered(world.disclosed):
        assert verify(data) == NOT_PROVEN, f"{at} may be changed"


@pytest.mark.parametrize("form", NATIVE)
def test_every_byte_of_a_file_is_judged_as_by_the_project(world: World, verify: Verify, form: str) -> None:
    """A bit flipped at many places: what the reference believes, the project believes."""
    receipt, whole = world.receipts[form].encode(), world.files[form]
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        file = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
        if verify(receipt, file) == PROVEN:
            assert not refused(world, receipt, file), f"byte {place} may be changed"


def test_a_file_with_more_than_its_receipt_lists_is_not_proven(world: World, verify: Verify) -> None:
    receipt, whole = world.receipts["native"].encode(), world.files["native"]
    more, pixels = dcmread(io.BytesIO(whole)), dcmread(io.BytesIO(whole))
    more.FailureReason = 1
    pixels.PixelData += b"\1\0"
    twice = whole + whole[whole.index(b"\x08\0\x60\0CS") :][:10]
    for file in (saved(more), saved(pixels), twice, whole + b"\0", whole[:-2]):
        assert verify(receipt, file) == NOT_PROVEN


def test_an_object_without_pixels_is_not_proven_with_some(world: World, verify: Verify) -> None:
    report = dcmread(io.BytesIO(world.files["no pixels"]))
    for name, value in (("Rows", 1), ("Columns", 1), ("SamplesPerPixel", 1), ("BitsAllocated", 8), ("BitsStored", 8)):
        setattr(report, name, value)
    report.add_new(0x7FE00010, "OB", b"\0\0")
    assert verify(world.receipts["no pixels"].encode(), saved(report)) == NOT_PROVEN


def test_native_files_of_all_kinds_are_proven_or_left_to_verify_receipt(reference: ModuleType, tmp_path: Path) -> None:
    """Sequences of both lengths, private ones, padding, overlays, signed and unused bits, several frames."""
    node = make_node(tmp_path)
    files = {}
    for path in real_files(None):
        file = path.read_bytes()
        with contextlib.suppress(CustodyError):
            instance = open_instance(io.BytesIO(file))
            native = instance.transfer_syntax_uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
            if native and file[128:132] == b"DICM":
                store(node, path)
                files.setdefault(instance.sop_instance_uid, file)
    drain(node)
    verdicts = []
    for uid, file in files.items():
        receipt = _receipts(node).issue(uid).receipt
        record = dag_cbor.decode(receipt.record)
        content = json.loads(receipt.encode())["content"]
        try:
            parsed = reference.File(file, content["metadata"])
            reference.check_tree(
                "pixel", parsed.frames(content["pixels"], record["pixel_form"]), content["pixels"], record
            )
            reference.check_tree("metadata", parsed.leaves, content["metadata"], record)
            verdicts.append(PROVEN)
        except NotImplementedError:
            verdicts.append(UNSUPPORTED)
    assert verdicts.count(PROVEN) > verdicts.count(UNSUPPORTED) > 0


@pytest.mark.parametrize(
    "forgery",
    [
        {"log": bytes(32)},
        {"note_log": bytes(32)},
        {"function": "ConfirmStored"},
        {"time": 1},
        {"time": 1 << 33},
        {"entry_time": 1 << 33, "time": 1 << 33},
        {"note_time": 1 << 33},
        {"root": bytes(32)},
        {"count": 2},
    ],
    ids=str,
)
def test_evidence_that_is_forged_is_refused(world: World, verify: Verify, forgery: dict[str, Any]) -> None:
    assert verify(world.forged(world.disclosed).encode()) == PROVEN
    assert verify(world.forged(world.disclosed, **forgery).encode()) == NOT_PROVEN


@pytest.mark.parametrize("signer", ["by", "keeper"])
def test_nobody_but_the_owner_is_believed(world: World, verify: Verify, signer: str, tmp_path: Path) -> None:
    create_organisation(tmp_path / "namesake", "HospitalMSP")
    namesake = load_identity(issue(tmp_path / "namesake", "person", "person"))
    for identity in (world.person("custodian"), world.person("research"), namesake):
        assert verify(world.forged(world.disclosed, **{signer: identity}).encode()) == NOT_PROVEN
    create_organisation(tmp_path / "other", "OtherMSP")
    other = load_identity(issue(tmp_path / "other", "person", "person"))
    receipt = world.forged(world.disclosed, **{signer: other}).encode()
    assert (verify(receipt), verify(receipt, trust=("owner", tmp_path / "other"))) == (NOT_PROVEN, PROVEN)


def test_a_longer_salt_does_not_swallow_a_leafs_head(verify: Verify, tmp_path: Path) -> None:
    receipt, forgery = swallowed(tmp_path)
    owner = tmp_path / "node" / "organisations" / "owner"
    assert (verify(receipt.encode(), trust=(owner,)), verify(forgery.encode(), trust=(owner,))) == (PROVEN, NOT_PROVEN)

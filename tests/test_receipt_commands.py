"""receipt and verify-receipt: exit codes, and what they say."""

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from node_make import drain, make_node, store, variant
from receipt_world import World, uid_of

from orthanc_ledger import cli
from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.receipt import Receipt, parse_path
from orthanc_ledger.setup_node import create_checkpoint_key


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def receipt(world: World) -> Receipt:
    return world.receipts["native"]


@pytest.fixture
def disclosed(world: World) -> Receipt:
    return world.disclosed


class TestCommands:
    @pytest.fixture
    def run(self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
        """Runs a command in a folder without a configuration; files of the world by form."""
        monkeypatch.chdir(tmp_path)
        for name, form in (("ct.dcm", "native"), ("sr.dcm", "no pixels")):
            (tmp_path / name).write_bytes(world.files[form])
            (tmp_path / name).with_suffix(".json").write_bytes(world.receipts[form].encode())
        for role in ("owner", "custodian"):
            ca = (world.organisations / role / "cacerts" / "ca.pem").read_text()
            (tmp_path / f"{role}.pem").write_text(ca)
        return lambda *words: cli.main([str(word) for word in words])

    def test_issue_and_verify(self, world: World, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        uid = uid_of(world.files["native"])
        assert run("--config", world.config, "receipt", uid, "--out", "new.json") == 0
        assert run("verify-receipt", "new.json", "ct.dcm", "--trust", "owner.pem") == 0
        out = capsys.readouterr().out
        assert "proven" in out
        assert "'CN=ca.HospitalMSP,O=HospitalMSP', SHA-256 " in out
        assert uid in out
        assert run("--config", world.config, "receipt", uid, "--out", "new.json") == 2
        assert "File exists" in capsys.readouterr().err
        assert stat.S_IMODE(Path("new.json").stat().st_mode) == 0o600, "it holds salts"

    def test_whose_trust_file_has_a_second_key_is_not_proven_by_the_first_alone(
        self, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        node = make_node(tmp_path / "second")
        store(node, variant())
        drain(node)
        trust = create_checkpoint_key(node.config.identity)
        issued = _receipts(node).issue(str(variant().SOPInstanceUID), [parse_path("00080060")]).receipt.encode()
        fewer = json.loads(issued)
        fewer["evidence"]["checkpoint"] = fewer["evidence"]["checkpoint"].rpartition("\N{EM DASH}")[0]
        Path("both.json").write_bytes(issued)
        Path("one.json").write_text(json.dumps(fewer))
        ca = node.config.identity / "cacerts" / "ca.pem"
        for file, by, code in (("both", ca, 0), ("one", ca, 0), ("both", trust, 0), ("one", trust, 1)):
            assert run("verify-receipt", f"{file}.json", "--trust", by) == code, (file, by)
            words = [sys.executable, ROOT / "docs" / "verify_receipt.py", f"{file}.json", "--trust", by]
            assert subprocess.run(words, capture_output=True).returncode == code, (file, by)
        out = capsys.readouterr().out
        assert out.count(", by ML-DSA, too") == 1
        assert "NOT proven: checkpoint: not signed under a --trust certificate: checkpoint: no ML-DSA signature" in out

    def test_disclose_and_verify(
        self, world: World, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ("receipt", uid_of(world.files["native"]), "--out", "e.json", "--disclose", "00080060", "0028,0010")
        assert run("--config", world.config, *words) == 0
        capsys.readouterr()
        assert run("verify-receipt", "e.json", "--trust", "owner.pem") == 0
        out = capsys.readouterr().out
        assert "(0008,0060) Modality = 'CT'" in out
        assert "(0028,0010) Rows = hexadecimal 8000" in out
        assert run("verify-receipt", "e.json", "--json", "--trust", "owner.pem") == 0
        [row] = map(json.loads, capsys.readouterr().out.splitlines())
        assert (row["state"], row["elements"][0]["bytes"]) == ("proven", b"CT".hex())

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "one of the arguments --trust --peers is required"),
            (
                ("--trust", "owner.pem", "--peers", "HospitalMSP=owner.pem"),
                "--peers: not allowed with argument --trust",
            ),
        ],
        ids=["nobody", "both"],
    )
    def test_who_is_believed_is_said_in_one_way(
        self, run: Callable[..., int], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            run("verify-receipt", "ct.json", "ct.dcm", *options)
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (("ct.json", "sr.dcm", "--trust", "owner.pem"), 1, "NOT proven: file: "),
            (("ct.json", "ct.dcm", "--trust", "custodian.pem"), 1, "NOT proven: entry: not signed under a --trust"),
            (("ct.json", "--trust", "owner.pem"), 2, "name the file"),
            (("ct.json", "missing.dcm", "--trust", "owner.pem"), 2, "missing.dcm: cannot be read"),
            (("ct.json", "owner.pem", "--trust", "owner.pem"), 2, "not DICOM"),
            (("missing.json", "ct.dcm", "--trust", "owner.pem"), 2, "missing.json: cannot be read"),
            (("ct.dcm", "ct.dcm", "--trust", "owner.pem"), 2, "not JSON"),
            (("ct.json", "ct.dcm", "--trust", "ct.dcm"), 2, "not an X.509 certificate in PEM"),
            (("ct.json", "ct.dcm", "--peers", "HospitalMSP=ct.dcm"), 2, "not an X.509 certificate in PEM"),
            (("ct.json", "ct.dcm", "--peers", "owner.pem"), 2, "--peers 'owner.pem': expected MSPID=CA.pem"),
            (("ct.json", "ct.dcm", "--peers", "=owner.pem"), 2, "expected MSPID=CA.pem"),
            (("ct.json", "ct.dcm", "--peers", "HospitalMSP="), 2, "expected MSPID=CA.pem"),
            (
                ("ct.json", "ct.dcm", "--peers", "HospitalMSP=owner.pem", "--peers", "HospitalMSP=custodian.pem"),
                2,
                "'HospitalMSP' is named twice",
            ),
        ],
    )
    def test_what_is_wrong_is_said(
        self, run: Callable[..., int], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
    ) -> None:
        assert run("verify-receipt", *words) == code
        captured = capsys.readouterr()
        assert said in captured.out + captured.err

    def test_an_embedded_receipt_does_not_pass_for_one_of_two_organisations(
        self, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        both = ("--peers", "HospitalMSP=owner.pem", "--peers", "CustodianMSP=custodian.pem")
        for peers in (both, both[:2]):
            assert run("verify-receipt", "ct.json", "ct.dcm", *peers) == 1
            said = capsys.readouterr().out
            assert "NOT proven: evidence: a log that one organisation keeps, where --peers asks for signatures" in said
            assert "give --trust CA.pem of its owner only if you believe that organisation alone" in said

    def test_a_file_for_elements_is_refused(
        self, disclosed: Receipt, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("e.json").write_bytes(disclosed.encode())
        assert run("verify-receipt", "e.json", "ct.dcm", "--trust", "owner.pem") == 2
        assert "leave the file out" in capsys.readouterr().err

    def test_a_value_cannot_write_to_the_terminal(
        self, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        node = make_node(tmp_path / "hostile")
        hostile = variant()
        hostile.ImageComments = "\x1b[2Jproven\n\x9b"
        store(node, hostile)
        drain(node)
        receipt = _receipts(node).issue(str(hostile.SOPInstanceUID), [parse_path("00204000")]).receipt
        ca = tmp_path / "hostile" / "node" / "organisations" / "owner" / "cacerts" / "ca.pem"
        Path("e.json").write_bytes(receipt.encode())
        assert run("verify-receipt", "e.json", "--trust", ca) == 0
        out = capsys.readouterr().out
        assert "\\x1b[2Jproven\\n" in out
        assert "\x1b" not in out
        assert out.isascii()

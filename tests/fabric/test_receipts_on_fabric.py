"""Receipts by the word of Fabric's peers: one of each organisation that the verifier names, or nothing. Each is judged
by the project and by docs/verify_receipt.py, which must agree.
"""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from node_make import drain, make_node, real_file, store
from receipt_world import changed, changes

from orthanc_ledger import cli
from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.errors import ConfigError, CustodyError, IntegrityError
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger.checkpoint import sign_note
from orthanc_ledger.ledger.fabric.evidence import Evidence
from orthanc_ledger.ledger.fabric.proposal import Endorsed
from orthanc_ledger.ledger.identity import create_organisation, load_identity, read_certificate
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.ledger.transaction import sign
from orthanc_ledger.merkle import leaf_hash
from orthanc_ledger.receipt import EmbeddedEvidence, FabricEvidence, Leaves, Receipt, parse_path
from orthanc_ledger.receipt_check import check, check_file
from orthanc_ledger.receipt_evidence import Peers as Keepers
from orthanc_ledger.setup_node import CONFIG_NAME
from tests.fabric.peers import CUSTODIAN, OWNER, Peer, response_to, with_ends_moved

pytestmark = [pytest.mark.usefixtures("moved"), pytest.mark.timeout(1200)]  # with what is built the first time

FILE = "CT_small.dcm"
CA = "cacerts/ca.pem"
BOTH = ("owner", "custodian")
HONEST = (("owner", OWNER), ("custodian", CUSTODIAN))
MSP_IDS = {"owner": OWNER, "custodian": CUSTODIAN, "research": "ResearchMSP"}
WITHOUT_EXTRA = """
import sys
from orthanc_ledger.cli import main
sys.modules["fabric_protos"] = None
sys.exit(main(sys.argv[1:]))
"""


def ca_of(organisation: Path) -> bytes:
    return read_certificate(organisation / CA).public_bytes(Encoding.DER)


class World:
    """A node on Fabric with one anchored object: a receipt for its file, one of two elements."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.node = folder, make_node(folder)
        store(self.node, real_file(FILE))
        drain(self.node)
        self.file = real_file(FILE).read_bytes()
        (held,) = self.node.index.select()
        self.sop_uid = held.sop_uid
        self.whole = _receipts(self.node).issue(held.sop_uid).receipt
        paths = [parse_path(path) for path in ("00080060", "00100010")]
        self.disclosed = _receipts(self.node).issue(held.sop_uid, paths).receipt

    def party(self, role: str) -> Path:
        return self.folder / "node" / "organisations" / role

    def peers(self, *roles: str) -> dict[str, bytes]:
        return {MSP_IDS[role]: ca_of(self.party(role)) for role in roles}

    def options(self, *roles: str) -> list[str]:
        """The same for both programs."""
        named = [f"{MSP_IDS[role]}={self.party(role) / CA}" for role in roles]
        return [word for each in named for word in ("--peers", each)]

    def proves(self, data: bytes, *roles: str) -> bool:
        """Whether the project believes a receipt by the word of these organisations; for a file, with the file."""
        try:
            receipt = Receipt.decode(data)
            proven = check(receipt, self.peers(*roles))
            if isinstance(receipt.content, Leaves):
                check_file(receipt.content, proven.record, open_instance(io.BytesIO(self.file)))
        except CustodyError:
            return False
        return True

    def refuses(self, receipt: Receipt, why: str, *roles: str) -> None:
        with pytest.raises(IntegrityError, match=why):
            check(receipt, self.peers(*(roles or BOTH)))


@pytest.fixture(scope="module")
def world(moved: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def reference(world: World, tmp_path: Path) -> Callable[..., int]:
    """Exit code of docs/verify_receipt.py for a receipt, by the word of organisations or as other options say."""

    def run(data: bytes, *roles: str, file: bool = False, options: Sequence[str] = ()) -> int:
        (tmp_path / "receipt.json").write_bytes(data)
        named = options or world.options(*roles)
        words = [tmp_path / "receipt.json", *([real_file(FILE)] if file else []), *named]
        program = [sys.executable, "-W", "error", ROOT / "docs" / "verify_receipt.py", *words]
        return subprocess.run(list(map(str, program)), capture_output=True).returncode

    return run


def signed_by(receipt: Receipt, *peers: Peer) -> Receipt:
    """A receipt whose answer others signed; nobody: as its first peer alone did."""
    assert isinstance(receipt.evidence, FabricEvidence)
    endorsed = Evidence.decode(receipt.evidence.answer).endorsed
    signatures = tuple(peer.endorse(endorsed.response) for peer in peers) or endorsed.endorsements[:1]
    answer = Evidence(replace(endorsed, endorsements=signatures)).encode()
    return replace(receipt, evidence=replace(receipt.evidence, answer=answer))


def peer_of(world: World, role: str, msp_id: str, unit: str = "peer") -> Peer:
    """A peer whose certificate an organisation's CA issues, whatever MSP ID it gives itself."""
    return Peer(world.party(role), msp_id, int(time.time()) - 60, unit)


def log_of(world: World, role: str) -> Receipt:
    """A receipt for the same object that one organisation makes alone: a log of its own in place of signatures."""
    person, now, log = load_identity(world.party(role) / "identities" / "person"), system_clock(), bytes(32)
    anchor = check(world.disclosed, world.peers(*BOTH)).anchor
    entry = sign(person, log, "Anchor", dict(anchor.args), bytes(16), now).entry(now)
    note = sign_note(Checkpoint(1, leaf_hash(entry)), log, now, person)
    return replace(world.disclosed, evidence=EmbeddedEvidence(0, entry, (), note))


def test_both_kinds_are_proven_offline_by_owner_and_custodian(world: World, reference: Callable[..., int]) -> None:
    for receipt, file in ((world.whole, True), (world.disclosed, False)):
        data = receipt.encode()
        assert world.proves(data, *BOTH)
        assert reference(data, *BOTH, file=file) == 0


def test_it_says_who_kept_the_anchor_and_where_it_stands(world: World) -> None:
    anchor = check(world.disclosed, world.peers(*BOTH)).anchor
    (audited,) = (row for row in world.node.ledger.query("Audit", {}) if row["function"] == "Anchor")
    assert (anchor.args, anchor.time, anchor.position) == (audited["args"], audited["time"], audited["sequence"])
    assert isinstance(anchor.kept_by, Keepers)
    assert (anchor.kept_by.channel, set(anchor.kept_by.serials)) == ("custody", {OWNER, CUSTODIAN})
    assert set(anchor.authorities) == {ca_of(world.party(role)) for role in BOTH}


def test_each_organisation_that_signed_may_be_asked_for_alone(world: World, reference: Callable[..., int]) -> None:
    for role in BOTH:
        anchor = check(world.disclosed, world.peers(role)).anchor
        assert isinstance(anchor.kept_by, Keepers)
        assert (set(anchor.kept_by.serials), anchor.authorities) == ({MSP_IDS[role]}, tuple(world.peers(role).values()))
        assert reference(world.disclosed.encode(), role) == 0


@pytest.mark.parametrize("roles", [("research",), ("owner", "research"), (*BOTH, "research")], ids=" ".join)
def test_the_signature_of_each_organisation_named_is_needed(
    world: World, reference: Callable[..., int], roles: tuple[str, ...]
) -> None:
    world.refuses(world.disclosed, r"\['ResearchMSP'\] are missing", *roles)
    assert reference(world.disclosed.encode(), *roles) == 1


def test_an_embedded_receipt_does_not_pass_for_one_of_two_organisations(
    world: World, reference: Callable[..., int]
) -> None:
    for role in BOTH:
        forged, own = log_of(world, role), ca_of(world.party(role))
        check(forged, [own])  # refused below for its kind alone
        assert reference(forged.encode(), options=["--trust", str(world.party(role) / CA)]) == 0
        world.refuses(forged, "^evidence: a log that one organisation keeps, where --peers asks for signatures")
        assert reference(forged.encode(), *BOTH) == 1


def test_peers_do_not_pass_for_a_log(world: World, reference: Callable[..., int]) -> None:
    trusted = [ca_of(world.party(role)) for role in BOTH]
    with pytest.raises(IntegrityError, match=r"^evidence: signatures of peers on Fabric, where --trust"):
        check(world.disclosed, trusted)
    options = [word for role in BOTH for word in ("--trust", str(world.party(role) / CA))]
    assert reference(world.disclosed.encode(), options=options) == 1


def test_the_receipt_does_not_say_which_organisation_a_ca_is_of(world: World, reference: Callable[..., int]) -> None:
    (owner, owners), (custodian, custodians) = world.peers(*BOTH).items()
    with pytest.raises(IntegrityError, match="not issued by the CA of"):
        check(world.disclosed, {owner: custodians, custodian: owners})
    swapped = [f"{owner}={world.party('custodian') / CA}", f"{custodian}={world.party('owner') / CA}"]
    options = [word for each in swapped for word in ("--peers", each)]
    assert reference(world.disclosed.encode(), options=options) == 1


def test_one_key_does_not_pass_for_two_organisations(
    world: World, reference: Callable[..., int], tmp_path: Path
) -> None:
    """Its holder signs for whatever MSP ID he likes, also under a certificate by another name."""
    renamed = with_another_name(world.party("owner"), tmp_path / "renamed")
    for party in (world.party("owner"), renamed):
        other = Peer(party, CUSTODIAN, int(time.time()) - 60)
        forged = signed_by(world.disclosed, peer_of(world, "owner", OWNER), other)
        with pytest.raises(ConfigError, match="two organisations with one CA key"):
            check(forged, {OWNER: ca_of(world.party("owner")), CUSTODIAN: ca_of(party)})
        options = ["--peers", f"{OWNER}={world.party('owner') / CA}", "--peers", f"{CUSTODIAN}={party / CA}"]
        assert reference(forged.encode(), options=options) == 1
        assert reference(forged.encode(), options=options[2:]) == 0, "it is refused for its key alone"


def with_another_name(organisation: Path, folder: Path) -> Path:
    """A folder with an organisation's CA key, and another certificate for it."""
    pem = (organisation / "keystore" / "key.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    usual = read_certificate(organisation / CA)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another name")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(usual.not_valid_before_utc)
        .not_valid_after(usual.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    for name_of, content in (("keystore/key.pem", pem), (CA, certificate.public_bytes(Encoding.PEM))):
        (folder / name_of).parent.mkdir(parents=True)
        (folder / name_of).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("signers", "why"),
    [
        ((), "are missing"),
        ((("owner", OWNER),) * 2, r"\['CustodianMSP'\] are missing"),
        ((("owner", OWNER), ("owner", CUSTODIAN)), "not issued by the CA of CustodianMSP"),
        ((("owner", OWNER), ("custodian", OWNER)), "not issued by the CA of HospitalMSP"),
        ((("owner", OWNER), ("research", CUSTODIAN)), "not issued by the CA of CustodianMSP"),
        ((*HONEST, ("owner", CUSTODIAN)), "not issued by the CA of CustodianMSP"),
        ((("owner", OWNER), ("custodian", CUSTODIAN, "client")), "expected a certificate of a peer"),
        ((("owner", OWNER), ("custodian", CUSTODIAN, "admin")), "expected a certificate of a peer"),
    ],
    ids=[
        "one peer",
        "two peers of one",
        "two names of one",
        "one name of two",
        "a third",
        "one too many",
        "a client",
        "an admin",
    ],
)
def test_what_peers_of_both_did_not_sign_is_refused(
    world: World, reference: Callable[..., int], signers: tuple[tuple[str, ...], ...], why: str
) -> None:
    forged = signed_by(world.disclosed, *(peer_of(world, *each) for each in signers))
    world.refuses(forged, why)
    assert reference(forged.encode(), *BOTH) == 1


@pytest.mark.parametrize("others", [(), (("research", "ResearchMSP"),), (("owner", "StrangerMSP", "client"),)], ids=str)
def test_new_peers_of_both_are_believed_whoever_else_signed(
    world: World, reference: Callable[..., int], others: tuple[tuple[str, ...], ...]
) -> None:
    """So that what is refused above is refused for its signers."""
    signed = signed_by(world.disclosed, *(peer_of(world, *each) for each in (*others, *HONEST)))
    assert world.proves(signed.encode(), *BOTH)
    assert reference(signed.encode(), *BOTH) == 0


def test_the_same_signatures_do_not_name_another_channel_with_a_part_s_end_moved(
    world: World, reference: Callable[..., int]
) -> None:
    assert isinstance(world.disclosed.evidence, FabricEvidence)
    honest = Evidence.decode(world.disclosed.evidence.answer).endorsed
    asked, moved = with_ends_moved(honest.proposal)
    answer, chaincode = honest.answer.decode(), honest.action.chaincode_id.name
    for proposal, why in ((honest.proposal, ""), (asked, "none that can be read"), (moved, "none that can be read")):
        response = response_to(asked if why else proposal, answer, chaincode=chaincode)
        ours = Evidence(Endorsed(proposal, response, ()))
        forged = signed_by(
            replace(world.disclosed, evidence=FabricEvidence(ours.encode())),
            *(peer_of(world, *each) for each in HONEST),
        )
        if why:
            world.refuses(forged, why)
        assert reference(forged.encode(), *BOTH) == bool(why)


def test_a_namesake_of_the_custodians_ca_is_refused(
    world: World, reference: Callable[..., int], tmp_path: Path
) -> None:
    create_organisation(tmp_path / "namesake", CUSTODIAN)
    impostor = Peer(tmp_path / "namesake", CUSTODIAN, int(time.time()))
    forged = signed_by(world.disclosed, peer_of(world, "owner", OWNER), impostor)
    world.refuses(forged, "not issued by the CA of CustodianMSP")
    assert reference(forged.encode(), *BOTH) == 1


def test_the_answer_to_another_question_is_refused(world: World, reference: Callable[..., int]) -> None:
    channel = world.node.ledger_as()
    member = channel._member()  # type: ignore[attr-defined]  # the honest peers' word, for what is no GetAnchor
    study = world.node.ledger.query("Audit", {})[1]["args"]["study"].hex()
    _, other = member.endorse("HistoryOf", json.dumps({"key": f"study/{study}"}, separators=(",", ":")), timeout_s=10.0)
    channel.close()
    forged = replace(world.disclosed, evidence=FabricEvidence(Evidence(other).encode()))
    world.refuses(forged, "answer: ")
    assert reference(forged.encode(), *BOTH) == 1
    asked = Evidence.decode(world.disclosed.evidence.answer).endorsed  # type: ignore[union-attr]
    mixed = Evidence(Endorsed(other.proposal, asked.response, asked.endorsements))
    world.refuses(replace(world.disclosed, evidence=FabricEvidence(mixed.encode())), "another proposal")


def tampered(receipt: Receipt) -> Iterator[tuple[object, bytes]]:
    """Every field of a receipt changed, and its answer at many places."""
    node = json.loads(receipt.encode())
    answer = node["evidence"]["answer"]
    places = [
        (("evidence", "answer"), f"{answer[:n]}{int(answer[n], 16) ^ 1:x}{answer[n + 1 :]}")
        for n in range(0, len(answer), 61)
    ]
    for at, value in [*changes(node), *places]:
        yield at, json.dumps(changed(node, at, value)).encode()


def test_every_part_that_is_changed_is_refused(world: World) -> None:
    for receipt in (world.whole, world.disclosed):
        tried = 0
        for at, data in tampered(receipt):
            tried += 1
            assert not world.proves(data, *BOTH), f"{at} may be changed"
        assert tried > 100


def test_the_commands_issue_and_verify(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "receipt.json")
    config = str(world.folder / "node" / CONFIG_NAME)
    assert cli.main(["--config", config, "receipt", world.sop_uid, "--out", path]) == 0
    assert "signed by peers of CustodianMSP and HospitalMSP" in capsys.readouterr().out
    assert cli.main(["verify-receipt", path, str(real_file(FILE)), *world.options(*BOTH)]) == 0
    out = capsys.readouterr().out
    assert "on channel 'custody'" in out
    assert "what happened after the peers were asked" in out
    assert cli.main(["verify-receipt", path, str(real_file(FILE)), *world.options("owner", "research")]) == 1
    assert "NOT proven: expected the signatures of peers of HospitalMSP, ResearchMSP" in capsys.readouterr().out
    assert cli.main(["verify-receipt", path, str(real_file(FILE)), "--trust", str(world.party("owner") / CA)]) == 1
    assert "give --peers MSPID=CA.pem for each organisation that must have signed" in capsys.readouterr().out


def test_none_leaves_whose_signers_the_node_cannot_check(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    node = world.folder / "node"
    settings = yaml.safe_load((node / CONFIG_NAME).read_text())
    usual = node / settings["ledger"].removeprefix("fabric:")
    connection = yaml.safe_load(usual.read_text())
    for role in ("custodian", "research"):
        (world.party(role) / "less.yaml").write_bytes((world.party(role) / usual.name).read_bytes())
    less = {msp_id: path for msp_id, path in connection["organisations"].items() if msp_id != CUSTODIAN}
    usual.with_name("less.yaml").write_text(yaml.safe_dump({**connection, "organisations": less}))
    ledger = f"fabric:{usual.with_name('less.yaml')}"
    (node / "less.yaml").write_text(yaml.safe_dump({**settings, "ledger": ledger}))
    out = world.folder / "none.json"
    assert cli.main(["--config", str(node / "less.yaml"), "receipt", world.sop_uid, "--out", str(out)]) == 2
    assert "no CA certificate of ['CustodianMSP'], whose peers sign receipts" in capsys.readouterr().err
    assert not out.exists()


def test_without_the_extra_it_is_told_what_to_install(world: World, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_bytes(world.disclosed.encode())
    words = ["verify-receipt", str(tmp_path / "receipt.json"), *world.options(*BOTH)]
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not installed: pip install 'orthanc-ledger[consortium]'" in done.stderr

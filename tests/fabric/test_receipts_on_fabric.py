"""Receipts by the word of Fabric's peers: a peer of owner and one of custodian, or nothing. Each is judged by the
project and by docs/verify_receipt.py, which must agree.
"""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from node_make import drain, make_node, real_file, store
from receipt_world import changed, changes

from orthanc_ledger import cli
from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.errors import CustodyError, IntegrityError
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger.fabric.evidence import Evidence
from orthanc_ledger.ledger.fabric.proposal import Endorsed
from orthanc_ledger.ledger.identity import ca_certificate, create_organisation
from orthanc_ledger.receipt import FabricEvidence, Leaves, Receipt, parse_path
from orthanc_ledger.receipt_check import check, check_file
from orthanc_ledger.receipt_evidence import Peers as Keepers
from orthanc_ledger.setup_node import CONFIG_NAME
from tests.fabric.peers import CUSTODIAN, OWNER, Peer

pytestmark = [pytest.mark.usefixtures("moved"), pytest.mark.timeout(1200)]  # with what is built the first time

FILE = "CT_small.dcm"
BOTH = ("owner", "custodian")
WITHOUT_EXTRA = """
import sys
from orthanc_ledger.cli import main
sys.modules["fabric_protos"] = None
sys.exit(main(sys.argv[1:]))
"""


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

    def trust(self, *roles: str) -> list[str]:
        """Options of both programs."""
        return [word for role in roles for word in ("--trust", str(self.party(role) / "cacerts" / "ca.pem"))]

    def proves(self, data: bytes, *roles: str) -> bool:
        """Whether the project believes a receipt under these organisations' CAs; for a file, with the file."""
        try:
            receipt = Receipt.decode(data)
            proven = check(receipt, [ca_certificate(self.party(role)) for role in roles])
            if isinstance(receipt.content, Leaves):
                check_file(receipt.content, proven.record, open_instance(io.BytesIO(self.file)))
        except CustodyError:
            return False
        return True

    def refuses(self, receipt: Receipt, why: str, *roles: str) -> None:
        with pytest.raises(IntegrityError, match=why):
            check(receipt, [ca_certificate(self.party(role)) for role in roles or BOTH])


@pytest.fixture(scope="module")
def world(moved: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def reference(world: World, tmp_path: Path) -> Callable[..., int]:
    """Exit code of docs/verify_receipt.py for a receipt, under organisations' CAs."""

    def run(data: bytes, *roles: str, file: bool = False) -> int:
        (tmp_path / "receipt.json").write_bytes(data)
        words = [tmp_path / "receipt.json", *([real_file(FILE)] if file else []), *world.trust(*roles)]
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


def test_both_kinds_are_proven_offline_under_owner_and_custodian(world: World, reference: Callable[..., int]) -> None:
    for receipt, file in ((world.whole, True), (world.disclosed, False)):
        data = receipt.encode()
        assert world.proves(data, *BOTH)
        assert [reference(data, *roles, file=file) for roles in (BOTH, ())] == [0, 4]


def test_it_says_who_kept_the_anchor_and_where_it_stands(world: World) -> None:
    anchor = check(world.disclosed, [ca_certificate(world.party(role)) for role in BOTH]).anchor
    (audited,) = (row for row in world.node.ledger.query("Audit", {}) if row["function"] == "Anchor")
    assert (anchor.args, anchor.time, anchor.position) == (audited["args"], audited["time"], audited["sequence"])
    assert isinstance(anchor.kept_by, Keepers)
    assert (anchor.kept_by.channel, set(anchor.kept_by.serials)) == ("custody", {OWNER, CUSTODIAN})
    assert set(anchor.authorities) == {ca_certificate(world.party(role)) for role in BOTH}


@pytest.mark.parametrize("roles", [("owner",), ("custodian",), ("research",), ("owner", "research"), ("owner",) * 2])
def test_a_peer_that_nobody_trusts_proves_nothing(
    world: World, reference: Callable[..., int], roles: tuple[str, ...]
) -> None:
    world.refuses(world.disclosed, "whose CA is no --trust certificate", *roles)
    assert reference(world.disclosed.encode(), *roles) == 1


@pytest.mark.parametrize(
    ("signers", "why"),
    [
        ((), "signed under 1 --trust certificates"),
        ((("owner", OWNER),) * 2, "signed under 1 --trust certificates"),
        ((("owner", OWNER), ("owner", CUSTODIAN)), "signed under 1 --trust certificates"),
        ((("owner", OWNER), ("custodian", OWNER)), "signed under 1 --trust certificates"),
        ((("owner", OWNER), ("research", CUSTODIAN)), "whose CA is no --trust certificate"),
        ((("owner", OWNER), ("custodian", CUSTODIAN, "client")), "expected a certificate of a peer"),
        ((("owner", OWNER), ("custodian", CUSTODIAN, "admin")), "expected a certificate of a peer"),
    ],
    ids=["one peer", "two peers of one", "two names of one", "one name of two", "a third", "a client", "an admin"],
)
def test_what_peers_of_both_did_not_sign_is_refused(
    world: World, reference: Callable[..., int], signers: tuple[tuple[str, ...], ...], why: str
) -> None:
    forged = signed_by(world.disclosed, *(peer_of(world, *each) for each in signers))
    world.refuses(forged, why)
    assert reference(forged.encode(), *BOTH) == 1


def test_new_peers_of_both_are_believed(world: World, reference: Callable[..., int]) -> None:
    """So that what is refused above is refused for its signers."""
    signed = signed_by(world.disclosed, peer_of(world, "owner", OWNER), peer_of(world, "custodian", CUSTODIAN))
    assert world.proves(signed.encode(), *BOTH)
    assert reference(signed.encode(), *BOTH) == 0


def test_a_namesake_of_the_custodians_ca_is_refused(
    world: World, reference: Callable[..., int], tmp_path: Path
) -> None:
    create_organisation(tmp_path / "namesake", CUSTODIAN)
    impostor = Peer(tmp_path / "namesake", CUSTODIAN, int(time.time()))
    forged = signed_by(world.disclosed, peer_of(world, "owner", OWNER), impostor)
    world.refuses(forged, "whose CA is no --trust certificate")
    assert reference(forged.encode(), *BOTH) == 1


def test_the_answer_to_another_question_is_refused(world: World, reference: Callable[..., int]) -> None:
    channel = world.node.ledger_as()
    member = channel._member()  # type: ignore[attr-defined]  # the honest peers' word, for what is no GetAnchor
    study = world.node.ledger.query("Audit", {})[1]["args"]["study"].hex()
    _, other = member.endorse("HistoryOf", json.dumps({"key": f"study/{study}"}, separators=(",", ":")), timeout_s=10.0)
    channel.close()
    forged = replace(world.disclosed, evidence=FabricEvidence(Evidence(other).encode(), ()))
    world.refuses(forged, "answer: ")
    assert reference(forged.encode(), *BOTH) == 1
    asked = Evidence.decode(world.disclosed.evidence.answer).endorsed  # type: ignore[union-attr]
    mixed = Evidence(Endorsed(other.proposal, asked.response, asked.endorsements))
    world.refuses(replace(world.disclosed, evidence=FabricEvidence(mixed.encode(), ())), "another proposal")


def tampered(receipt: Receipt) -> Iterator[tuple[object, bytes]]:
    """Every field of a receipt changed, and its answer at many places, but for the hint that nobody has to believe."""
    node = json.loads(receipt.encode())
    answer = node["evidence"]["answer"]
    places = [
        (("evidence", "answer"), f"{answer[:n]}{int(answer[n], 16) ^ 1:x}{answer[n + 1 :]}")
        for n in range(0, len(answer), 61)
    ]
    for at, value in [*changes(node), *places]:
        if at[:2] != ("evidence", "authorities"):
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
    assert cli.main(["verify-receipt", path, str(real_file(FILE)), *world.trust(*BOTH)]) == 0
    out = capsys.readouterr().out
    assert "on channel 'custody'" in out
    assert "what happened after the peers were asked" in out
    assert cli.main(["verify-receipt", path, str(real_file(FILE)), *world.trust("owner")]) == 1
    assert "NOT proven: answer: a peer of CustodianMSP signed it" in capsys.readouterr().out


def test_without_the_extra_it_is_told_what_to_install(world: World, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_bytes(world.disclosed.encode())
    words = ["verify-receipt", str(tmp_path / "receipt.json"), *world.trust(*BOTH)]
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not installed: pip install 'orthanc-ledger[consortium]'" in done.stderr

"""A hospital's node on a live network, objects that keep coming, and all that can fail meanwhile."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from conftest import wait_until
from live_node import LiveNode, make_live_node
from node_make import open_node
from plain_scu import SUCCESS, PlainScu
from torture_load import MR_IMAGE, Book, Slice, retrieve

from orthanc_ledger.assemble import Node
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.trial import identity_of
from orthanc_ledger.courier import LEDGER_AWAY
from orthanc_ledger.ledger.identity import BACKDATED_S, issue, read_certificate
from orthanc_ledger.outage import ANCHORS_WAIT

FAILING = Path(__file__).parent / "failing"
TAKEN_WITHIN_S = 120.0  # a node that starts again on a busy machine
_EACH_S = 0.25
_SLICES = 3  # a study of so many, then the next


@dataclass(frozen=True)
class Site:
    """The network, the hospital's node on it, what was sent to it, and a study that RESEARCH1 may have."""

    network: Network
    live: LiveNode
    node: Node  # the same node's files, seen from the test
    book: Book
    failures: Path  # the folder of `failing/sitecustomize.py`
    approved: list[Slice]

    def inject(self, name: str) -> None:
        """Have a failure come true in the node, at its next transaction, and wait for it."""
        (self.failures / name).touch()
        wait_until(lambda: not (self.failures / name).exists(), TAKEN_WITHIN_S, f"{name} has come true")

    def sign_as(self, identity: Path) -> None:
        """Give the node another identity, as a person does: in its configuration, and by starting it again."""
        raw = yaml.safe_load(self.live.config.read_text())
        self.live.stop()
        self.live.config.write_text(yaml.safe_dump({**raw, "identity": str(identity)}))
        self.live.start()

    def seen_by_research(self) -> str:
        """What RESEARCH1 gets of its study: its status, `whole` when every slice came as it was sent."""
        status, received = retrieve(self.live.ports["research"], "RESEARCH1", self.approved[0].study_uid)
        self.book.check_received(received)
        return "whole" if received.keys() == {sent.sop_uid for sent in self.approved} else f"0x{status:04X}"

    def seen_by_care(self, sent: Slice) -> bool:
        """Whether a workstation gets a slice now."""
        status, received = retrieve(self.live.ports["clinical"], "VIEWER", sent.study_uid)
        self.book.check_received(received)
        return status == SUCCESS and sent.sop_uid in received


def expired(site: Site) -> Path:
    """An identity of the hospital's node whose certificate has just run out."""
    party = site.network.party("hospital")
    folder = party / "identities" / "expired"
    if not folder.exists():
        ca = read_certificate(party / "cacerts" / "ca.pem").not_valid_before_utc
        issue(party, "expired", "node", lambda: int(ca.timestamp()) + BACKDATED_S, days=0)
    return folder


@dataclass(frozen=True)
class Failure:
    """One of docs/operations.md: its heading there, how it is made and ended, and what a person is told.

    ``alarms``: their kinds; where there are none, anchors and research go on as if nothing were.
    """

    name: str
    begin: Callable[[Site], object]
    end: Callable[[Site], object]
    alarms: tuple[str, ...] = ()


def _killed(name: str, *servers: str, alarms: tuple[str, ...] = ()) -> Failure:
    def begin(site: Site) -> None:
        for server in servers:
            site.network.kill(server)

    def end(site: Site) -> None:
        for server in servers:
            site.network.start(server)

    return Failure(name, begin, end, alarms)


def _frozen(name: str, *servers: str, alarms: tuple[str, ...]) -> Failure:
    def begin(site: Site) -> None:
        for server in servers:
            site.network.freeze(server)

    def end(site: Site) -> None:
        for server in servers:
            site.network.resume(server)

    return Failure(name, begin, end, alarms)


def _leader_killed() -> Failure:
    killed: list[str] = []

    def begin(site: Site) -> None:
        killed.append(site.network.wait_for_leader())
        site.network.kill(killed[-1])

    return Failure("The leading orderer is killed", begin, lambda site: site.network.start(killed[-1]))


def _injected(name: str, file: str) -> Failure:
    return Failure(name, lambda site: site.inject(file), lambda site: None)


FAILURES = (
    _leader_killed(),
    _killed("The research centre's peer is down", "peer0.research"),
    _killed("One of the hospital's peers is down", "peer0.hospital"),
    _injected("A reply is lost", "lose-answer"),
    _injected("The anchorer dies between submit and commit", "die"),
    _killed(
        "All orderers are away",
        *("orderer.hospital", "orderer.custodian", "orderer.research"),
        alarms=(ANCHORS_WAIT,),
    ),
    _killed("The custodian's peer is down", "peer0.custodian", alarms=(ANCHORS_WAIT,)),
    _frozen("The custodian's chaincode hangs", "chaincode.custodian", alarms=(ANCHORS_WAIT,)),
    _killed("The hospital's chaincode is killed", "chaincode.hospital", alarms=(ANCHORS_WAIT, LEDGER_AWAY)),
    _killed(
        "All of the hospital's peers are down",
        *("peer0.hospital", "peer1.hospital"),
        alarms=(ANCHORS_WAIT, LEDGER_AWAY),
    ),
    Failure(
        "The node's certificate has expired",
        lambda site: site.sign_as(expired(site)),
        lambda site: site.sign_as(identity_of(site.network, "hospital", "node")),
        (ANCHORS_WAIT, LEDGER_AWAY),
    ),
)


@contextmanager
def arriving(site: Site) -> Iterator[None]:
    """A modality that goes on sending, study after study, whatever fails elsewhere."""
    stop = threading.Event()

    def send() -> None:
        study, count = site.book.new_study(), 0
        while not stop.wait(_EACH_S):
            study = site.book.new_study() if count % _SLICES == 0 else study
            count += 1
            store(site, study)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def store(site: Site, study: int) -> Slice:
    """Send a slice until it is acknowledged: while the node starts again nobody answers."""
    sent = site.book.new_slice(study, small=True)

    def answered() -> bool:
        try:
            with PlainScu(site.live.ports["clinical"], "MRI1", [MR_IMAGE]) as scu:
                site.book.answered(sent, SUCCESS, scu.store(MR_IMAGE, sent.sop_uid, sent.encoded()))
        except OSError:
            return False
        return True

    wait_until(answered, TAKEN_WITHIN_S, "a slice is acknowledged")
    return sent


@contextmanager
def hospital(network: Network, folder: Path, free_port: Callable[[], int]) -> Iterator[Site]:
    """A running node with an approved study. Its processes find `failing/sitecustomize.py`: set PYTHONPATH."""
    live = make_live_node(
        folder,
        free_port,
        ledger=f"fabric:{network.connection('hospital')}",
        identity=str(identity_of(network, "hospital", "node")),
        batch={"idle_s": 0.2},
        checkpoint_within_s=1,
        sweep_every_h=0,
    )
    raw = yaml.safe_load(live.config.read_text())
    for port in ("clinical", "research"):
        raw[port]["processes"] = 1
    live.config.write_text(yaml.safe_dump(raw))
    for each in network.topology.organisations:  # in the place of those that `init` made
        party = folder / "node" / "organisations" / each.role
        shutil.rmtree(party)
        shutil.copytree(network.party(each.name), party)
    live.signers = {
        each.role: (
            "--ledger",
            f"fabric:{network.connection(each.name)}",
            "--as",
            identity_of(network, each.name, "person"),
        )
        for each in network.topology.organisations
        if each.role != "owner"
    }
    live.start()
    try:
        site = Site(network, live, open_node(folder), Book(), Path(os.environ["FAILURES"]), [])
        study = site.book.new_study()
        site.approved.extend(store(site, study) for _ in range(_SLICES))
        live.wait_anchored(_SLICES)
        live.approve(site.approved[0].study_uid)
        yield site
    finally:
        live.stop()

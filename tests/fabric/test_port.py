"""The port's promises (`orthanc_ledger/ledger/__init__.py`), kept by the embedded ledger and on Fabric alike."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from orthanc_ledger.clock import system_clock
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import trial
from orthanc_ledger.consortium.trial import identity_of, trial_policy
from orthanc_ledger.errors import ContractError, LedgerAway
from orthanc_ledger.ledger import Committed, Ledger, OpenLedger, all_rows, open_ledger
from orthanc_ledger.ledger.contract import event_key
from orthanc_ledger.ledger.embedded import create_ledger
from orthanc_ledger.ledger.fabric.gateway import Gateway
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import ca_certificate, load_identity
from orthanc_ledger.setup_node import create_member
from tests.conftest import wait_until
from tests.consortium.live import WITHOUT_KEEPER, running
from tests.fabric.live import anchoring, times_anchored
from tests.fabric.on_fabric import WITHIN_S

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

ROUNDS = 25  # of a race
AT_ONCE = 200
ORGANISATIONS = {"hospital": "HospitalMSP", "custodian": "CustodianMSP", "research": "ResearchMSP"}
Open = Callable[..., OpenLedger]


@dataclass(frozen=True)
class Kind:
    """A ledger of three organisations, in use. ``open``: as an organisation's person sees it, with any patience."""

    open: Callable[[str, float], OpenLedger]
    away: Callable[[], AbstractContextManager[None]]


@contextmanager
def embedded(folder: Path) -> Iterator[Kind]:
    for name, msp_id in ORGANISATIONS.items():
        create_member(folder / name, msp_id)
    policy = trial_policy(trial(), WITHOUT_KEEPER)
    path = folder / "ledger.db"
    authorities = {msp_id: ca_certificate(folder / name) for name, msp_id in ORGANISATIONS.items()}
    create_ledger(path, authorities, policy)

    def open_as(name: str, patience_s: float) -> OpenLedger:
        identity = load_identity(folder / name / "identities" / "person")
        return open_ledger(f"embedded:{path}", identity, system_clock, patience_s)

    @contextmanager
    def away() -> Iterator[None]:
        path.rename(path.with_suffix(".away"))
        yield
        path.with_suffix(".away").rename(path)

    ledger = open_as("hospital", 5.0)
    ledger.submit("InitPolicy", {"policy": policy})
    ledger.close()
    yield Kind(open_as, away)


def on_fabric(network: Network) -> Kind:
    def open_as(name: str, patience_s: float) -> OpenLedger:
        identity = load_identity(identity_of(network, name, "person"))
        return open_ledger(f"fabric:{network.connection(name)}", identity, system_clock, patience_s)

    @contextmanager
    def away() -> Iterator[None]:
        network.kill("peer0.hospital")
        yield
        network.start("peer0.hospital")

    return Kind(open_as, away)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Network]:
    """One peer an organisation, so that its loss is the ledger's."""
    with running(tmp_path_factory.mktemp("network"), trial(hospital_peers=1).with_ports(free_port)) as started:
        yield started


@pytest.fixture(scope="module", params=["embedded", "fabric"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    if request.param == "fabric":
        yield on_fabric(request.getfixturevalue("network"))
    else:
        with embedded(tmp_path_factory.mktemp("embedded")) as made:
            yield made


@pytest.fixture
def opened(kind: Kind) -> Iterator[Open]:
    """Opens the ledger as an organisation's person sees it; closed afterwards."""
    with ExitStack() as stack:

        def open_as(name: str = "hospital", patience_s: float = 30.0) -> OpenLedger:
            ledger = kind.open(name, patience_s)
            stack.callback(ledger.close)
            return ledger

        yield open_as


def trail(ledger: Ledger) -> list[Mapping[str, Any]]:
    return list(all_rows(ledger, "Audit", {}))


def test_what_is_submitted_is_committed_and_everybody_sees_it(opened: Open) -> None:
    hospital, research, args, before = opened(), opened("research"), anchoring(), int(time.time())
    committed = hospital.submit("Anchor", args)
    assert len(committed.tx_id) == 32
    assert before <= committed.time <= time.time()
    assert committed.result == {"sequence": committed.position, "time": committed.time}
    wait_until(lambda: trail(research)[-1]["sequence"] == committed.position, WITHIN_S, "research's peer has it")
    found = research.query("GetAnchor", {"manifestCid": args["manifestCid"]})
    assert {name: found[name] for name in args} == args


def test_positions_rise_in_the_order_of_commits(opened: Open) -> None:
    hospital = opened()
    committed = [hospital.submit("Anchor", anchoring()) for _ in range(5)]
    positions = [each.position for each in committed]
    assert positions == sorted(set(positions))
    assert [row["sequence"] for row in trail(hospital)[-5:]] == positions


def same(first: Committed, again: Committed) -> bool:
    return (first.position, first.time, first.result) == (again.position, again.time, again.result)


def test_a_repeat_gives_the_first_and_changes_nothing(opened: Open) -> None:
    hospital, args = opened(), anchoring()
    first = hospital.submit("Anchor", args)
    hospital.submit("Anchor", anchoring())
    before = trail(hospital)
    assert same(first, hospital.submit("Anchor", args))
    assert same(first, opened().submit("Anchor", args))
    assert trail(hospital) == before
    assert times_anchored(hospital, args) == 1


def test_of_an_id_function_the_nonce_makes_the_call(opened: Open) -> None:
    hospital, args = opened(), anchoring()
    hospital.submit("Anchor", args)
    study, nonce = {"study": args["study"], "reason": "113001"}, secrets.token_bytes(16)
    first = hospital.submit("Withdraw", study, nonce)
    assert same(first, hospital.submit("Withdraw", study, nonce))
    others = [hospital.submit("Withdraw", study, secrets.token_bytes(16)), hospital.submit("Withdraw", study)]
    others.append(hospital.submit("Withdraw", study))
    assert len({each.result["id"] for each in [first, *others]}) == 4
    assert len({each.position for each in [first, *others]}) == 4


def test_a_refusal_has_code_and_field_and_leaves_nothing(opened: Open) -> None:
    hospital, args = opened(), anchoring()
    hospital.submit("Anchor", args)
    before = trail(hospital)
    for name, function, given, code, field in (
        ("hospital", "Anchor", {**args, "count": 4}, "CONFLICT", "count"),
        ("hospital", "Anchor", {**args, "root": b""}, "INVALID", "root"),
        ("hospital", "Nothing", {}, "INVALID", "function"),
        ("hospital", "Cancel", {"id": bytes(32)}, "NOT_FOUND", "id"),
        ("custodian", "Anchor", anchoring(), "NOT_PERMITTED", "role"),
        ("research", "Anchor", anchoring(), "NOT_PERMITTED", "role"),
    ):
        with pytest.raises(ContractError) as refused:
            opened(name).submit(function, given)
        assert (refused.value.code, refused.value.field) == (code, field)
    for function, given in (
        ("GetAnchor", {"manifestCid": anchoring()["manifestCid"]}),
        ("Nothing", {}),
        ("Audit", {"x": 1}),
    ):
        with pytest.raises(ContractError):
            hospital.query(function, given)
    assert trail(hospital) == before


def test_lists_come_whole_or_in_parts(opened: Open) -> None:
    hospital = opened()
    whole = trail(hospital)
    assert [hospital.query("Audit", {"offset": n, "limit": 1}) for n in range(len(whole))] == [[row] for row in whole]


def test_its_authorities_are_its_organisations_cas(opened: Open) -> None:
    assert [set(opened(name).authorities()) for name in ORGANISATIONS] == [set(ORGANISATIONS.values())] * 3


def test_after_close_it_is_taken_up_again(opened: Open) -> None:
    hospital, args = opened(), anchoring()
    first = hospital.submit("Anchor", args)
    for _ in range(2):
        hospital.close()
    assert same(first, hospital.submit("Anchor", args))
    hospital.close()
    assert hospital.query("GetAnchor", {"manifestCid": args["manifestCid"]})["sequence"] == first.position


def test_away_is_told_and_what_was_tried_succeeds_once_when_it_is_back(kind: Kind, opened: Open) -> None:
    hospital, args = opened(patience_s=1.0), anchoring()
    hospital.query("GetPolicy", {})
    with kind.away():
        for ask in (partial(hospital.submit, "Anchor", args), partial(hospital.query, "GetPolicy", {})):
            with pytest.raises(LedgerAway):
                ask()
    wait_until(lambda: _answers(hospital), WITHIN_S, "it is back")
    patient = opened(patience_s=60.0)
    assert same(patient.submit("Anchor", args), patient.submit("Anchor", args))
    assert times_anchored(patient, args) == 1


def _answers(ledger: Ledger) -> bool:
    try:
        return ledger.query("GetPolicy", {}) is not None
    except LedgerAway:
        return False


class Approved:
    """A study that is anchored, and requests of research that are approved for it."""

    def __init__(self, opened: Open) -> None:
        self.hospital, self.custodian, self.research = (opened(name, 60.0) for name in ORGANISATIONS)
        self.node = {"organisation": "ResearchMSP", "aeTitle": f"R{secrets.token_hex(4)}"}
        self.anchor = anchoring()
        self.settle(self.hospital.submit("Anchor", self.anchor))
        registered = {"aeTitle": self.node["aeTitle"], "role": "research", "certDigests": []}
        self.settle(self.research.submit("RegisterNode", registered))
        self.settle(self.custodian.submit("ConfirmNode", {"node": self.node, "version": 1}))

    def settle(self, committed: Committed) -> Committed:
        """Wait until the peer of each has it."""
        for ledger in (self.hospital, self.custodian, self.research):
            if isinstance(ledger, FabricLedger):
                wait_until(partial(_has, ledger, committed.position), WITHIN_S, "every organisation's peer has it")
        return committed

    def request(self) -> bytes:
        asked = {
            "studies": [self.anchor["study"]],
            "sopClasses": ["1.2.840.10008.5.1.4.1.1.4"],
            "duo": ["DUO:0000042"],
            "days": 30,
            "node": self.node,
            "release": "identified",
            "future": False,
            "descriptionDigest": bytes(32),
        }
        id: bytes = self.settle(self.research.submit("RequestAccess", asked, secrets.token_bytes(16))).result["id"]
        until = int(time.time()) + 86_400
        for ledger in (self.hospital, self.custodian):
            self.settle(ledger.submit("Approve", {"id": id, "until": until, "release": "identified"}))
        return id

    def releasing(self, request: bytes) -> Mapping[str, Any]:
        """Arguments of LogRelease."""
        return {
            "request": request,
            "study": self.anchor["study"],
            "anchors": [self.anchor["manifestCid"]],
            "instancesRoot": secrets.token_bytes(32),
            "count": 1,
            "standingVersion": 0,
            "node": self.node,
        }


def _has(ledger: Ledger, sequence: int) -> bool:
    return bool(ledger.query("HistoryOf", {"key": event_key(sequence)}))


def test_200_releases_at_once_meet_nowhere(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    submit = Gateway.submit

    def counted(self: Gateway, transaction_id: str, *rest: Any) -> None:
        sent.append(transaction_id)
        submit(self, transaction_id, *rest)

    approved = Approved(opened)
    request = approved.request()
    monkeypatch.setattr(Gateway, "submit", counted)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        committed = list(
            pool.map(
                lambda args: approved.hospital.submit("LogRelease", args, secrets.token_bytes(16)),
                [approved.releasing(request) for _ in range(AT_ONCE)],
            )
        )
    assert len({each.position for each in committed}) == AT_ONCE
    assert len({each.result["release"] for each in committed}) == AT_ONCE
    if isinstance(approved.hospital, FabricLedger):
        assert len(sent) == AT_ONCE, "each was ordered once: none met another"


def test_a_release_that_races_a_revocation_never_commits_after_it(
    opened: Open, figure: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    approved = Approved(opened)
    with ThreadPoolExecutor(ROUNDS) as pool:
        requests = list(pool.map(lambda _: approved.request(), range(ROUNDS)))
    first = 0
    for number, id in enumerate(requests):
        releasing = partial(approved.hospital.submit, "LogRelease", approved.releasing(id), secrets.token_bytes(16))
        revoking = partial(approved.custodian.submit, "Revoke", {"id": id, "reason": "breach"})
        calls = [revoking, releasing] if number % 2 else [releasing, revoking]
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(_outcome, calls))
        assert outcomes[calls.index(revoking)] is None, "a revocation is never refused"
        first += outcomes[calls.index(releasing)] is None
        assert outcomes[calls.index(releasing)] in (None, "WRONG_STATE")
    order = committed_order(approved)
    for id in requests:
        revoked = order.index(("Revoke", id))
        assert ("LogRelease", id) not in order[revoked:]
    figure(f"release races revocation, {request.node.name}: {first} of {ROUNDS} releases were first")


def _outcome(call: Callable[[], Committed]) -> str | None:
    """The code of a refusal; None: committed."""
    try:
        call()
    except ContractError as error:
        return error.code
    return None


def committed_order(approved: Approved) -> list[tuple[str, bytes]]:
    """Releases and revocations in the order in which they were committed, with the request they are about."""
    rows = trail(approved.hospital)
    if isinstance(approved.hospital, FabricLedger):  # blocks decide, not the times of proposals
        rows = [event.record for event in islice(approved.hospital.events(), len(rows))]
    names = {"LogRelease": "request", "Revoke": "id"}
    return [(row["function"], row["args"][names[row["function"]]]) for row in rows if row["function"] in names]

"""Calls drawn at random over all functions, about what is on a channel; and every release one may try on it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from hypothesis import strategies as st

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract import FUNCTIONS
from tests.ledger.channel import (
    CUSTODIAN,
    DATASET,
    DAY,
    DIGEST,
    INSTANCE,
    LAB,
    LAB_NODE,
    MR_IMAGE,
    OTHER_DIGEST,
    OTHER_LAB,
    OTHER_STUDY,
    OWNER,
    ROLES,
    STUDY,
    Channel,
    cid,
    policy,
)
from tests.ledger.stories import UNKNOWN, own_node
from tests.ledger.stories_of_access import dataset_request, released
from tests.ledger.stories_of_custody import flagging, superseding

EVERYBODY = (OWNER, CUSTODIAN, LAB, OTHER_LAB)
RESEARCH = (LAB, OTHER_LAB)
STUDIES = (STUDY, OTHER_STUDY)
ON_DATASET = {"dataset": DATASET, "version": 1}
WITHOUT_LAB = policy(organisations={name: role for name, role in ROLES.items() if name != LAB})
POLICIES = (policy(), policy(lease_s=30, identified_needs=["custodian"]), policy(erase_grace_s=0), WITHOUT_LAB)


T = TypeVar("T")


class Draw(Protocol):
    """Where chance comes from."""

    def one_of(self, pool: Sequence[T]) -> T: ...

    def number(self, least: int, most: int) -> int: ...


@dataclass(frozen=True)
class Drawn:
    """Hypothesis' chance, which shrinks what fails."""

    data: st.DataObject

    def one_of(self, pool: Sequence[T]) -> T:
        return self.data.draw(st.sampled_from(pool))

    def number(self, least: int, most: int) -> int:
        return self.data.draw(st.integers(least, most))


@dataclass(frozen=True)
class Dice:
    """Chance of a seed."""

    random: random.Random

    def one_of(self, pool: Sequence[T]) -> T:
        return self.random.choice(pool)

    def number(self, least: int, most: int) -> int:
        return self.random.randint(least, most)


class DrawnCall(NamedTuple):
    """A call, and who makes it."""

    organisation: str
    function: str
    args: dict[str, Any]
    nonce: bytes


def crowded(channel: Channel) -> Channel:
    """Requests in every state, on studies and on a dataset, of a standing and a revoked node; something of all else."""
    first, _ = (channel.anchor(study=study) for study in STUDIES)
    gone = channel.node(LAB, "GONE")
    channel.approve(dataset_request(channel))
    states = ("denied", "half, denied", "revoked", "half, revoked", "expired", "half", "approved")
    requests = {name: channel.request() for name in states}
    for name in ("half", "half, denied", "half, revoked"):
        channel.approve(requests[name], by=(CUSTODIAN,))
    for name in ("revoked", "approved"):
        channel.approve(requests[name])
    channel.approve(requests["expired"], seconds=1)
    for name in ("denied", "half, denied"):
        channel.call(OWNER, "Deny", id=requests[name], reason="other")
    for name in ("revoked", "half, revoked"):
        channel.call(CUSTODIAN, "Revoke", id=requests[name], reason="other")
    channel.approve(channel.request(node=gone))
    channel.call(CUSTODIAN, "RevokeNode", node=gone)
    release = released(channel, requests["approved"], first)
    channel.call(LAB, "RegisterTrainingRun", codeDigest=DIGEST, releases=[release])
    channel.wait(1)
    later = channel.anchor()  # after every approval
    channel.call(OWNER, "Supersede", **superseding(first, later))
    channel.call(OWNER, "FlagTampered", **flagging(first))
    channel.call(OWNER, "Withdraw", study=STUDY, reason="113001")
    channel.call(OWNER, "ProposePolicy", policy=POLICIES[1])
    return channel


def approve_every_request(channel: Channel) -> None:
    """Both parties try to approve all there are, whatever became of them."""
    for _, record in channel.host.scan("request/"):
        for party in (OWNER, CUSTODIAN):
            with suppress(ContractError):
                channel.approve(record["id"], seconds=DAY, by=(party,))


def call_one(
    draw: Draw, channel: Channel, organisations: Sequence[str], without: Sequence[str] = ()
) -> tuple[str, bool]:
    """Submit what `draw_call` draws; the function's name, and whether it was accepted."""
    organisation, function, args, nonce = draw_call(draw, channel, organisations, without)
    try:
        channel.host.submit(organisation, function, args, nonce)
    except ContractError:
        return function, False
    return function, True


def draw_call(draw: Draw, channel: Channel, organisations: Sequence[str], without: Sequence[str] = ()) -> DrawnCall:
    """A well-formed call of any function but `without`.

    Half of the calls, at least, are of functions that some of these organisations may call.
    """
    functions = [name for name in FUNCTIONS if name not in without]
    theirs = [name for name in functions if {ROLES[one] for one in organisations} & {*FUNCTIONS[name].roles}]
    function = draw.one_of(theirs if draw.number(0, 1) else functions)
    entitled = [name for name in organisations if ROLES[name] in FUNCTIONS[function].roles]
    organisation = draw.one_of([*entitled, *entitled, *organisations])
    nonce = bytes([draw.number(0, 2)]) * 16
    return DrawnCall(organisation, function, draw_arguments(draw, channel, function), nonce)


def releases(channel: Channel) -> Iterator[dict[str, Any]]:
    """Every LogRelease that one may try now: each request for each anchor, study and node."""
    manifests = [row["manifestCid"] for row in channel.ask("Anchors")]
    nodes = [row["node"] for row in channel.ask("Nodes")]
    for _, request in channel.host.scan("request/"):
        for study in STUDIES:
            over = {"study": study, "standingVersion": channel.ask("StandingOf", study=study)["version"]}
            if "dataset" in request:
                over["proof"] = channel.proof(study, *STUDIES)
            for manifest in manifests:
                yield from (channel.release(request["id"], manifest, node=node, **over) for node in nodes)


def permitted(channel: Channel, release: Mapping[str, Any]) -> bool:
    """Whether owner or custodian could log this release now."""
    for party in (OWNER, CUSTODIAN):
        try:
            channel.host.judge(party, "LogRelease", release, b"\xff" * 16)
        except ContractError:
            continue
        return True
    return False


def draw_arguments(draw: Draw, channel: Channel, function: str) -> dict[str, Any]:
    """Arguments of the right form, about what is on the channel."""
    tried = list(releases(channel)) if function == "LogRelease" else []
    if tried and draw.number(0, 1):
        return draw.one_of(tried)
    pools = _pools(channel)
    if function == "RequestAccess" and draw.number(0, 1):
        on = draw.one_of([*({"studies": studies} for studies in pools["studies"]), ON_DATASET])
        terms = {name: value for name, value in channel.access().items() if name != "studies"}
        return {**terms, **on, "future": bool(draw.number(0, 1))}
    args = {}
    for name, argument in FUNCTIONS[function].arguments.items():
        if argument.required or not draw.number(0, 3):
            pool = pools.get(f"{function}.{name}") or pools.get(name) or (DIGEST, OTHER_DIGEST)
            args[name] = draw.one_of(pool)
    return args


def _pools(channel: Channel) -> dict[str, Sequence[Any]]:
    """Values of arguments by name; where functions differ, by FUNCTION.name. What is not here is a digest."""

    def ids(*kinds: str) -> list[bytes]:
        found = [bytes.fromhex(key.rpartition("/")[2]) for kind in kinds for key, _ in channel.host.scan(f"{kind}/")]
        return found or [UNKNOWN]

    nodes = (LAB_NODE, *(own_node(name) for name in EVERYBODY))
    manifests = [*(record["manifestCid"] for _, record in channel.host.scan("anchor/")), cid("m"), cid("n")]
    released_ids, requests = ids("release"), ids("request")
    return {
        "policy": POLICIES,
        "id": requests,
        "ConfirmPolicy.id": ids("policyProposal"),
        "ConfirmSupersede.id": ids("supersede"),
        "Cancel.id": ids("policyProposal", "supersede"),
        "Reinstate.id": ids("withdrawal"),
        "RegisterDataset.id": (DATASET,),
        "WithdrawDataset.id": (DATASET,),
        **dict.fromkeys(("manifestCid", "oldManifest", "newManifest"), manifests),
        "anchors": [[manifest] for manifest in manifests],
        "study": STUDIES,
        "studies": ([STUDY], [OTHER_STUDY], [*STUDIES]),
        "dataset": (DATASET,),
        "version": (1, 2),
        "proof": [Channel.proof(study, *STUDIES) for study in STUDIES],
        "instance": (INSTANCE, DIGEST),
        "instances": ([INSTANCE],),
        **dict.fromkeys(("n", "sent", "withheld", "seq", "standingVersion"), (0, 1)),
        "count": (1, 2, 3),
        "kind": ("original",),
        "profile": ("113100",),
        "reason": ("other",),
        "Supersede.reason": ("quality",),
        "Withdraw.reason": ("113001",),
        "LogDenials.reason": ("no approval",),
        "what": ([],),
        **dict.fromkeys(("node", "reportingNode", "peer"), nodes),
        "unregistered": (True,),
        "aeTitle": ("LAB1", "NODE"),
        "role": ("clinical", "research"),
        "certDigests": ([], [DIGEST]),
        "sopClasses": ([MR_IMAGE],),
        "duo": (["DUO:0000042"],),
        "days": (5, 30),
        "future": (False, True),
        "release": ("identified",),
        **dict.fromkeys(("LogOutcome.release", "LogRetrieval.release", "ReportTamper.release"), released_ids),
        "releases": [[release] for release in released_ids],
        "renews": released_ids,
        "until": [channel.now + days * DAY for days in (1, 5)],
        "request": requests,
        "outcome": ("complete", "failed"),
        "run": ids("trainingRun"),
        "serial": ("2a",),
    }

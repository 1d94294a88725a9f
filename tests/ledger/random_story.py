"""A long story of random calls and queries on a channel, with time moving, that reaches every refusal there is."""

from collections.abc import Callable, Iterator
from typing import Any

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract import FUNCTIONS, QUERIES
from tests.ledger.channel import (
    CUSTODIAN,
    DAY,
    DIGEST,
    LAB,
    LAB_NODE,
    OTHER_LAB,
    OTHER_NODE,
    OWNER,
    ROLES,
    STUDY,
    Channel,
    Memory,
    cid,
)
from tests.ledger.random_calls import (
    EVERYBODY,
    STUDIES,
    WITHOUT_LAB,
    Draw,
    DrawnCall,
    crowded,
    draw_arguments,
    draw_call,
    permitted,
    releases,
)
from tests.ledger.stories import UNKNOWN, own_node

_WAITS = (1, 60, DAY, 8 * DAY)
_MALFORMED = (None, True, -1, 1 << 60, "", "no such", b"", b"\x01", [], [DIGEST, DIGEST], {}, {"organisation": OWNER})
_NONCE = bytes(16)


class RandomStory:
    """Tells it step by step; ``channel`` has no policy yet, its host a `model` to look into."""

    def __init__(self, draw: Draw, channel: Channel) -> None:
        self._draw, self._channel = draw, channel
        self._elsewhere = crowded(Channel(Memory(channel.policy), channel.policy).init())
        self._taken = [DrawnCall(OWNER, "InitPolicy", {"policy": channel.policy}, _NONCE)]
        self._steps: tuple[Callable[[], DrawnCall], ...] = (
            *[lambda: draw_call(draw, channel, EVERYBODY)] * 6,
            *[self._sensible] * 4,
            *[self._again] * 3,
            lambda: self._spoiled(self._again()),
            *[lambda: self._spoiled(draw_call(draw, channel, EVERYBODY))] * 2,
        )

    def tell(self, steps: int) -> None:
        """Every function before there is a policy, a crowded channel, so many calls, every function by a stranger."""
        self._every_function(lambda function: self._entitled(function))
        crowded(self._channel.init())
        self._all(self._rare())
        for _ in range(steps):
            if not self._draw.number(0, 11):
                self._channel.wait(self._draw.one_of(_WAITS))
            self._try(self._draw.one_of(self._steps)())
            if not self._draw.number(0, 3):
                self._ask()
        self._all(self._strangers())
        self._every_function(lambda _: LAB)

    def _every_function(self, caller: Callable[[str], str]) -> None:
        for function in FUNCTIONS:
            if function != "InitPolicy":
                args = draw_arguments(self._draw, self._elsewhere, function)
                self._try(DrawnCall(caller(function), function, args, _NONCE))

    def _all(self, calls: Iterator[tuple[str, str, dict[str, Any]]]) -> None:
        for organisation, function, args in calls:
            self._try(DrawnCall(organisation, function, args, b"\xff" * 16))

    def _try(self, call: DrawnCall) -> None:
        try:
            self._channel.host.submit(*call)
        except ContractError:
            return
        self._taken.append(call)

    def _rare(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """What chance alone takes long to find."""
        channel = self._channel
        asked = channel.access(studies=[b"never heard of a"])
        request = channel.host.judge(LAB, "RequestAccess", asked, b"\xff" * 16).result["id"]
        yield LAB, "RequestAccess", asked
        yield OWNER, "Approve", {"id": request, "until": channel.now, "release": "identified"}
        denials = {"reportingNode": own_node(OWNER), "unregistered": True, "reason": "no approval", "count": 1}
        yield from ((OWNER, "LogDenials", {**denials, "seq": seq}) for seq in (1 << 20, 1))
        yield CUSTODIAN, "ConfirmPolicy", {"id": UNKNOWN}
        yield LAB, "RegisterTrainingRun", {"codeDigest": DIGEST, "releases": [UNKNOWN]}
        yield LAB, "RegisterModel", {"digest": DIGEST, "run": UNKNOWN, "metricsDigest": DIGEST}

    def _strangers(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """A research centre that is out of the policy."""
        channel = self._channel
        proposal = channel.host.judge(OWNER, "ProposePolicy", {"policy": WITHOUT_LAB}, b"\xff" * 16).result["id"]
        yield OWNER, "ProposePolicy", {"policy": WITHOUT_LAB}
        yield CUSTODIAN, "ConfirmPolicy", {"id": proposal}

    def _entitled(self, function: str) -> str:
        return next(name for name in EVERYBODY if ROLES[name] in FUNCTIONS[function].roles)

    def _again(self) -> DrawnCall:
        return self._draw.one_of(self._taken)

    def _sensible(self) -> DrawnCall:
        """A call that most likely is accepted."""
        draw, host, party = self._draw, self._channel.host, self._draw.one_of((OWNER, CUSTODIAN))
        number = draw.number(0, 1 << 30)
        manifest = {"manifestCid": cid(f"s{number}"), "root": DIGEST, "count": 1, "kind": "original"}
        denials = {"reportingNode": own_node(party), "unregistered": True, "reason": "no approval", "count": 1}
        seen = len([*host.scan("denials/")])
        found = [
            (OWNER, "Anchor", {"study": draw.one_of(STUDIES), **manifest}),
            (party, "LogDenials", {**denials, "seq": seen}),
            (
                draw.one_of((LAB, OTHER_LAB)),
                "RequestAccess",
                self._channel.access(descriptionDigest=number.to_bytes(32)),
            ),
        ]
        for _, flag in host.scan(f"flag/{STUDY.hex()}/"):
            named = {name: flag[name] for name in ("study", "instance", "n", "manifestCid")}
            found += [
                (party, "Resolve", named),
                (party, "FlagTampered", {**named, "n": flag["n"] + 1, "observed": None, "what": []}),
            ]
        for key, _ in host.scan("erasure/"):
            study = {"study": bytes.fromhex(key.rpartition("/")[2])}
            found += [(party, "ConfirmErase", study), (party, "ErasureDone", study), (party, "CancelErase", study)]
        for key, _ in host.scan("release/"):
            release = {"release": bytes.fromhex(key.rpartition("/")[2])}
            found += [
                (OWNER, "LogOutcome", {**release, "sent": 1, "withheld": 0, "bitmapDigest": DIGEST}),
                (LAB, "LogRetrieval", {**release, "outcome": draw.one_of(("complete", "failed"))}),
                (LAB, "ReportTamper", {**release, "instance": DIGEST, "observed": draw.one_of((DIGEST, UNKNOWN))}),
            ]
        approved = [record["id"] for _, record in host.scan("request/") if record["state"] == "approved"]
        for release in releases(Channel(host.model, self._channel.policy)):
            if release["request"] in approved and permitted(self._channel, release):
                found += [(party, "LogRelease", release)] * 3
        return DrawnCall(*draw.one_of(found), nonce=number.to_bytes(16))

    def _spoiled(self, call: DrawnCall) -> DrawnCall:
        """With an argument missing, unknown, malformed, of another value, or an id that nothing has."""
        args: dict[str, Any] = dict(call.args)
        ids = [name for name, value in args.items() if type(value) in (bytes, dict)]
        name = self._draw.one_of([*args, *ids, *ids, "unknown"])
        value = args.get(name)
        match self._draw.number(0, 4):
            case 0:
                args.pop(name, None)
            case 1:
                args[name] = self._draw.one_of(_MALFORMED)
            case _ if type(value) is bytes:
                args[name] = UNKNOWN[: len(value)]
            case _ if type(value) is int:
                args[name] = self._draw.one_of((value + 1, value - 1, self._channel.now))
            case _ if type(value) is dict:
                args[name] = self._draw.one_of((OTHER_NODE, {"organisation": LAB, "aeTitle": "NOWHERE"}))
            case _ if type(value) is list and value and type(value[0]) is bytes:
                args[name] = [UNKNOWN[: len(value[0])]]
            case _:
                args[name] = self._draw.one_of(_MALFORMED)
        return call._replace(args=args)

    def _ask(self) -> None:
        draw, host, now = self._draw, self._channel.host, self._channel.now
        pools: dict[str, Any] = {
            "manifestCid": [cid("m"), *(record["manifestCid"] for _, record in host.scan("anchor/"))],
            "study": STUDIES,
            "node": (LAB_NODE, OTHER_NODE),
            "proof": [self._channel.proof(study, *STUDIES) for study in STUDIES],
            "id": [UNKNOWN, *(record["id"] for _, record in host.scan("request/"))],
            "state": ("open", "approved", "expired", "denied", "revoked", "no such"),
            "organisation": (OWNER, CUSTODIAN, LAB),
            "key": ("policy", "datasetApprovals", "node/none"),
            **dict.fromkeys(("from", "until"), (now, now - DAY)),
            "offset": (1, 2, 49, 1000),
            "limit": (1, 2, 50, 1000),
            "Anchors.after": [cid("m"), *(record["manifestCid"] for _, record in host.scan("anchor/"))],
            "AnchorsOfStudy.after": (0, 2, 1000),
            "RequestsByState.after": [UNKNOWN, *(record["id"] for _, record in host.scan("request/"))],
            "Audit.after": [record["sequence"] for _, record in host.scan("event/")],
        }
        query = draw.one_of([*QUERIES])
        args = {
            name: draw.one_of(pools.get(f"{query}.{name}") or pools[name])
            for name, argument in QUERIES[query].arguments.items()
            if argument.required or not draw.number(0, 2)
        }
        try:
            host.query(query, args)
        except ContractError:
            return

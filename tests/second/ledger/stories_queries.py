"""The queries: what is told of an eventful ledger, and page by page."""

from typing import Any

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET,
    DATASET_REQUEST,
    ELSEWHERE,
    GRACE,
    INSTANCE,
    INSTANCE2,
    LAB,
    M1,
    M2,
    M3,
    NEW,
    NOWHERE,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    POLICY,
    REQUEST,
    STUDY,
    STUDY2,
    STUDY3,
    UNKNOWN,
    UNTIL,
    Args,
    anchor,
    approve,
    digest,
    flag,
    id_of,
    manifest,
    node,
    proof,
    register_dataset,
    register_node,
    release,
    request,
    resolve,
    supersede,
    token,
    withdraw,
)
from tests.second.ledger.openings import BOTH, PROPOSAL, REVOCATION, SUPERSEDE, WITHDRAWAL, after
from tests.second.ledger.questions import NAMED_BY
from tests.second.ledger.story import Story

LAB_NODE = {"node": node(LAB)}


def stories() -> list[Story]:
    return [
        _empty(),
        _many(),
        _anchors(),
        _standing(),
        _requests(),
        _access(),
        _access_by_dataset(),
        _audit(),
        _history(),
        _nodes(),
        _datasets(),
        _pending(),
    ]


def _pages(story: Story, query: str, args: Args | None = None) -> list[Any]:
    """All of a list, asked for in pages of two and at and behind its ends."""
    args = args or {}
    whole = story.asks(query, args)
    assert isinstance(whole, list)
    for offset in range(0, len(whole) + 1, 2):
        assert story.asks(query, args | {"offset": offset, "limit": 2}) == whole[offset : offset + 2]
    assert story.asks(query, args | {"offset": 1}) == whole[1:]
    assert story.asks(query, args | {"limit": 1}) == whole[:1]
    assert story.asks(query, args | {"limit": len(whole) + 1}) == whole
    assert story.asks(query, args | {"offset": len(whole) + 5}) == []
    if query in NAMED_BY:
        first, last = (args | {"after": whole[at][NAMED_BY[query]]} for at in (0, -1))
        assert story.asks(query, first | {"limit": 2}) == whole[1:3]
        assert story.asks(query, first | {"offset": 1, "limit": 1}) == whole[2:3]
        assert story.asks(query, last) == []
    return whole


def _empty() -> Story:
    story = after("policy", "of what nobody has written")
    assert story.asks("AnchorsOfStudy", {"study": STUDY}) == []
    assert story.asks("Anchors") == []
    assert story.asks("GetAnchor", {"manifestCid": M1}) == ["NOT_FOUND", "manifestCid"]
    assert story.asks("GetRequest", {"id": UNKNOWN}) == ["NOT_FOUND", "id"]
    nothing = {"version": 0, "superseded": [], "flagged": [], "resolved": [], "withdrawn": [], "erased": "none"}
    assert story.asks("StandingOf", {"study": STUDY}) == nothing
    for query, args in (
        ("ApprovedStudies", LAB_NODE),
        ("RequestsByState", {"state": "open"}),
        ("HistoryOf", {"key": "anchor"}),
        ("Audit", {"study": STUDY}),
        ("Nodes", {}),
        ("Datasets", {}),
        ("Pending", {}),
    ):
        assert story.asks(query, args) == []
    denied = {"permitted": False, "reason": "no approval", "request": None, "until": None}
    assert story.asks("CheckAccess", {"study": STUDY, "node": node(LAB)}) == denied
    return story


def _many() -> Story:
    story = after("policy", "no list is longer than fifty rows")
    for number in range(51):
        story.does(OWNER, "Anchor", anchor(manifest(f"of fifty-one {number}")))
    for query, args, total in (("Anchors", {}, 51), ("AnchorsOfStudy", {"study": STUDY}, 51), ("Audit", {}, 52)):
        whole = story.asks(query, args)
        assert len(whole) == 50
        rest = story.asks(query, args | {"after": whole[-1][NAMED_BY[query]]})
        assert story.asks(query, args | {"offset": 50}) == rest
        assert len(rest) == total - 50
    return story


def _anchors() -> Story:
    story = after("policy", "anchors: one, a study's in the order of commits, all by manifestCid")
    cids = [manifest(f"of many {number}") for number in range(5)]
    for number, cid in enumerate(cids):
        study = STUDY2 if number == 3 else STUDY
        derived = {"kind": "derived", "from": digest("parent"), "profile": "113105"} if number == 4 else {}
        story.does(OWNER, "Anchor", anchor(cid, study, count=number + 1, **derived))
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": cids[1]})
    shown = _pages(story, "AnchorsOfStudy", {"study": STUDY})
    assert [one["count"] for one in shown] == [1, 2, 3, 5]
    assert [one["stored"] for one in shown] == [False, True, False, False]
    every = _pages(story, "Anchors")
    assert [one["manifestCid"] for one in every] == sorted(cids)
    behind = [one for one in every if one["manifestCid"] > NOWHERE]
    assert story.asks("Anchors", {"after": NOWHERE}) == behind
    assert "from" not in story.asks("GetAnchor", {"manifestCid": cids[0]})
    assert story.asks("GetAnchor", {"manifestCid": cids[4]})["profile"] == "113105"
    return story


def _standing() -> Story:
    story = after("anchored", "the standing tells what stands, and at which number")
    args = {"study": STUDY}
    story.does(OWNER, "Withdraw", withdraw())
    story.does(OWNER, "Withdraw", withdraw(instances=[INSTANCE2, INSTANCE]), nonce=1)
    for instance, n in ((INSTANCE2, 0), (INSTANCE, 0), (INSTANCE, 1)):
        story.does(CUSTODIAN, "FlagTampered", flag(n, instance=instance))
    for other in (supersede(), supersede(instance=INSTANCE2, new=M3)):
        story.does(OWNER, "Supersede", other)
        story.does(CUSTODIAN, "ConfirmSupersede", {"id": id_of("Supersede", other, OWNER)})
    before = story.asks("StandingOf", args)
    assert (before["version"], len(before["flagged"]), len(before["withdrawn"])) == (7, 3, 2)
    for by in BOTH:
        story.does(by, "Resolve", resolve(1))
        story.does(by, "Reinstate", {"id": WITHDRAWAL})
    now = story.asks("StandingOf", args)
    assert now["version"] == 9
    assert {(one["instance"], one["n"]) for one in now["flagged"]} == {(INSTANCE, 0), (INSTANCE2, 0)}
    assert now["resolved"] == [{"instance": INSTANCE, "manifestCid": M1, "n": 1}]
    assert [one["instances"] for one in now["withdrawn"]] == [[INSTANCE2, INSTANCE]]
    assert {one["newManifest"] for one in now["superseded"]} == {M2, M3}
    story.does(CUSTODIAN, "RequestErase", args)
    assert story.asks("StandingOf", args)["erased"] == "requested"
    story.wait(GRACE).does(OWNER, "ConfirmErase", args)
    assert story.asks("StandingOf", args)["erased"] == "erased"
    return story


def _requests() -> Story:
    story = after("nodes confirmed", "requests by their state, and all of one")
    numbers = []
    for nonce in range(1, 7):
        story.does(LAB, "RequestAccess", request(), nonce=nonce)
        numbers.append(id_of("RequestAccess", request(), LAB, nonce))
    early = story.now + 100
    for by in BOTH:
        story.does(by, "Approve", approve(numbers[0]))
        story.does(by, "Approve", approve(numbers[1], until=early))
    story.does(OWNER, "Approve", approve(numbers[2]))
    story.does(OWNER, "Deny", {"id": numbers[3], "reason": "scope"})
    story.does(LAB, "Revoke", {"id": numbers[4], "reason": "completed"})
    last = story.now
    for at, expired in ((last, 0), (early - 1, 0), (early, 1)):
        found = {
            state: [one["id"] for one in story.asks("RequestsByState", {"state": state}, at=at)]
            for state in ("open", "approved", "expired", "denied", "revoked")
        }
        assert found["open"] == sorted([numbers[2], numbers[5]])
        assert found["approved"] == sorted(numbers[: 2 - expired])
        assert found["expired"] == numbers[1 : 1 + expired]
        assert (found["denied"], found["revoked"]) == ([numbers[3]], [numbers[4]])
    half = story.asks("GetRequest", {"id": numbers[2]})
    assert (half["state"], half["until"], half["coveredUntil"]) == ("open", None, None)
    assert half["needs"] == ["owner", "custodian"]
    assert half["approvals"].keys() == {"owner"}
    assert half["approvals"]["owner"].keys() == {"until", "by", "time"}
    _pages(story, "RequestsByState", {"state": "open"})
    assert [one["id"] for one in _pages(story, "RequestsByState")] == sorted(numbers)
    behind = [number for number in (numbers[2], numbers[5]) if number > numbers[0]]
    assert [one["id"] for one in story.asks("RequestsByState", {"state": "open", "after": numbers[0]})] == sorted(
        behind
    )
    return story


def _access() -> Story:
    story = after("asked", "access: what is advised, and what is approved for a node")
    asked = {"study": STUDY} | LAB_NODE

    def advised(permitted: bool, reason: str | None, number: bytes | None, until: int | None) -> None:
        expected = {"permitted": permitted, "reason": reason, "request": number, "until": until}
        assert story.asks("CheckAccess", asked) == expected

    advised(False, "no approval", None, None)
    for by in BOTH:
        story.does(by, "Approve", approve())
    advised(True, None, REQUEST, UNTIL)
    assert story.asks("CheckAccess", asked | {"study": STUDY2})["permitted"] is False
    assert story.asks("CheckAccess", asked | {"node": node(OTHER_LAB)})["permitted"] is False
    # A second approval, that runs longer, for two studies.
    story.does(LAB, "RequestAccess", request(studies=[STUDY, STUDY2], future=True))
    longer = id_of("RequestAccess", request(studies=[STUDY, STUDY2], future=True), LAB)
    for by in BOTH:
        story.does(by, "Approve", approve(longer, UNTIL + 5))
    given = _pages(story, "ApprovedStudies", LAB_NODE)
    assert [one["request"] for one in given] == sorted([REQUEST, longer])
    assert {one["request"]: one["studies"] for one in given} == {REQUEST: [STUDY], longer: [STUDY, STUDY2]}
    assert {one["dataset"] for one in given} == {None}
    advised(True, None, longer, UNTIL + 5)
    # A third that runs as long: of equals the least id.
    story.does(LAB, "RequestAccess", request(studies=[STUDY]), nonce=3)
    equal = id_of("RequestAccess", request(studies=[STUDY]), LAB, 3)
    for by in BOTH:
        story.does(by, "Approve", approve(equal, UNTIL + 5))
    advised(True, None, min(longer, equal), UNTIL + 5)
    story.does(LAB, "Revoke", {"id": equal, "reason": "completed"})
    # A study in erasure is in no answer; the rest of the request is.
    story.does(OWNER, "RequestErase", {"study": STUDY})
    advised(False, "withdrawn", None, None)
    left = {one["request"]: one["studies"] for one in story.asks("ApprovedStudies", LAB_NODE)}
    assert left == {REQUEST: [], longer: [STUDY2]}
    assert story.asks("CheckAccess", asked | {"study": STUDY2})["permitted"] is True
    story.does(CUSTODIAN, "CancelErase", {"study": STUDY})
    story.does(OWNER, "Revoke", REVOCATION)
    advised(True, None, longer, UNTIL + 5)
    story.does(LAB, "Revoke", {"id": longer, "reason": "completed"})
    advised(False, "no approval", None, None)
    return story


def _access_by_dataset() -> Story:
    story = after("dataset approved", "access by a dataset counts with a proof that leads to its root")
    asked = {"study": STUDY} | LAB_NODE
    assert story.asks("CheckAccess", asked)["permitted"] is False
    assert story.asks("CheckAccess", asked | {"proof": proof(STUDY2)})["permitted"] is False
    assert story.asks("CheckAccess", asked | {"proof": proof(STUDY)})["request"] == DATASET_REQUEST
    (given,) = story.asks("ApprovedStudies", LAB_NODE)
    assert (given["studies"], given["dataset"]) == (None, {"id": DATASET, "version": 1})
    story.does(OWNER, "WithdrawDataset", {"id": DATASET, "version": 1})
    assert story.asks("CheckAccess", asked | {"proof": proof(STUDY)})["permitted"] is False
    assert story.asks("ApprovedStudies", LAB_NODE) == []
    return story


def _audit() -> Story:
    """Each kind of event once, with the studies it is about."""
    story = after("anchored", "the trail: by study, by organisation, by time, in the order of commits")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})
    story.does(OWNER, "Supersede", supersede())
    story.does(OWNER, "Cancel", {"id": SUPERSEDE})
    story.does(OWNER, "Supersede", supersede(), nonce=1)
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": id_of("Supersede", supersede(), OWNER, 1)})
    story.does(OWNER, "Withdraw", withdraw())
    story.does(OWNER, "Reinstate", {"id": WITHDRAWAL})
    story.does(LAB, "RegisterNode", register_node(LAB))
    story.does(CUSTODIAN, "ConfirmNode", LAB_NODE | {"version": 1})
    two = request(studies=[STUDY2, STUDY])
    number = id_of("RequestAccess", two, LAB)
    story.does(LAB, "RequestAccess", two)
    for by in BOTH:
        story.does(by, "Approve", approve(number))
    given = release(number, standingVersion=2)
    story.does(OWNER, "LogRelease", given)
    story.does(LAB, "LogRetrieval", {"release": id_of("LogRelease", given, OWNER), "outcome": "complete"})
    story.does(OWNER, "Revoke", {"id": number, "reason": "other"})
    story.does(OWNER, "ProposePolicy", {"policy": POLICY})
    story.does(OWNER, "Cancel", {"id": id_of("ProposePolicy", {"policy": POLICY}, OWNER)})
    every = _pages(story, "Audit")
    assert [one["sequence"] for one in every] == list(range(1, len(every) + 1))
    of_study = [one["function"] for one in _pages(story, "Audit", {"study": STUDY2})]
    assert of_study == ["Anchor", "RequestAccess", "Approve", "Approve", "Revoke"]
    assert {one["by"]["organisation"] for one in story.asks("Audit", {"organisation": LAB})} == {LAB}
    assert story.asks("Audit", {"organisation": "NobodyMSP"}) == []
    middle = every[5]["time"]
    since, till = story.asks("Audit", {"from": middle}), story.asks("Audit", {"until": middle})
    assert (till, since) == (every[:5], every[5:])
    assert story.asks("Audit", {"from": middle, "until": middle + 1}) == [every[5]]
    assert story.asks("Audit", {"from": middle, "until": middle}) == []
    own = story.asks("Audit", {"study": STUDY, "organisation": CUSTODIAN, "from": middle})
    assert {one["by"]["role"] for one in own} == {"custodian"}
    return story


def _history() -> Story:
    story = after("approved", "the history of a key: every value with its sequence and time")
    key = f"standing/{STUDY.hex()}"
    story.does(OWNER, "FlagTampered", flag())
    story.wait(100).does(OWNER, "FlagTampered", flag(1))
    assert [one["value"] for one in _pages(story, "HistoryOf", {"key": key})] == [1, 2]
    shown = story.asks("HistoryOf", {"key": f"request/{REQUEST.hex()}"})
    assert [one["value"]["state"] for one in shown] == ["open", "approved"]
    assert [(one["sequence"], one["time"]) for one in story.asks("HistoryOf", {"key": key})][1][1] == story.now
    assert story.asks("HistoryOf", {"key": "request/"}) == []
    assert len(story.asks("HistoryOf", {"key": "policy"})) == 1
    return story


def _nodes() -> Story:
    story = after("nodes confirmed", "nodes: confirmed counts before proposed")
    story.does(LAB, "RegisterNode", register_node(LAB, certDigests=[]))
    story.does(LAB, "RegisterNode", register_node(LAB, aeTitle="Z"))
    story.does(LAB, "RegisterNode", register_node(LAB, aeTitle="AA"))
    story.does(CUSTODIAN, "RevokeNode", {"node": node(OTHER_LAB)})
    shown = _pages(story, "Nodes")
    assert [(one["node"]["aeTitle"], one["state"]) for one in shown] == [
        ("AA", "proposed"),
        ("LABBOX", "confirmed"),
        ("Z", "proposed"),
        ("OTHERBOX", "revoked"),
        ("ARCHIVE", "confirmed"),
    ]
    assert shown[1]["proposed"] == {"version": 2, "role": "research", "certDigests": []}
    assert (shown[3]["proposed"], shown[3]["confirmed"]) == (None, None)
    return story


def _datasets() -> Story:
    story = after("dataset", "datasets by id and version")
    other = sorted([DATASET, token("a dataset"), token("b dataset")])
    for number in other:
        if number != DATASET:
            story.does(CUSTODIAN, "RegisterDataset", register_dataset(id=number))
    for version in range(2, 12):
        story.does(OWNER, "RegisterDataset", register_dataset(version))
    story.does(OWNER, "WithdrawDataset", {"id": DATASET, "version": 10})
    shown = _pages(story, "Datasets")
    own = [(one["version"], one["state"]) for one in shown if one["id"] == DATASET]
    assert own == [(version, "withdrawn" if version == 10 else "registered") for version in range(1, 12)]
    assert [one["id"] for one in shown if one["version"] == 1] == other
    assert ON_DATASET["version"] == 1
    return story


def _pending() -> Story:
    story = after("proposed", "what waits for the other party")
    for cid in (M1, M2, M3):
        story.does(OWNER, "Anchor", anchor(cid))
    story.does(OWNER, "Anchor", anchor(NEW, STUDY2))
    story.does(CUSTODIAN, "ProposePolicy", {"policy": POLICY | {"max_days": 1}})
    for nonce in range(1, 4):
        story.does(OWNER, "Supersede", supersede(), nonce=nonce)
    for study in (STUDY, STUDY2, STUDY3):
        story.does(OWNER, "RequestErase", {"study": study})
    shown = _pages(story, "Pending")
    kinds = [one["kind"] for one in shown]
    assert kinds == ["policy"] * 2 + ["supersession"] * 3 + ["erasure"] * 3
    assert [one["id"] for one in shown[:2]] == sorted(one["id"] for one in shown[:2])
    assert [one["study"] for one in shown[5:]] == sorted([STUDY, STUDY2, STUDY3])
    story.does(CUSTODIAN, "CancelErase", {"study": STUDY2})
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": id_of("Supersede", supersede(), OWNER, 1)})
    story.does(OWNER, "Cancel", {"id": id_of("Supersede", supersede(), OWNER, 2)})
    story.does(CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.wait(GRACE).does(CUSTODIAN, "ConfirmErase", {"study": STUDY3})
    left = [one["kind"] for one in story.asks("Pending")]
    assert "policy" not in left
    assert left.count("erasure") == 1
    return story

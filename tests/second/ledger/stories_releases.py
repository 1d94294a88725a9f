"""The decision: what is released, in which order it is refused, and how long a lease lasts."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET_REQUEST,
    ELSEWHERE,
    LAB,
    M1,
    M2,
    NEW,
    NOWHERE,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    RELEASE,
    REQUEST,
    STUDY,
    STUDY2,
    STUDY3,
    T0,
    UNKNOWN,
    UNTIL,
    anchor,
    approve,
    digest,
    flag,
    id_of,
    node,
    proof,
    release,
    request,
)
from tests.second.ledger.openings import after, approved, numbered, variant
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _lease(),
        _lease_ends_with_the_approval(),
        _leases_of_another_length(),
        _renewals(),
        _order_of_refusals(),
        _covered_by_order(),
        _covered_by_one_and_not_the_other(),
        _covered_by_one_dataset_approval_and_not_the_other(),
        _future(),
        _stored(),
        _several_studies(),
    ]


def _lease() -> Story:
    story = after("approved", "a release is a lease, and a repeat shows the lease it had")
    first = story.does(OWNER, "LogRelease", release(), nonce=1)
    assert first == {"release": id_of("LogRelease", release(), OWNER, 1), "leaseEnd": story.now + 60}
    story.wait(30)
    assert story.repeats(OWNER, "LogRelease", release(), nonce=1) == first
    # It is also recognised when nothing could be released any more.
    story.does(CUSTODIAN, "FlagTampered", flag())
    story.does(LAB, "RevokeNode", {"node": node(LAB)})
    assert story.repeats(OWNER, "LogRelease", release(), nonce=1) == first
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release(), nonce=2)
    return story


def _lease_ends_with_the_approval() -> Story:
    story = after("approved", "no lease outlives its approval")
    for left in (61, 60, 59, 1):
        given = story.does(OWNER, "LogRelease", release(count=left), at=UNTIL - left)
        assert given["leaseEnd"] == min(UNTIL, UNTIL - left + 60)
    return story


def _leases_of_another_length() -> Story:
    story = variant("the policy says how long a lease is", "approved", lease_s=1)
    assert story.does(OWNER, "LogRelease", release())["leaseEnd"] == story.now + 1
    return story


def _renewals() -> Story:
    story = after("released", "a renewal is a new decision, of the same organisation on the same thing")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.does(CUSTODIAN, "LogRelease", release())
    theirs = id_of("LogRelease", release(), CUSTODIAN)
    second = numbered(story, request(studies=[STUDY, STUDY2]))
    approved(story, second)
    other_study = release(second, study=STUDY2, anchors=[ELSEWHERE])
    story.does(OWNER, "LogRelease", other_study)
    story.does(OWNER, "LogRelease", release(second))
    for foreign in (theirs, id_of("LogRelease", other_study, OWNER), id_of("LogRelease", release(second), OWNER)):
        story.refused("INVALID renews", OWNER, "LogRelease", release(renews=foreign))
    story.refused("INVALID renews", CUSTODIAN, "LogRelease", release(renews=RELEASE))
    story.refused("NOT_FOUND renews", OWNER, "LogRelease", release(renews=UNKNOWN))
    story.refused("NOT_FOUND renews", OWNER, "LogRelease", release(renews=REQUEST))
    story.wait(3600)
    fewer = release(renews=RELEASE, anchors=[M2], count=1, instancesRoot=digest("fewer"))
    given = story.does(OWNER, "LogRelease", fewer)
    assert given["leaseEnd"] == story.now + 60
    story.does(OWNER, "LogRelease", release(renews=given["release"]))
    story.does(CUSTODIAN, "LogRelease", release(renews=theirs))
    return story


def _order_of_refusals() -> Story:
    """From a call in which everything is wrong, one thing after the other is put right."""
    story = variant("the first broken rule of a release is named", "dataset approved", require_stored=True)
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.does(OWNER, "Anchor", anchor(NEW))
    story.does(OWNER, "FlagTampered", flag())
    story.does(OWNER, "RequestErase", {"study": STUDY})
    node_of_lab = {"node": node(LAB)}
    wrong = release(UNKNOWN, study=STUDY3, node=node(OTHER_LAB), anchors=[NOWHERE], standingVersion=9, renews=UNKNOWN)
    story.refused("NOT_FOUND request", OWNER, "LogRelease", wrong)
    wrong |= {"request": DATASET_REQUEST}
    story.refused("EXPIRED until", OWNER, "LogRelease", wrong, at=UNTIL)
    story.refused("NOT_PERMITTED node", OWNER, "LogRelease", wrong, at=T0 + 1000)
    wrong |= node_of_lab
    story.refused("INVALID proof", OWNER, "LogRelease", wrong)
    wrong |= {"proof": proof(STUDY)}
    story.refused("NOT_PERMITTED study", OWNER, "LogRelease", wrong)
    wrong |= {"study": STUDY}
    story.refused("WRONG_STATE requested", OWNER, "LogRelease", wrong)
    story.does(OWNER, "CancelErase", {"study": STUDY})
    story.refused("WRONG_STATE standingVersion", OWNER, "LogRelease", wrong)
    wrong |= {"standingVersion": 3}
    for anchors, why in (
        ([NOWHERE, ELSEWHERE], "NOT_FOUND anchors"),
        ([ELSEWHERE, NOWHERE], "INVALID anchors"),
        ([NEW, ELSEWHERE], "WRONG_STATE anchors"),
        ([M1, NOWHERE], "WRONG_STATE stored"),
    ):
        story.refused(why, OWNER, "LogRelease", wrong | {"anchors": anchors})
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})
    wrong |= {"anchors": [M1]}
    story.refused("NOT_FOUND renews", OWNER, "LogRelease", wrong)
    del wrong["renews"]
    story.does(OWNER, "LogRelease", wrong)
    # And what comes before a node that does not stand, and a dataset that is withdrawn.
    story.does(OWNER, "WithdrawDataset", {"id": ON_DATASET["dataset"], "version": 1})
    story.refused("WRONG_STATE dataset", OWNER, "LogRelease", wrong | {"proof": {"index": 9, "path": []}})
    story.does(LAB, "RevokeNode", node_of_lab)
    story.refused("WRONG_STATE node", OWNER, "LogRelease", wrong | {"count": 2})
    story.does(OWNER, "Revoke", {"id": DATASET_REQUEST, "reason": "error"})
    story.refused("WRONG_STATE revoked", OWNER, "LogRelease", wrong | {"node": node(OTHER_LAB)})
    story.repeats(OWNER, "LogRelease", wrong)
    return story


def _covered_by_order() -> Story:
    story = after("half approved", "what is anchored before the last needed Approve is covered, in the same second too")
    now = story.now
    story.does(OWNER, "Anchor", anchor(NEW), at=now)
    story.does(OWNER, "Approve", approve(), at=now)
    story.does(OWNER, "Anchor", anchor(ELSEWHERE), at=now)
    story.does(OWNER, "LogRelease", release(anchors=[NEW, M1]), at=now)
    story.refused("WRONG_STATE anchors", OWNER, "LogRelease", release(anchors=[ELSEWHERE]), at=now)
    covered = story.asks("GetRequest", {"id": REQUEST})["coveredUntil"]
    numbers = [story.asks("GetAnchor", {"manifestCid": cid})["number"] for cid in (NEW, ELSEWHERE)]
    assert covered == {STUDY.hex(): 4}
    assert numbers == [3, 4]
    return story


def _covered_by_one_and_not_the_other() -> Story:
    story = after("approved", "each approval covers what was anchored before it, whichever study it is of")
    story.does(OWNER, "Anchor", anchor(NEW))
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    second = numbered(story, request(studies=[STUDY, STUDY2]))
    approved(story, second)
    story.refused("WRONG_STATE anchors", OWNER, "LogRelease", release(anchors=[NEW]))
    story.does(OWNER, "LogRelease", release(second, anchors=[NEW]))
    story.does(OWNER, "LogRelease", release(second, study=STUDY2, anchors=[ELSEWHERE]))
    numbers = [story.asks("GetAnchor", {"manifestCid": cid})["number"] for cid in (M1, M2, NEW, ELSEWHERE)]
    assert numbers == [0, 1, 3, 0]
    assert "datasetApprovals" not in story.ledger.state
    return story


def _covered_by_one_dataset_approval_and_not_the_other() -> Story:
    story = after("dataset approved", "an approval on a dataset covers what any study had, one of the future all")
    story.does(OWNER, "Anchor", anchor(NEW))
    future = numbered(story, request(on=ON_DATASET, future=True), nonce=1)
    later = numbered(story, request(on=ON_DATASET), nonce=2)
    approved(story, future)
    assert story.ledger.state["datasetApprovals"] == 1
    approved(story, later)
    assert story.ledger.state["datasetApprovals"] == 2
    for number, given in ((DATASET_REQUEST, False), (later, True), (future, True)):
        asked = release(number, anchors=[NEW], proof=proof(STUDY))
        if given:
            story.does(OWNER, "LogRelease", asked)
        else:
            story.refused("WRONG_STATE anchors", OWNER, "LogRelease", asked)
    return story


def _future() -> Story:
    story = after("nodes confirmed", "an approval of the future covers what is anchored later")
    number = numbered(story, request(future=True))
    approved(story, number)
    story.does(OWNER, "Anchor", anchor(NEW))
    story.does(OWNER, "LogRelease", release(number, anchors=[NEW, M1]))
    assert story.asks("GetRequest", {"id": number})["coveredUntil"] is None
    assert story.asks("ApprovedStudies", {"node": node(LAB)})[0]["coveredUntil"] is None
    return story


def _stored() -> Story:
    story = variant("where the policy wants it, every anchor of a release is stored", "approved", require_stored=True)
    story.refused("WRONG_STATE stored", OWNER, "LogRelease", release(anchors=[M1, M2]))
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})
    story.refused("WRONG_STATE stored", OWNER, "LogRelease", release(anchors=[M1, M2]))
    story.does(OWNER, "LogRelease", release())
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M2})
    story.does(OWNER, "LogRelease", release(anchors=[M1, M2]))
    assert [one["stored"] for one in story.asks("AnchorsOfStudy", {"study": STUDY})] == [True, True, False]
    return story


def _several_studies() -> Story:
    story = after("nodes confirmed", "a request names its studies, and each has its own standing")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    number = numbered(story, request(studies=[STUDY2, STUDY]))
    approved(story, number)
    story.does(OWNER, "FlagTampered", flag())
    story.does(OWNER, "LogRelease", release(number, study=STUDY2, anchors=[ELSEWHERE]))
    story.refused("WRONG_STATE standingVersion", OWNER, "LogRelease", release(number))
    story.does(OWNER, "LogRelease", release(number, standingVersion=1))
    story.refused("INVALID anchors", OWNER, "LogRelease", release(number, study=STUDY2))
    story.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(number, study=STUDY3))
    story.refused("INVALID proof", OWNER, "LogRelease", release(number, standingVersion=1, proof=proof(STUDY)))
    return story

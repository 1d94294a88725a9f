"""What research asks for and gets: requests, approvals and their times, releases, reports, lineage."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET_REQUEST,
    DAY,
    ELSEWHERE,
    LAB,
    M1,
    M2,
    NEW,
    NOWHERE,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    POLICY,
    RELEASE,
    REQUEST,
    RUN,
    STUDY,
    STUDY2,
    STUDY3,
    T0,
    UNKNOWN,
    UNTIL,
    Args,
    anchor,
    approve,
    denials,
    digest,
    flag,
    id_of,
    model,
    node,
    outcome,
    proof,
    register_dataset,
    register_node,
    release,
    request,
    training_run,
)
from tests.second.ledger.openings import BOTH, DENIAL, REVOCATION, TAMPERED, after, variant
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _requests_refused(),
        _request_again(),
        _release_forms(),
        _expiry_to_the_second(),
        _smallest_until(),
        _until_of_an_approve(),
        _max_days(),
        _other_approval_run_out(),
        _approve_once(),
        _denied_is_final(),
        _revoked_is_final(),
        _revoked_by_the_requester(),
        _revocation_before_release(),
        _approved_by_one_role(),
        _erased_study_among_others(),
        _other_request(),
    ]


def release_stories() -> list[Story]:
    return [
        _lease(),
        _lease_ends_with_the_approval(),
        _leases_of_another_length(),
        _renewals(),
        _order_of_refusals(),
        _covered_by_sequence(),
        _future(),
        _stored(),
        _several_studies(),
        _outcomes(),
        _outcome_of_another(),
        _denials(),
        _research_words(),
        _lineage(),
        _lineage_of_a_dataset(),
    ]


def _numbered(story: Story, args: Args, by: str = LAB, nonce: int = 0) -> bytes:
    number = story.does(by, "RequestAccess", args, nonce=nonce)["id"]
    assert number == id_of("RequestAccess", args, by, nonce)
    return number


def _approved(story: Story, number: bytes, until: int = UNTIL) -> None:
    for by in BOTH:
        story.does(by, "Approve", approve(number, until))


def _requests_refused() -> Story:
    story = after("dataset", "what cannot be asked for")
    neither = request()
    del neither["studies"]
    story.refused("INVALID dataset", LAB, "RequestAccess", neither)
    story.refused("INVALID dataset", LAB, "RequestAccess", request(on={"dataset": ON_DATASET["dataset"]}))
    story.refused("INVALID dataset", LAB, "RequestAccess", request(on={"version": 1}))
    story.refused("INVALID dataset", LAB, "RequestAccess", request(**ON_DATASET))
    story.refused("INVALID dataset", LAB, "RequestAccess", request(version=1))
    story.refused("INVALID release", LAB, "RequestAccess", request(release="deidentified"))
    story.refused("INVALID days", LAB, "RequestAccess", request(days=366))
    story.refused("NOT_PERMITTED node", LAB, "RequestAccess", request(node=node(OWNER)))
    story.refused("NOT_FOUND node", LAB, "RequestAccess", request(node=node(LAB, "NOBODY")))
    # The first in the page's order is named.
    story.refused("INVALID dataset", LAB, "RequestAccess", request(version=1, release="deidentified", days=366))
    story.refused("INVALID release", LAB, "RequestAccess", request(release="deidentified", days=366))
    story.refused("INVALID days", LAB, "RequestAccess", request(days=366, node=node(OTHER_LAB)))
    unknown = {"dataset": digest("no dataset")[:16], "version": 1}
    story.refused("NOT_FOUND node", LAB, "RequestAccess", request(on=unknown, node=node(LAB, "NOBODY")))
    story.does(LAB, "RequestAccess", request(days=365))
    # Nobody has anchored the study, or ever will: a request tells nothing about what there is.
    story.does(LAB, "RequestAccess", request(studies=[STUDY3]))
    return story


def _request_again() -> Story:
    story = after("denied", "the same request again is the same request, whatever came of it")
    assert story.repeats(LAB, "RequestAccess", request()) == {"id": REQUEST}
    second = _numbered(story, request(), nonce=1)
    _approved(story, second)
    story.does(OWNER, "LogRelease", release(second))
    story.does(CUSTODIAN, "RevokeNode", {"node": node(LAB)})
    assert story.repeats(LAB, "RequestAccess", request(), nonce=1) == {"id": second}
    story.refused("WRONG_STATE node", LAB, "RequestAccess", request(), nonce=2)
    return story


def _release_forms() -> Story:
    forms = {"release_forms": ["identified", "deidentified"], "approvals": ["custodian"]}
    story = variant("each form of release has its own approvals", "nodes confirmed", **forms)
    number = _numbered(story, request(release="deidentified"))
    story.refused("NOT_PERMITTED role", OWNER, "Approve", approve(number, release="deidentified"))
    story.refused("INVALID release", CUSTODIAN, "Approve", approve(number))
    assert story.does(CUSTODIAN, "Approve", approve(number, release="deidentified"))["state"] == "approved"
    story.does(OWNER, "LogRelease", release(number))
    identified = _numbered(story, request())
    story.refused("INVALID release", OWNER, "Approve", approve(identified, release="deidentified"))
    _approved(story, identified)
    return story


def _expiry_to_the_second() -> Story:
    story = after("approved", "an approval ends with the second before until")
    for by, count in ((OWNER, 3), (CUSTODIAN, 2)):
        assert story.does(by, "LogRelease", release(count=count), at=UNTIL - 1)["leaseEnd"] == UNTIL
    assert story.asks("CheckAccess", {"study": STUDY, "node": node(LAB)})["permitted"] is True
    assert story.asks("GetRequest", {"id": REQUEST})["state"] == "approved"
    assert len(story.asks("ApprovedStudies", {"node": node(LAB)})) == 1
    story.refused("EXPIRED until", OWNER, "LogRelease", release(count=1), at=UNTIL)
    assert story.asks("CheckAccess", {"study": STUDY, "node": node(LAB)})["reason"] == "approval expired"
    assert story.asks("GetRequest", {"id": REQUEST})["state"] == "expired"
    assert [one["id"] for one in story.asks("RequestsByState", {"state": "expired"})] == [REQUEST]
    assert story.asks("RequestsByState", {"state": "approved"}) == []
    assert story.asks("ApprovedStudies", {"node": node(LAB)}) == []
    # What was released before is still recognised, and still reported.
    assert story.repeats(OWNER, "LogRelease", release())["leaseEnd"] == UNTIL
    story.does(OWNER, "LogOutcome", outcome(id_of("LogRelease", release(), OWNER)))
    # It has run out, but not in the ledger's record: it can still be revoked, not denied.
    story.refused("WRONG_STATE approved", OWNER, "Deny", DENIAL)
    story.does(LAB, "Revoke", {"id": REQUEST, "reason": "completed"})
    story.refused("EXPIRED until", OWNER, "LogRelease", release(count=1))
    return story


def _smallest_until() -> Story:
    story = after("asked", "an approval runs until the smallest until")
    early = T0 + DAY
    assert story.does(OWNER, "Approve", approve(until=early)) == {"id": REQUEST, "state": "open", "until": None}
    last = story.does(CUSTODIAN, "Approve", approve())
    assert last == {"id": REQUEST, "state": "approved", "until": early}
    assert story.repeats(OWNER, "Approve", approve(until=early))["state"] == "open"
    assert story.repeats(CUSTODIAN, "Approve", approve()) == last
    story.does(OWNER, "LogRelease", release(), at=early - 1)
    story.refused("EXPIRED until", OWNER, "LogRelease", release(count=1), at=early)
    assert story.repeats(CUSTODIAN, "Approve", approve()) == last
    return story


def _until_of_an_approve() -> Story:
    story = after("asked", "until is after now, and at most the days that were asked for")
    now = T0 + 100
    story.refused("EXPIRED until", OWNER, "Approve", approve(until=now), at=now)
    story.refused("EXPIRED until", OWNER, "Approve", approve(until=now - 1), at=now)
    story.refused("EXPIRED until", OWNER, "Approve", approve(until=0), at=now)
    story.refused("INVALID until", OWNER, "Approve", approve(until=now + 30 * DAY + 1), at=now)
    story.does(OWNER, "Approve", approve(until=now + 30 * DAY), at=now)
    story.does(CUSTODIAN, "Approve", approve(until=now + 1), at=now)
    story.refused("EXPIRED until", OWNER, "LogRelease", release(), at=now + 1)
    assert story.does(OWNER, "LogRelease", release(), at=now)["leaseEnd"] == now + 1
    return story


def _max_days() -> Story:
    story = after("asked", "the policy's max_days bounds an approval also of what was asked for before")
    args = {"policy": POLICY | {"max_days": 7}}
    number = story.does(OWNER, "ProposePolicy", args)["id"]
    story.does(CUSTODIAN, "ConfirmPolicy", {"id": number})
    now = T0 + 100
    story.refused("INVALID until", OWNER, "Approve", approve(until=now + 7 * DAY + 1), at=now)
    story.does(OWNER, "Approve", approve(until=now + 7 * DAY), at=now)
    story.refused("INVALID days", LAB, "RequestAccess", request(), nonce=1)
    story.does(LAB, "RequestAccess", request(days=7))
    return story


def _other_approval_run_out() -> Story:
    story = after("asked", "two approvals count only while both run")
    early = T0 + DAY
    story.does(OWNER, "Approve", approve(until=early))
    story.refused("EXPIRED until", CUSTODIAN, "Approve", approve(), at=early)
    story.refused("WRONG_STATE approved", OWNER, "Approve", approve())
    story.repeats(OWNER, "Approve", approve(until=early))
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release())
    # A new request it takes. In the last second both still run.
    second = _numbered(story, request(), nonce=1)
    late = story.now + 100
    story.does(OWNER, "Approve", approve(second, until=late))
    assert story.does(CUSTODIAN, "Approve", approve(second), at=late - 1)["until"] == late
    story.does(OWNER, "LogRelease", release(second), at=late - 1)
    return story


def _approve_once() -> Story:
    story = after("half approved", "each role approves once, and alone approves nothing")
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release())
    story.refused("WRONG_STATE approved", CUSTODIAN, "Approve", approve(until=UNTIL + 1))
    story.repeats(CUSTODIAN, "Approve", approve(), assurance="node", serial="7")
    story.refused("NOT_PERMITTED role", LAB, "Approve", approve())
    # The order of the page, one rule after the other.
    story.refused("INVALID release", CUSTODIAN, "Approve", approve(release="deidentified"))
    story.refused("EXPIRED until", CUSTODIAN, "Approve", approve(until=story.now))
    story.refused("INVALID until", CUSTODIAN, "Approve", approve(until=story.now + 31 * DAY))
    story.refused("INVALID release", OWNER, "Approve", approve(release="deidentified", until=1))
    story.does(OWNER, "Approve", approve(until=UNTIL + 5))
    story.refused("WRONG_STATE approved", OWNER, "Approve", approve())
    story.repeats(CUSTODIAN, "Approve", approve())
    record = story.asks("GetRequest", {"id": REQUEST})
    assert {role: given["until"] for role, given in record["approvals"].items()} == {
        "owner": UNTIL + 5,
        "custodian": UNTIL,
    }
    return story


def _denied_is_final() -> Story:
    story = after("half approved", "denied is final")
    with_text = DENIAL | {"textCommitment": digest("text")}
    story.does(OWNER, "Deny", with_text)
    story.repeats(OWNER, "Deny", with_text)
    story.refused("WRONG_STATE denied", OWNER, "Deny", DENIAL)
    story.refused("WRONG_STATE denied", OWNER, "Deny", with_text | {"reason": "other"})
    story.refused("WRONG_STATE denied", CUSTODIAN, "Deny", with_text)
    story.refused("WRONG_STATE denied", OWNER, "Approve", approve())
    story.repeats(CUSTODIAN, "Approve", approve())
    for by in (OWNER, CUSTODIAN, LAB):
        story.refused("WRONG_STATE denied", by, "Revoke", REVOCATION)
    story.refused("WRONG_STATE denied", OWNER, "LogRelease", release())
    assert story.asks("GetRequest", {"id": REQUEST})["state"] == "denied"
    return story


def _revoked_is_final() -> Story:
    story = after("approved, then revoked", "revoked is final")
    story.repeats(OWNER, "Revoke", REVOCATION)
    story.refused("WRONG_STATE revoked", OWNER, "Revoke", REVOCATION | {"reason": "error"})
    story.refused("WRONG_STATE revoked", OWNER, "Revoke", REVOCATION | {"textCommitment": digest("text")})
    for by in (CUSTODIAN, LAB):
        story.refused("WRONG_STATE revoked", by, "Revoke", REVOCATION)
    story.refused("WRONG_STATE revoked", OWNER, "Deny", DENIAL)
    story.refused("WRONG_STATE revoked", OWNER, "Approve", approve(until=UNTIL + 1))
    story.repeats(OWNER, "Approve", approve())
    story.refused("WRONG_STATE revoked", OWNER, "LogRelease", release())
    story.refused("EXPIRED until", OWNER, "LogRelease", release(), at=UNTIL)
    assert story.asks("GetRequest", {"id": REQUEST})["state"] == "revoked"
    return story


def _revoked_by_the_requester() -> Story:
    story = after("approved", "the requester's organisation gives back what it was given, another one does not")
    story.refused("NOT_PERMITTED id", OTHER_LAB, "Revoke", REVOCATION)
    story.refused("NOT_FOUND id", OTHER_LAB, "Revoke", {"id": UNKNOWN, "reason": "breach"})
    ended = {"id": REQUEST, "reason": "completed", "textCommitment": digest("text")}
    story.does(LAB, "Revoke", ended)
    story.repeats(LAB, "Revoke", ended)
    story.refused("NOT_PERMITTED id", OTHER_LAB, "Revoke", ended)
    story.refused("WRONG_STATE revoked", OWNER, "LogRelease", release())
    return story


def _revocation_before_release() -> Story:
    story = after("released", "a revocation in the same second ends every later release")
    now = story.now
    story.does(CUSTODIAN, "Revoke", REVOCATION, at=now)
    story.refused("WRONG_STATE revoked", OWNER, "LogRelease", release(renews=RELEASE), at=now)
    story.refused("WRONG_STATE revoked", CUSTODIAN, "LogRelease", release(), at=now)
    # The release that was before shows the lease that it had, and is reported.
    assert story.repeats(OWNER, "LogRelease", release(), at=now) == {"release": RELEASE, "leaseEnd": now + 60}
    story.does(OWNER, "LogOutcome", outcome())
    story.does(LAB, "LogRetrieval", {"release": RELEASE, "outcome": "failed"})
    return story


def _approved_by_one_role() -> Story:
    story = variant("one role's approval is enough where the policy says so", "asked", identified_needs=["owner"])
    story.refused("NOT_PERMITTED role", CUSTODIAN, "Approve", approve())
    assert story.does(OWNER, "Approve", approve()) == {"id": REQUEST, "state": "approved", "until": UNTIL}
    story.does(CUSTODIAN, "LogRelease", release())
    # Who denies and revokes does not depend on it.
    story.does(CUSTODIAN, "Revoke", REVOCATION)
    return story


def _erased_study_among_others() -> Story:
    story = after("nodes confirmed", "an erased study stops the approval of all that is asked for with it")
    number = _numbered(story, request(studies=[STUDY2, STUDY]))
    alone = _numbered(story, request(studies=[STUDY2]))
    story.does(OWNER, "RequestErase", {"study": STUDY})
    # While it is only requested approvals go on; releases of it stop.
    story.does(OWNER, "Approve", approve(number))
    story.wait(604_800).does(CUSTODIAN, "ConfirmErase", {"study": STUDY})
    story.refused("WRONG_STATE erased", CUSTODIAN, "Approve", approve(number))
    story.repeats(OWNER, "Approve", approve(number))
    _approved(story, alone)
    return story


def _other_request() -> Story:
    story = after("approved", "an approval is one organisation's, for one node")
    theirs = _numbered(story, request(OTHER_LAB), OTHER_LAB)
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release(theirs, node=node(OTHER_LAB)))
    story.refused("NOT_PERMITTED node", OWNER, "LogRelease", release(node=node(OTHER_LAB)))
    _approved(story, theirs)
    story.does(OWNER, "LogRelease", release(theirs, node=node(OTHER_LAB)))
    story.refused("NOT_PERMITTED node", OWNER, "LogRelease", release(theirs))
    story.refused("NOT_PERMITTED id", LAB, "Revoke", {"id": theirs, "reason": "other"})
    return story


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
    second = _numbered(story, request(studies=[STUDY, STUDY2]))
    _approved(story, second)
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


def _covered_by_sequence() -> Story:
    story = after("half approved", "what is anchored before the last needed Approve is covered, in the same second too")
    now = story.now
    story.does(OWNER, "Anchor", anchor(NEW), at=now)
    story.does(OWNER, "Approve", approve(), at=now)
    story.does(OWNER, "Anchor", anchor(ELSEWHERE), at=now)
    story.does(OWNER, "LogRelease", release(anchors=[NEW, M1]), at=now)
    story.refused("WRONG_STATE anchors", OWNER, "LogRelease", release(anchors=[ELSEWHERE]), at=now)
    covered = story.asks("GetRequest", {"id": REQUEST})["coveredUntil"]
    sequences = [story.asks("GetAnchor", {"manifestCid": cid})["sequence"] for cid in (NEW, ELSEWHERE)]
    assert sequences == [covered - 1, covered + 1]
    return story


def _future() -> Story:
    story = after("nodes confirmed", "an approval of the future covers what is anchored later")
    number = _numbered(story, request(future=True))
    _approved(story, number)
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
    number = _numbered(story, request(studies=[STUDY2, STUDY]))
    _approved(story, number)
    story.does(OWNER, "FlagTampered", flag())
    story.does(OWNER, "LogRelease", release(number, study=STUDY2, anchors=[ELSEWHERE]))
    story.refused("WRONG_STATE standingVersion", OWNER, "LogRelease", release(number))
    story.does(OWNER, "LogRelease", release(number, standingVersion=1))
    story.refused("INVALID anchors", OWNER, "LogRelease", release(number, study=STUDY2))
    story.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(number, study=STUDY3))
    story.refused("INVALID proof", OWNER, "LogRelease", release(number, standingVersion=1, proof=proof(STUDY)))
    return story


def _outcomes() -> Story:
    story = after("released", "an outcome is the release's organisation's, said once")
    story.refused("INVALID sent", OWNER, "LogOutcome", outcome(sent=2, withheld=2))
    story.refused("INVALID sent", OWNER, "LogOutcome", outcome(sent=4))
    story.refused("NOT_FOUND release", OWNER, "LogOutcome", outcome(UNKNOWN, sent=4))
    story.refused("NOT_PERMITTED release", CUSTODIAN, "LogOutcome", outcome(sent=4))
    story.does(OWNER, "LogOutcome", outcome(sent=0, withheld=2))
    story.repeats(OWNER, "LogOutcome", outcome(sent=0, withheld=2), serial="7")
    story.refused("WRONG_STATE outcome", OWNER, "LogOutcome", outcome())
    story.refused("WRONG_STATE outcome", OWNER, "LogOutcome", outcome(sent=0, withheld=2, bitmapDigest=digest("b")))
    story.refused("INVALID sent", OWNER, "LogOutcome", outcome(sent=4))
    return story


def _outcome_of_another() -> Story:
    story = after("approved", "the custodian's release is reported by the custodian")
    story.does(CUSTODIAN, "LogRelease", release())
    number = id_of("LogRelease", release(), CUSTODIAN)
    story.refused("NOT_PERMITTED release", OWNER, "LogOutcome", outcome(number))
    story.does(CUSTODIAN, "LogOutcome", outcome(number))
    story.does(LAB, "LogRetrieval", {"release": number, "outcome": "partial"})
    return story


def _denials() -> Story:
    story = after("nodes confirmed", "denials are counted by their node, with a number that rises")
    lab = {"peer": node(LAB)}
    first, second = denials(OWNER, 7, **lab), denials(OWNER, 9, unregistered=True, reason="withheld: integrity")
    story.does(OWNER, "LogDenials", first)
    story.does(OWNER, "LogDenials", second)
    story.repeats(OWNER, "LogDenials", first)
    story.refused("CONFLICT seq", OWNER, "LogDenials", denials(OWNER, 7, **lab, count=3))
    story.refused("CONFLICT seq", OWNER, "LogDenials", denials(OWNER, 8, **lab))
    story.refused("CONFLICT seq", OWNER, "LogDenials", denials(OWNER, 9, **lab))
    # Another node counts for itself, and need not be registered.
    other = denials(OWNER, 8, **lab) | {"reportingNode": node(OWNER, "SECOND")}
    story.does(OWNER, "LogDenials", other)
    story.does(CUSTODIAN, "LogDenials", denials(CUSTODIAN, 8, **lab))
    story.refused("NOT_PERMITTED reportingNode", CUSTODIAN, "LogDenials", denials(OWNER, 10, **lab))
    story.refused("INVALID peer", OWNER, "LogDenials", denials(OWNER, 10))
    story.refused("INVALID peer", OWNER, "LogDenials", denials(OWNER, 10, **lab, unregistered=True))
    story.refused("NOT_FOUND peer", OWNER, "LogDenials", denials(OWNER, 10, peer=node(LAB, "NOBODY")))
    # A peer that was registered once is a registered peer, revoked or not.
    story.does(LAB, "RevokeNode", {"node": node(LAB)})
    story.does(LAB, "RegisterNode", register_node(LAB, aeTitle="LABBOX2"))
    story.does(OWNER, "LogDenials", denials(OWNER, 10, **lab))
    story.does(OWNER, "LogDenials", denials(OWNER, 11, peer=node(LAB, "LABBOX2")))
    return story


def _research_words() -> Story:
    story = after("released", "what research says of a release blocks nothing")
    retrieved = {"release": RELEASE, "outcome": "partial"}
    story.refused("NOT_PERMITTED release", OTHER_LAB, "LogRetrieval", retrieved)
    story.refused("NOT_PERMITTED release", OTHER_LAB, "ReportTamper", TAMPERED)
    story.refused("NOT_FOUND release", LAB, "LogRetrieval", retrieved | {"release": REQUEST})
    story.does(LAB, "LogRetrieval", retrieved)
    story.refused("CONFLICT outcome", LAB, "LogRetrieval", retrieved | {"outcome": "complete"})
    story.repeats(LAB, "LogRetrieval", retrieved)
    story.does(LAB, "ReportTamper", TAMPERED)
    story.refused("CONFLICT observed", LAB, "ReportTamper", TAMPERED | {"observed": digest("other")})
    story.repeats(LAB, "ReportTamper", TAMPERED)
    story.does(LAB, "ReportTamper", TAMPERED | {"instance": digest("instance 2")})
    assert story.version(STUDY) == 0
    story.does(OWNER, "LogRelease", release(renews=RELEASE))
    return story


def _lineage() -> Story:
    story = after("run", "lineage is told by an organisation on its own releases")
    story.repeats(LAB, "RegisterTrainingRun", training_run())
    story.refused("NOT_FOUND releases", LAB, "RegisterTrainingRun", training_run() | {"releases": [RELEASE, UNKNOWN]})
    story.refused("NOT_PERMITTED releases", OTHER_LAB, "RegisterTrainingRun", training_run())
    story.refused("INVALID dataset", LAB, "RegisterTrainingRun", training_run(version=1))
    story.refused("INVALID dataset", LAB, "RegisterTrainingRun", training_run(dataset=ON_DATASET["dataset"]))
    story.does(CUSTODIAN, "LogRelease", release())
    both = {"releases": [id_of("LogRelease", release(), CUSTODIAN), RELEASE]}
    story.does(LAB, "RegisterTrainingRun", training_run() | both)
    # Another's release among one's own.
    theirs = _numbered(story, request(OTHER_LAB), OTHER_LAB)
    _approved(story, theirs)
    given = release(theirs, node=node(OTHER_LAB))
    story.does(OWNER, "LogRelease", given)
    mixed = training_run() | {"releases": [RELEASE, id_of("LogRelease", given, OWNER)]}
    for by in (LAB, OTHER_LAB):
        story.refused("NOT_PERMITTED releases", by, "RegisterTrainingRun", mixed)
    story.refused("NOT_FOUND run", LAB, "RegisterModel", model(UNKNOWN))
    story.refused("NOT_PERMITTED run", OTHER_LAB, "RegisterModel", model())
    story.does(LAB, "RegisterModel", model())
    story.repeats(LAB, "RegisterModel", model())
    assert story.does(LAB, "RegisterModel", model(), nonce=1) == {"id": id_of("RegisterModel", model(), LAB, 1)}
    # What follows from a release stays told when the approval ends.
    story.does(OWNER, "Revoke", REVOCATION)
    story.does(LAB, "RegisterTrainingRun", training_run(), nonce=1)
    story.does(LAB, "RegisterModel", model(RUN) | {"digest": digest("model 2")})
    return story


def _lineage_of_a_dataset() -> Story:
    story = after("dataset approved", "a run on a dataset names releases of requests on exactly that one")
    given = release(DATASET_REQUEST, proof=proof(STUDY))
    story.does(OWNER, "LogRelease", given)
    number = id_of("LogRelease", given, OWNER)
    story.does(OWNER, "RegisterDataset", register_dataset(2))
    story.does(LAB, "RequestAccess", request())
    _approved(story, REQUEST)
    story.does(OWNER, "LogRelease", release())
    on_study = id_of("LogRelease", release(), OWNER)
    second = {"dataset": ON_DATASET["dataset"], "version": 2}
    story.refused("NOT_FOUND dataset", LAB, "RegisterTrainingRun", training_run(number, **(second | {"version": 3})))
    story.refused("INVALID releases", LAB, "RegisterTrainingRun", training_run(number, **second))
    story.refused("INVALID releases", LAB, "RegisterTrainingRun", training_run(on_study, **ON_DATASET))
    mixed = {"releases": [number, on_study]}
    story.refused("INVALID releases", LAB, "RegisterTrainingRun", training_run(**ON_DATASET) | mixed)
    story.does(LAB, "RegisterTrainingRun", training_run(number, **ON_DATASET))
    story.does(LAB, "RegisterTrainingRun", training_run() | mixed)
    story.does(OWNER, "WithdrawDataset", {"id": ON_DATASET["dataset"], "version": 1})
    story.does(LAB, "RegisterTrainingRun", training_run(number, **ON_DATASET), nonce=1)
    return story

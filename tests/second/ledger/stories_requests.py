"""What research asks for: requests, approvals and their times, denials and revocations."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DAY,
    LAB,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    POLICY,
    RELEASE,
    REQUEST,
    STUDY,
    STUDY2,
    STUDY3,
    T0,
    UNKNOWN,
    UNTIL,
    approve,
    digest,
    id_of,
    node,
    outcome,
    release,
    request,
)
from tests.second.ledger.openings import DENIAL, REVOCATION, after, approved, numbered, variant
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
    second = numbered(story, request(), nonce=1)
    approved(story, second)
    story.does(OWNER, "LogRelease", release(second))
    story.does(CUSTODIAN, "RevokeNode", {"node": node(LAB)})
    assert story.repeats(LAB, "RequestAccess", request(), nonce=1) == {"id": second}
    story.refused("WRONG_STATE node", LAB, "RequestAccess", request(), nonce=2)
    return story


def _release_forms() -> Story:
    forms = {"release_forms": ["identified", "deidentified"], "approvals": ["custodian"]}
    story = variant("each form of release has its own approvals", "nodes confirmed", **forms)
    number = numbered(story, request(release="deidentified"))
    story.refused("NOT_PERMITTED role", OWNER, "Approve", approve(number, release="deidentified"))
    story.refused("INVALID release", CUSTODIAN, "Approve", approve(number))
    assert story.does(CUSTODIAN, "Approve", approve(number, release="deidentified"))["state"] == "approved"
    story.does(OWNER, "LogRelease", release(number))
    identified = numbered(story, request())
    story.refused("INVALID release", OWNER, "Approve", approve(identified, release="deidentified"))
    approved(story, identified)
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
    second = numbered(story, request(), nonce=1)
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
    number = numbered(story, request(studies=[STUDY2, STUDY]))
    alone = numbered(story, request(studies=[STUDY2]))
    story.does(OWNER, "RequestErase", {"study": STUDY})
    # While it is only requested approvals go on; releases of it stop.
    story.does(OWNER, "Approve", approve(number))
    story.wait(604_800).does(CUSTODIAN, "ConfirmErase", {"study": STUDY})
    story.refused("WRONG_STATE erased", CUSTODIAN, "Approve", approve(number))
    story.repeats(OWNER, "Approve", approve(number))
    approved(story, alone)
    return story


def _other_request() -> Story:
    story = after("approved", "an approval is one organisation's, for one node")
    theirs = numbered(story, request(OTHER_LAB), OTHER_LAB)
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release(theirs, node=node(OTHER_LAB)))
    story.refused("NOT_PERMITTED node", OWNER, "LogRelease", release(node=node(OTHER_LAB)))
    approved(story, theirs)
    story.does(OWNER, "LogRelease", release(theirs, node=node(OTHER_LAB)))
    story.refused("NOT_PERMITTED node", OWNER, "LogRelease", release(theirs))
    story.refused("NOT_PERMITTED id", LAB, "Revoke", {"id": theirs, "reason": "other"})
    return story

"""Policies: two parties, and organisations that come and go."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    LAB,
    NEW,
    OTHER_LAB,
    OWNER,
    POLICY,
    REQUEST,
    STRANGER,
    UNKNOWN,
    Args,
    anchor,
    approve,
    id_of,
    node,
    register_node,
    release,
    request,
)
from tests.second.ledger.openings import LONGER_LEASE, OTHER_PROPOSAL, PROPOSAL, SHORTER_LEASE, after, variant
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _proposal_of_one_party(),
        _proposals_void(),
        _proposal_cancelled(),
        _fixed_parties(),
        _organisation_removed_and_back(),
        _organisation_joins(),
        _fewer_approvals(),
        _more_approvals(),
        _init_again(),
    ]


def _propose(story: Story, by: str, policy: Args, nonce: int = 0) -> bytes:
    args = {"policy": policy}
    number = id_of("ProposePolicy", args, by, nonce)
    assert story.does(by, "ProposePolicy", args, nonce=nonce) == {"id": number}
    return number


def _new_policy(story: Story, policy: Args, nonce: int = 0) -> None:
    number = _propose(story, OWNER, policy, nonce)
    story.does(CUSTODIAN, "ConfirmPolicy", {"id": number})


def _proposal_of_one_party() -> Story:
    story = after("policy", "a policy needs the other party, whoever proposes it")
    for by, other, lease in ((OWNER, CUSTODIAN, 30), (CUSTODIAN, OWNER, 20)):
        number = _propose(story, by, POLICY | {"lease_s": lease})
        story.refused("NOT_PERMITTED id", by, "ConfirmPolicy", {"id": number})
        story.refused("NOT_PERMITTED id", by, "ConfirmPolicy", {"id": number}, serial="9")
        story.refused("NOT_PERMITTED role", LAB, "ConfirmPolicy", {"id": number})
        story.does(other, "ConfirmPolicy", {"id": number})
        story.repeats(other, "ConfirmPolicy", {"id": number})
        assert story.ledger.state["policy"]["lease_s"] == lease
    story.refused("NOT_FOUND id", OWNER, "ConfirmPolicy", {"id": UNKNOWN})
    assert story.ledger.state["policyVersion"] == 2
    assert story.asks("GetPolicy")["lease_s"] == 20
    return story


def _proposals_void() -> Story:
    story = after("proposed", "once one proposal is confirmed the others are void")
    story.does(OWNER, "ProposePolicy", {"policy": SHORTER_LEASE})
    theirs = _propose(story, CUSTODIAN, POLICY | {"max_days": 30})
    assert story.does(CUSTODIAN, "ConfirmPolicy", {"id": OTHER_PROPOSAL}) == {"version": 1}
    story.refused("WRONG_STATE void", CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.refused("WRONG_STATE void", OWNER, "ConfirmPolicy", {"id": theirs})
    story.refused("NOT_PERMITTED id", CUSTODIAN, "ConfirmPolicy", {"id": theirs})
    story.refused("WRONG_STATE void", OWNER, "Cancel", {"id": PROPOSAL})
    story.refused("WRONG_STATE void", CUSTODIAN, "Cancel", {"id": theirs})
    story.refused("WRONG_STATE confirmed", CUSTODIAN, "Cancel", {"id": OTHER_PROPOSAL})
    # The same id is the void one; with a new nonce it is a new proposal, on the policy in force.
    story.repeats(OWNER, "ProposePolicy", {"policy": LONGER_LEASE})
    number = _propose(story, OWNER, LONGER_LEASE, nonce=1)
    assert [one["id"] for one in story.asks("Pending")] == [number]
    return story


def _proposal_cancelled() -> Story:
    story = after("proposed", "a proposal is called off by either party, for good")
    story.refused("NOT_FOUND id", OWNER, "Cancel", {"id": UNKNOWN})
    story.does(CUSTODIAN, "Cancel", {"id": PROPOSAL})
    story.repeats(CUSTODIAN, "Cancel", {"id": PROPOSAL})
    story.refused("WRONG_STATE cancelled", OWNER, "Cancel", {"id": PROPOSAL})
    story.refused("WRONG_STATE cancelled", CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.repeats(OWNER, "ProposePolicy", {"policy": LONGER_LEASE})
    # Cancelled stays cancelled also when it would be void.
    _new_policy(story, SHORTER_LEASE)
    story.refused("WRONG_STATE cancelled", CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.refused("WRONG_STATE cancelled", OWNER, "Cancel", {"id": PROPOSAL})
    story.repeats(CUSTODIAN, "Cancel", {"id": PROPOSAL})
    return story


def _fixed_parties() -> Story:
    story = after("policy", "owner and custodian stay, and nobody's role changes")
    members = POLICY["organisations"]
    without = {name: role for name, role in members.items() if name not in (OWNER, CUSTODIAN)}
    for organisations in (
        without | {STRANGER: "owner", CUSTODIAN: "custodian"},
        without | {OWNER: "owner", STRANGER: "custodian"},
        without | {OWNER: "custodian", CUSTODIAN: "owner"},
        without | {OWNER: "research", STRANGER: "owner", CUSTODIAN: "custodian"},
        members | {LAB: "custodian", CUSTODIAN: "research"},
    ):
        proposed = {"policy": POLICY | {"organisations": organisations}}
        story.refused("INVALID organisations", OWNER, "ProposePolicy", proposed)
        story.refused("INVALID organisations", CUSTODIAN, "ProposePolicy", proposed)
    return story


def _organisation_removed_and_back() -> Story:
    story = after("approved", "an organisation that is out of the policy has nothing; back in it, what it had")
    members = POLICY["organisations"]
    without = POLICY | {"organisations": {name: role for name, role in members.items() if name != LAB}}
    _new_policy(story, without)
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release())
    story.refused("NOT_PERMITTED organisation", LAB, "RequestAccess", request(), nonce=1)
    story.refused("NOT_PERMITTED organisation", LAB, "RequestAccess", request())
    story.refused("NOT_PERMITTED organisation", LAB, "RegisterNode", register_node(LAB))
    story.does(OWNER, "Anchor", anchor(NEW))
    _new_policy(story, POLICY)
    story.does(OWNER, "LogRelease", release())
    story.repeats(LAB, "RequestAccess", request())
    # And while it was out, a request of it could not be approved either.
    story.does(LAB, "RequestAccess", request(), nonce=1)
    number = id_of("RequestAccess", request(), LAB, 1)
    story.does(CUSTODIAN, "Approve", approve(number))
    _new_policy(story, without, nonce=1)
    story.refused("WRONG_STATE node", OWNER, "Approve", approve(number))
    story.repeats(CUSTODIAN, "Approve", approve(number))
    story.does(CUSTODIAN, "RevokeNode", {"node": node(LAB)})
    _new_policy(story, POLICY, nonce=1)
    story.refused("WRONG_STATE node", OWNER, "Approve", approve(number))
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release(count=2))
    return story


def _organisation_joins() -> Story:
    story = after("policy", "an organisation joins with a policy, and comes with its CA's certificate")
    joined = POLICY | {
        "organisations": POLICY["organisations"] | {STRANGER: "research"},
        "certificates": {STRANGER: b"the CA's certificate"},
    }
    _new_policy(story, joined)
    story.does(STRANGER, "RegisterNode", register_node(OTHER_LAB, aeTitle="STRANGE"))
    assert story.asks("GetPolicy") == joined
    return story


def _fewer_approvals() -> Story:
    story = after("asked", "which roles are needed is the policy's word at each Approve: fewer")
    _new_policy(story, POLICY | {"identified_needs": ["custodian"]})
    story.refused("NOT_PERMITTED role", OWNER, "Approve", approve())
    story.does(CUSTODIAN, "Approve", approve())
    story.does(OWNER, "LogRelease", release())
    return story


def _more_approvals() -> Story:
    story = variant(
        "which roles are needed is the policy's word at each Approve: more", "asked", identified_needs=["custodian"]
    )
    story.refused("NOT_PERMITTED role", OWNER, "Approve", approve())
    _new_policy(story, POLICY)
    first = story.does(CUSTODIAN, "Approve", approve())
    assert first["state"] == "open"
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release())
    assert story.does(OWNER, "Approve", approve())["state"] == "approved"
    story.does(OWNER, "LogRelease", release())
    # What was approved stays approved, also when the policy then says otherwise.
    _new_policy(story, POLICY | {"identified_needs": ["custodian"]})
    story.does(OWNER, "LogRelease", release(count=2))
    shown = story.asks("GetRequest", {"id": REQUEST})
    assert (shown["needs"], sorted(shown["approvals"])) == (["custodian"], ["custodian", "owner"])
    return story


def _init_again() -> Story:
    story = after("policy confirmed", "the first policy comes once")
    story.repeats(CUSTODIAN, "InitPolicy", {"policy": POLICY})
    story.refused("INVALID policy", OWNER, "InitPolicy", {"policy": LONGER_LEASE})
    assert story.asks("GetPolicy") == LONGER_LEASE
    return story

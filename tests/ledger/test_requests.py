"""Requests: who asks, who must approve, what ends an approval."""

from collections.abc import Callable

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DAY,
    DIGEST,
    LAB,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_LAB,
    OTHER_NODE,
    OWNER,
    Channel,
)

UNKNOWN = b"\x01" * 32
NONCE = b"n" * 16


def state(channel: Channel, request: bytes) -> str:
    return str(channel.ask("GetRequest", id=request)["state"])


def test_a_request_sent_again_is_one_request(channel: Channel) -> None:
    channel.node()
    channel.repeats(LAB, "RequestAccess", **channel.access())
    assert len(channel.ask("RequestsByState", state="open")) == 1


def test_equal_requests_under_two_nonces_are_two(channel: Channel) -> None:
    channel.node()
    assert channel.request() != channel.request()
    assert len(channel.ask("RequestsByState", state="open")) == 2


def test_a_request_is_for_a_confirmed_node_of_its_own(channel: Channel) -> None:
    channel.node(OTHER_LAB)
    channel.refuses("NOT_FOUND", "node", LAB, "RequestAccess", nonce=NONCE, **channel.access())
    channel.register()
    channel.refuses("WRONG_STATE", "node", LAB, "RequestAccess", nonce=NONCE, **channel.access())
    channel.refuses("NOT_PERMITTED", "node", LAB, "RequestAccess", nonce=NONCE, **channel.access(node=OTHER_NODE))


def test_a_release_form_not_offered_is_refused(channel: Channel) -> None:
    channel.node()
    channel.refuses("INVALID", "release", LAB, "RequestAccess", nonce=NONCE, **channel.access(release="deidentified"))


def test_more_days_than_the_policy_allows_are_refused(channel: Channel) -> None:
    channel.node()
    channel.refuses("INVALID", "days", LAB, "RequestAccess", nonce=NONCE, **channel.access(days=366))
    assert channel.request(days=365)


@pytest.mark.parametrize("order", [(OWNER, CUSTODIAN), (CUSTODIAN, OWNER)])
def test_an_identified_release_needs_owner_and_custodian(channel: Channel, order: tuple[str, str]) -> None:
    channel.node()
    request = channel.request()
    channel.approve(request, by=order[:1])
    assert state(channel, request) == "open"
    channel.approve(request, by=order[1:])
    assert state(channel, request) == "approved"


def test_the_policy_says_who_must_approve(new_channel: Callable[..., Channel]) -> None:
    channel = new_channel(identified_needs=["custodian"]).init()
    channel.node()
    request = channel.request()
    channel.refuses("NOT_PERMITTED", "role", OWNER, "Approve", id=request, until=channel.now + 1, release="identified")
    channel.approve(request, by=(CUSTODIAN,))
    assert state(channel, request) == "approved"


def test_research_never_approves(channel: Channel) -> None:
    channel.node()
    args = {"id": channel.request(), "until": channel.now + DAY, "release": "identified"}
    for organisation in (LAB, OTHER_LAB):
        channel.refuses("NOT_PERMITTED", "role", organisation, "Approve", **args)


def test_a_deidentified_release_needs_the_roles_named_for_it(new_channel: Callable[..., Channel]) -> None:
    channel = new_channel(release_forms=["identified", "deidentified"]).init()
    channel.node()
    request = channel.request(release="deidentified")
    until = channel.now + DAY
    channel.refuses("NOT_PERMITTED", "role", OWNER, "Approve", id=request, until=until, release="deidentified")
    channel.refuses("INVALID", "release", CUSTODIAN, "Approve", id=request, until=until, release="identified")
    channel.call(CUSTODIAN, "Approve", id=request, until=until, release="deidentified")
    assert state(channel, request) == "approved"


def test_the_smallest_until_is_effective(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    channel.call(OWNER, "Approve", id=request, until=channel.now + 5 * DAY, release="identified")
    channel.call(CUSTODIAN, "Approve", id=request, until=channel.now + 20 * DAY, release="identified")
    assert channel.ask("GetRequest", id=request)["until"] == channel.now + 5 * DAY


def test_an_approval_lasts_no_longer_than_asked_for(channel: Channel) -> None:
    channel.node()
    request = channel.request(days=2)
    late = channel.now + 2 * DAY + 1
    channel.refuses("INVALID", "until", OWNER, "Approve", id=request, until=late, release="identified")
    channel.refuses("EXPIRED", "until", OWNER, "Approve", id=request, until=channel.now, release="identified")
    channel.approve(request, seconds=2 * DAY)


def test_a_first_approval_that_ran_out_does_not_count(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    channel.approve(request, seconds=100, by=(OWNER,))
    channel.wait(100)
    until = channel.now + DAY
    channel.refuses("EXPIRED", "until", CUSTODIAN, "Approve", id=request, until=until, release="identified")


def test_an_approval_is_expired_at_the_second_of_its_until(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    channel.approve(request, seconds=100)
    channel.wait(99)
    assert state(channel, request) == "approved"
    channel.wait(1)
    assert state(channel, request) == "expired"
    assert channel.ask("RequestsByState", state="approved") == []
    assert len(channel.ask("RequestsByState", state="expired")) == 1


def test_one_role_counts_once(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    args = {"id": request, "release": "identified"}
    channel.repeats(OWNER, "Approve", until=channel.now + DAY, **args)
    channel.refuses("WRONG_STATE", "approved", OWNER, "Approve", until=channel.now + 2 * DAY, **args)
    assert state(channel, request) == "open"


def test_who_decided_stands_in_the_record(memory: Channel) -> None:
    memory.node()
    request = memory.request()
    memory.host.assurance = "node"
    memory.approve(request)
    approvals = memory.ask("GetRequest", id=request)["approvals"]
    by = {"organisation": OWNER, "role": "owner", "assurance": "node", "serial": "1f"}
    assert approvals["owner"]["by"] == by
    assert set(approvals) == {"owner", "custodian"}


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_a_denial_is_final(channel: Channel, organisation: str) -> None:
    channel.node()
    request = channel.request()
    channel.repeats(organisation, "Deny", id=request, reason="purpose", textCommitment=DIGEST)
    until = channel.now + DAY
    channel.refuses("WRONG_STATE", "denied", OWNER, "Approve", id=request, until=until, release="identified")
    channel.refuses("WRONG_STATE", "denied", organisation, "Deny", id=request, reason="consent")
    channel.refuses("WRONG_STATE", "denied", LAB, "Revoke", id=request, reason="completed")
    assert state(channel, request) == "denied"


def test_what_is_approved_can_only_be_revoked(channel: Channel) -> None:
    request, _ = channel.approved()
    channel.refuses("WRONG_STATE", "approved", OWNER, "Deny", id=request, reason="purpose")


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN, LAB])
@pytest.mark.parametrize("approved", [False, True])
def test_a_revocation_is_final(channel: Channel, organisation: str, approved: bool) -> None:
    channel.node()
    request = channel.request()
    if approved:
        channel.approve(request)
    channel.repeats(organisation, "Revoke", id=request, reason="breach")
    until = channel.now + 9 * DAY
    channel.refuses("WRONG_STATE", "revoked", OWNER, "Approve", id=request, until=until, release="identified")
    channel.refuses("WRONG_STATE", "revoked", organisation, "Revoke", id=request, reason="other")
    assert state(channel, request) == "revoked"


def test_an_old_approval_repeated_after_a_revocation_revives_nothing(channel: Channel) -> None:
    channel.node()
    request, until = channel.request(), channel.now + DAY
    for organisation in (OWNER, CUSTODIAN):
        channel.call(organisation, "Approve", id=request, until=until, release="identified")
    channel.call(CUSTODIAN, "Revoke", id=request, reason="breach")
    for organisation in (OWNER, CUSTODIAN):
        channel.call(organisation, "Approve", id=request, until=until, release="identified")
    assert state(channel, request) == "revoked"


def test_another_research_organisation_cannot_revoke(channel: Channel) -> None:
    request, _ = channel.approved()
    channel.refuses("NOT_PERMITTED", "id", OTHER_LAB, "Revoke", id=request, reason="other")


def test_a_request_of_a_revoked_node_cannot_be_approved(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    channel.call(LAB, "RevokeNode", node=LAB_NODE)
    channel.call(CUSTODIAN, "ConfirmNode", node=LAB_NODE, version=channel.register(digests=(OTHER_DIGEST,)))
    until = channel.now + DAY
    channel.refuses("WRONG_STATE", "node", OWNER, "Approve", id=request, until=until, release="identified")


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("Approve", {"until": 1, "release": "identified"}),
        ("Deny", {"reason": "purpose"}),
        ("Revoke", {"reason": "error"}),
    ],
)
def test_an_unknown_request_is_not_found(channel: Channel, function: str, args: dict[str, object]) -> None:
    channel.refuses("NOT_FOUND", "id", CUSTODIAN, function, id=UNKNOWN, **args)

"""LogRelease: every reason it refuses for; leases and renewals."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DAY,
    DIGEST,
    INSTANCE,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_LAB,
    OTHER_NODE,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    cid,
)

NONCE = b"n" * 16
UNKNOWN = b"\x01" * 32


def refused(channel: Channel, code: str, field: str, args: dict[str, Any]) -> None:
    channel.refuses(code, field, OWNER, "LogRelease", nonce=NONCE, **args)


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_an_approved_release_gives_a_lease(channel: Channel, organisation: str) -> None:
    request, manifest = channel.approved()
    lease = channel.call(organisation, "LogRelease", **channel.release(request, manifest))
    assert lease["leaseEnd"] == channel.now + 60
    assert len(lease["release"]) == 32


def test_a_lease_ends_with_the_approval(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.wait(10 * DAY - 7)
    lease = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))
    assert lease["leaseEnd"] == channel.now + 7


def test_nothing_is_released_from_the_second_of_until_on(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.wait(10 * DAY - 1)
    assert channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["leaseEnd"] == channel.now + 1
    channel.wait(1)
    refused(channel, "EXPIRED", "until", channel.release(request, manifest))


def test_a_repeat_shows_the_old_lease_end(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.repeats(OWNER, "LogRelease", **channel.release(request, manifest))


def test_a_repeat_after_the_revocation_gives_no_new_lease(channel: Channel) -> None:
    request, manifest = channel.approved()
    args = channel.release(request, manifest)
    first = channel.call(OWNER, "LogRelease", nonce=NONCE, **args)
    channel.call(CUSTODIAN, "Revoke", id=request, reason="breach")
    channel.wait(30)
    assert channel.call(OWNER, "LogRelease", nonce=NONCE, **args) == first
    channel.refuses("WRONG_STATE", "revoked", OWNER, "LogRelease", nonce=b"m" * 16, **args)


def test_an_unknown_request_is_not_found(channel: Channel) -> None:
    _, manifest = channel.approved()
    refused(channel, "NOT_FOUND", "request", channel.release(UNKNOWN, manifest))


def test_an_open_request_releases_nothing(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.node()
    request = channel.request()
    refused(channel, "WRONG_STATE", "open", channel.release(request, manifest))
    channel.approve(request, by=(CUSTODIAN,))
    refused(channel, "WRONG_STATE", "open", channel.release(request, manifest))


def test_a_denied_request_releases_nothing(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.node()
    request = channel.request()
    channel.call(OWNER, "Deny", id=request, reason="scope")
    refused(channel, "WRONG_STATE", "denied", channel.release(request, manifest))


def test_a_revoked_approval_releases_nothing(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.call(CUSTODIAN, "Revoke", id=request, reason="consent-withdrawn")
    refused(channel, "WRONG_STATE", "revoked", channel.release(request, manifest))


def test_an_approval_holds_for_its_node_only(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.node(OTHER_LAB)
    refused(channel, "NOT_PERMITTED", "node", channel.release(request, manifest, node=OTHER_NODE))


def test_a_revoked_node_gets_nothing_even_when_confirmed_anew(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.call(CUSTODIAN, "RevokeNode", node=LAB_NODE)
    refused(channel, "WRONG_STATE", "node", channel.release(request, manifest))
    channel.node()
    refused(channel, "WRONG_STATE", "node", channel.release(request, manifest))


def test_a_nodes_new_certificate_keeps_its_approvals(channel: Channel) -> None:
    request, manifest = channel.approved()
    version = channel.register(digests=(OTHER_DIGEST,))
    channel.call(CUSTODIAN, "ConfirmNode", node=LAB_NODE, version=version)
    assert channel.call(OWNER, "LogRelease", **channel.release(request, manifest))


def test_an_approval_holds_for_its_studies_only(channel: Channel) -> None:
    request, _ = channel.approved()
    other = channel.anchor(study=OTHER_STUDY)
    refused(channel, "NOT_PERMITTED", "study", channel.release(request, other, study=OTHER_STUDY))
    refused(channel, "INVALID", "anchors", channel.release(request, other))


def test_an_anchor_that_does_not_exist_is_not_found(channel: Channel) -> None:
    request, manifest = channel.approved()
    refused(channel, "NOT_FOUND", "anchors", channel.release(request, manifest, cid("invented")))


def test_what_was_anchored_after_the_approval_is_not_covered(channel: Channel) -> None:
    """Also within the same second: commits are ordered, not times."""
    request, before = channel.approved()
    after = channel.anchor()
    refused(channel, "WRONG_STATE", "anchors", channel.release(request, before, after))
    assert channel.call(OWNER, "LogRelease", **channel.release(request, before))


def test_what_was_anchored_between_the_two_approvals_is_covered(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    channel.approve(request, by=(OWNER,))
    between = channel.anchor()
    channel.approve(request, by=(CUSTODIAN,))
    assert channel.call(OWNER, "LogRelease", **channel.release(request, between))


def test_a_future_approval_covers_later_anchors(channel: Channel) -> None:
    request, before = channel.approved(future=True)
    assert channel.call(OWNER, "LogRelease", **channel.release(request, before, channel.anchor()))


def test_an_insiders_second_anchor_is_not_covered_by_the_first_ones_approval(channel: Channel) -> None:
    """A manifest with other records for the same study, anchored after owner and custodian approved."""
    request, honest = channel.approved()
    forged = channel.anchor(root=OTHER_DIGEST, count=1)
    refused(channel, "WRONG_STATE", "anchors", channel.release(request, forged))
    assert [row["manifestCid"] for row in channel.ask("AnchorsOfStudy", study=STUDY)] == [honest, forged]


def test_only_stored_anchors_where_the_policy_asks(new_channel: Callable[..., Channel]) -> None:
    channel = new_channel(require_stored=True).init()
    request, manifest = channel.approved()
    refused(channel, "WRONG_STATE", "stored", channel.release(request, manifest))
    channel.call(CUSTODIAN, "ConfirmStored", manifestCid=manifest)
    assert channel.call(OWNER, "LogRelease", **channel.release(request, manifest))


def test_a_gate_that_did_not_see_the_flag_is_refused(channel: Channel) -> None:
    request, manifest = channel.approved()
    flag = {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": manifest, "observed": DIGEST, "what": []}
    channel.call(CUSTODIAN, "FlagTampered", **flag)
    refused(channel, "WRONG_STATE", "standingVersion", channel.release(request, manifest))
    refused(channel, "WRONG_STATE", "standingVersion", channel.release(request, manifest, standingVersion=2))
    assert channel.call(OWNER, "LogRelease", **channel.release(request, manifest, standingVersion=1))


def test_a_study_in_erasure_is_not_released(channel: Channel) -> None:
    request, manifest = channel.approved()
    version = channel.erase_requested()
    refused(channel, "WRONG_STATE", "requested", channel.release(request, manifest, standingVersion=version))
    assert channel.ask("CheckAccess", study=STUDY, node=LAB_NODE)["reason"] == "withdrawn"
    assert channel.ask("ApprovedStudies", node=LAB_NODE)[0]["studies"] == []
    channel.erased()
    refused(channel, "WRONG_STATE", "erased", channel.release(request, manifest, standingVersion=version))


def test_a_cancelled_erasure_gives_the_study_back_to_gates_that_ask_again(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.erase_requested()
    channel.call(CUSTODIAN, "CancelErase", study=STUDY)
    refused(channel, "WRONG_STATE", "standingVersion", channel.release(request, manifest))
    assert channel.call(OWNER, "LogRelease", **channel.release(request, manifest, standingVersion=2))


def test_a_renewal_is_a_new_release(channel: Channel) -> None:
    request, manifest = channel.approved()
    first = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))
    channel.wait(50)
    renewed = channel.call(OWNER, "LogRelease", **channel.release(request, manifest, renews=first["release"]))
    assert renewed["release"] != first["release"]
    assert renewed["leaseEnd"] == channel.now + 60


def test_a_renewal_is_of_the_same_request_and_organisation(channel: Channel) -> None:
    request, manifest = channel.approved()
    other = channel.request()
    channel.approve(other)
    first = channel.call(CUSTODIAN, "LogRelease", **channel.release(request, manifest))["release"]
    refused(channel, "INVALID", "renews", channel.release(request, manifest, renews=first))
    mine = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"]
    refused(channel, "INVALID", "renews", channel.release(other, manifest, renews=mine))
    refused(channel, "NOT_FOUND", "renews", channel.release(request, manifest, renews=UNKNOWN))


def test_a_renewal_after_the_revocation_is_refused(channel: Channel) -> None:
    request, manifest = channel.approved()
    first = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"]
    channel.call(CUSTODIAN, "Revoke", id=request, reason="breach")
    refused(channel, "WRONG_STATE", "revoked", channel.release(request, manifest, renews=first))

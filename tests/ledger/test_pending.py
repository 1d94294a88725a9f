"""What waits for the other party, and its cancellation."""

import pytest

from tests.ledger.channel import CUSTODIAN, INSTANCE, OTHER_STUDY, OWNER, STUDY, Channel, policy

UNKNOWN = b"\x01" * 32


def supersession(channel: Channel) -> bytes:
    args = {"study": STUDY, "instance": INSTANCE, "reason": "quality"}
    manifests = {"oldManifest": channel.anchor(), "newManifest": channel.anchor()}
    return bytes(channel.call(OWNER, "Supersede", **args, **manifests)["id"])


def proposal(channel: Channel, lease_s: int = 30) -> bytes:
    return bytes(channel.call(OWNER, "ProposePolicy", policy=policy(lease_s=lease_s))["id"])


def test_what_waits_for_the_other_party_is_listed(channel: Channel) -> None:
    policies = sorted(proposal(channel, lease) for lease in (10, 20))
    supersessions = sorted(supersession(channel) for _ in range(2))
    for study in (STUDY, OTHER_STUDY):
        channel.erase_requested(study)
    shown = channel.ask("Pending")
    assert [row["id"] for row in shown[:4]] == [*policies, *supersessions]
    assert [row["study"] for row in shown[4:]] == sorted((STUDY, OTHER_STUDY))
    assert [row["kind"] for row in shown] == ["policy"] * 2 + ["supersession"] * 2 + ["erasure"] * 2
    assert shown[0]["record"]["policy"]["lease_s"] in (10, 20)
    assert shown[2]["record"]["instance"] == INSTANCE
    assert shown[4]["record"]["organisation"] == OWNER
    assert channel.ask("Pending", offset=1, limit=4) == shown[1:5]


def test_what_is_decided_waits_no_more(channel: Channel) -> None:
    confirmed, void = proposal(channel, 10), proposal(channel, 20)
    done, cancelled = supersession(channel), supersession(channel)
    channel.erase_requested()
    channel.call(CUSTODIAN, "ConfirmPolicy", id=confirmed)
    channel.call(CUSTODIAN, "ConfirmSupersede", id=done)
    channel.call(CUSTODIAN, "Cancel", id=cancelled)
    channel.call(CUSTODIAN, "CancelErase", study=STUDY)
    assert channel.ask("Pending") == []
    assert void != confirmed


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_either_party_cancels_and_the_other_cannot_again(channel: Channel, organisation: str) -> None:
    other = CUSTODIAN if organisation == OWNER else OWNER
    for pending in (proposal(channel), supersession(channel)):
        channel.repeats(organisation, "Cancel", id=pending)
        channel.refuses("WRONG_STATE", "cancelled", other, "Cancel", id=pending)


def test_what_was_confirmed_is_not_cancelled(channel: Channel) -> None:
    channel.call(CUSTODIAN, "ConfirmPolicy", id=(confirmed := proposal(channel)))
    channel.call(CUSTODIAN, "ConfirmSupersede", id=(done := supersession(channel)))
    for pending in (confirmed, done):
        channel.refuses("WRONG_STATE", "confirmed", OWNER, "Cancel", id=pending)
    channel.refuses("NOT_FOUND", "id", OWNER, "Cancel", id=UNKNOWN)


def test_a_new_id_may_follow_a_cancellation(channel: Channel) -> None:
    first = proposal(channel)
    channel.call(OWNER, "Cancel", id=first)
    second = proposal(channel)
    assert channel.call(CUSTODIAN, "ConfirmPolicy", id=second) == {"version": 1}

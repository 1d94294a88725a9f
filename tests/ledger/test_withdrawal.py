"""Withdrawal: the owner takes from research, both give back."""

from typing import Any

import pytest

from tests.ledger.channel import CUSTODIAN, INSTANCE, OTHER_STUDY, OWNER, STUDY, Channel

UNKNOWN = b"\x01" * 32


def withdraw(channel: Channel, **over: Any) -> bytes:
    return bytes(channel.call(OWNER, "Withdraw", **{"study": STUDY, "reason": "113037", **over})["id"])


def withdrawn(channel: Channel) -> Any:
    return channel.ask("StandingOf", study=STUDY)["withdrawn"]


def test_a_study_or_some_of_its_instances_are_withdrawn(channel: Channel) -> None:
    whole, some = withdraw(channel), withdraw(channel, instances=[INSTANCE])
    rows = [{"id": whole, "instances": None}, {"id": some, "instances": [INSTANCE]}]
    assert withdrawn(channel) == sorted(rows, key=lambda row: row["id"])
    assert channel.ask("StandingOf", study=STUDY)["version"] == 2
    assert channel.ask("StandingOf", study=OTHER_STUDY)["withdrawn"] == []


def test_a_withdrawal_sent_again_is_one(channel: Channel) -> None:
    channel.repeats(OWNER, "Withdraw", study=STUDY, reason="113037")
    assert len(withdrawn(channel)) == 1


@pytest.mark.parametrize("order", [(OWNER, CUSTODIAN), (CUSTODIAN, OWNER)])
def test_research_has_it_back_only_when_both_say_so(channel: Channel, order: tuple[str, str]) -> None:
    withdrawal = withdraw(channel)
    channel.repeats(order[0], "Reinstate", id=withdrawal)
    assert len(withdrawn(channel)) == 1
    assert channel.call(order[1], "Reinstate", id=withdrawal) == {"state": "reinstated"}
    assert withdrawn(channel) == []
    assert channel.call(order[0], "Reinstate", id=withdrawal) == {"state": "withdrawn"}  # the first result
    channel.repeats(order[1], "Reinstate", id=withdrawal)


def test_one_reinstated_withdrawal_leaves_the_other(channel: Channel) -> None:
    first, second = withdraw(channel), withdraw(channel)
    for organisation in (OWNER, CUSTODIAN):
        channel.call(organisation, "Reinstate", id=first)
    assert [row["id"] for row in withdrawn(channel)] == [second]


def test_a_gate_that_did_not_see_the_withdrawal_is_refused(channel: Channel) -> None:
    request, manifest = channel.approved()
    withdraw(channel)
    release = channel.release(request, manifest)
    channel.refuses("WRONG_STATE", "standingVersion", OWNER, "LogRelease", **release)
    assert channel.call(OWNER, "LogRelease", **{**release, "standingVersion": 1})


def test_an_unknown_withdrawal_is_not_found(channel: Channel) -> None:
    channel.refuses("NOT_FOUND", "id", OWNER, "Reinstate", id=UNKNOWN)


def test_an_erased_study_is_neither_withdrawn_nor_reinstated(channel: Channel) -> None:
    withdrawal = withdraw(channel)
    channel.erase_requested()
    withdraw(channel)
    channel.erased()
    channel.refuses("WRONG_STATE", "erased", OWNER, "Withdraw", study=STUDY, reason="113037")
    channel.refuses("WRONG_STATE", "erased", CUSTODIAN, "Reinstate", id=withdrawal)

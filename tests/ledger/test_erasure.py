"""Erasure: one party asks, the other confirms after the grace time; final."""

from collections.abc import Callable

import pytest

from tests.ledger.channel import CUSTODIAN, DAY, LAB, OTHER_LAB, OWNER, STUDY, Channel

PARTIES = [(OWNER, CUSTODIAN), (CUSTODIAN, OWNER)]
GRACE = 7 * DAY


def erasure(channel: Channel) -> str:
    return str(channel.ask("StandingOf", study=STUDY)["erased"])


@pytest.mark.parametrize(("asks", "confirms"), PARTIES)
def test_the_other_party_confirms_after_the_grace_time(channel: Channel, asks: str, confirms: str) -> None:
    channel.repeats(asks, "RequestErase", study=STUDY)
    channel.wait(GRACE - 2)  # a second has gone since the request
    channel.refuses("WRONG_STATE", "grace", confirms, "ConfirmErase", study=STUDY)
    channel.wait(1)
    channel.refuses("NOT_PERMITTED", "study", asks, "ConfirmErase", study=STUDY)
    assert erasure(channel) == "requested"
    channel.repeats(confirms, "ConfirmErase", study=STUDY)
    assert erasure(channel) == "erased"


@pytest.mark.parametrize(("asks", "other"), PARTIES)
def test_a_standing_request_is_one(channel: Channel, asks: str, other: str) -> None:
    first = channel.call(asks, "RequestErase", study=STUDY)
    channel.refuses("WRONG_STATE", "requested", other, "RequestErase", study=STUDY)
    assert channel.call(asks, "RequestErase", study=STUDY) == first == {"version": 1}
    channel.wait(GRACE)
    channel.call(other, "ConfirmErase", study=STUDY)
    assert channel.call(asks, "RequestErase", study=STUDY) == first
    channel.refuses("WRONG_STATE", "erased", other, "RequestErase", study=STUDY)


@pytest.mark.parametrize("cancels", [OWNER, CUSTODIAN])
def test_either_party_cancels_a_request(channel: Channel, cancels: str) -> None:
    channel.erase_requested()
    other = CUSTODIAN if cancels == OWNER else OWNER
    channel.repeats(cancels, "CancelErase", study=STUDY)
    assert erasure(channel) == "none"
    channel.refuses("WRONG_STATE", "none", other, "CancelErase", study=STUDY)
    channel.refuses("WRONG_STATE", "none", CUSTODIAN, "ConfirmErase", study=STUDY)


def test_the_grace_time_of_a_new_request_starts_anew(channel: Channel) -> None:
    channel.erase_requested()
    channel.wait(GRACE)
    channel.call(OWNER, "CancelErase", study=STUDY)
    assert channel.erase_requested() == 3
    channel.refuses("WRONG_STATE", "grace", CUSTODIAN, "ConfirmErase", study=STUDY)
    assert channel.call(OWNER, "CancelErase", study=STUDY) == {"version": 4}


def test_without_a_request_there_is_nothing_to_cancel_confirm_or_carry_out(channel: Channel) -> None:
    for function in ("CancelErase", "ConfirmErase", "ErasureDone"):
        channel.refuses("WRONG_STATE", "none", OWNER, function, study=STUDY)


def test_an_erased_study_stays_erased(channel: Channel) -> None:
    channel.erase_requested()
    channel.refuses("WRONG_STATE", "requested", LAB, "ErasureDone", study=STUDY)
    channel.erased()
    for organisation in (OWNER, CUSTODIAN):
        channel.refuses("WRONG_STATE", "erased", organisation, "CancelErase", study=STUDY)


def test_every_organisation_says_for_itself_that_it_erased(channel: Channel) -> None:
    channel.erase_requested()
    channel.erased()
    for organisation in (OWNER, CUSTODIAN, LAB, OTHER_LAB):
        channel.repeats(organisation, "ErasureDone", study=STUDY)
    done = [event for event in channel.ask("Audit", study=STUDY) if event["function"] == "ErasureDone"]
    assert len({event["by"]["organisation"] for event in done}) == 4


def test_the_grace_time_is_the_policys(new_channel: Callable[..., Channel]) -> None:
    channel = new_channel(erase_grace_s=0).init()
    channel.erase_requested()
    channel.call(CUSTODIAN, "ConfirmErase", study=STUDY)
    assert erasure(channel) == "erased"


def test_a_request_naming_an_erased_study_is_not_approved(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    channel.erase_requested()
    channel.approve(request, by=(OWNER,), seconds=20 * DAY)
    channel.erased()
    until = channel.now + DAY
    channel.refuses("WRONG_STATE", "erased", CUSTODIAN, "Approve", id=request, until=until, release="identified")

"""What became of releases and refusals: outcomes, denials, the recipient's own word."""

from typing import Any

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    INSTANCE,
    LAB,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_LAB,
    OWNER,
    STUDY,
    Channel,
)

UNKNOWN = b"\x01" * 32


def test_an_outcome_is_told_once_by_who_released(channel: Channel) -> None:
    request, manifest = channel.approved()
    release = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"]
    outcome = {"release": release, "sent": 2, "withheld": 1, "bitmapDigest": DIGEST}
    channel.refuses("NOT_PERMITTED", "release", CUSTODIAN, "LogOutcome", **outcome)
    channel.refuses("NOT_FOUND", "release", OWNER, "LogOutcome", **{**outcome, "release": UNKNOWN})
    channel.refuses("INVALID", "sent", OWNER, "LogOutcome", **{**outcome, "sent": 3})
    channel.repeats(OWNER, "LogOutcome", **outcome)
    channel.refuses("WRONG_STATE", "outcome", OWNER, "LogOutcome", **{**outcome, "sent": 1})


def denials(**over: Any) -> dict[str, Any]:
    node = {"organisation": OWNER, "aeTitle": "PACS"}
    return {"reportingNode": node, "peer": LAB_NODE, "reason": "no approval", "seq": 5, "count": 2, **over}


def test_denials_are_counted_with_rising_numbers(channel: Channel) -> None:
    channel.register()
    channel.repeats(OWNER, "LogDenials", **denials())
    channel.refuses("CONFLICT", "seq", OWNER, "LogDenials", **denials(count=3))
    channel.refuses("CONFLICT", "seq", OWNER, "LogDenials", **denials(seq=4))
    channel.repeats(OWNER, "LogDenials", **denials(seq=6, reason="approval expired"))


def test_denials_are_of_a_registered_peer_or_an_unregistered_one(channel: Channel) -> None:
    channel.refuses("NOT_FOUND", "peer", OWNER, "LogDenials", **denials())
    channel.refuses("INVALID", "peer", OWNER, "LogDenials", **denials(unregistered=True))
    nameless = {name: value for name, value in denials().items() if name != "peer"}
    channel.refuses("INVALID", "peer", OWNER, "LogDenials", **nameless)
    channel.repeats(OWNER, "LogDenials", **nameless, unregistered=True)


def test_denials_are_reported_for_ones_own_node(channel: Channel) -> None:
    channel.register()
    channel.refuses("NOT_PERMITTED", "reportingNode", CUSTODIAN, "LogDenials", **denials())


RETRIEVAL = {"outcome": "complete"}
TAMPER = {"instance": INSTANCE, "observed": DIGEST}


@pytest.mark.parametrize(
    ("function", "said", "otherwise"),
    [
        ("LogRetrieval", RETRIEVAL, {"outcome": "failed"}),
        ("ReportTamper", TAMPER, {"observed": OTHER_DIGEST}),
    ],
)
def test_a_recipient_tells_once_and_for_itself(
    channel: Channel, function: str, said: dict[str, Any], otherwise: dict[str, Any]
) -> None:
    request, manifest = channel.approved()
    release = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"]
    channel.refuses("NOT_FOUND", "release", LAB, function, release=UNKNOWN, **said)
    channel.refuses("NOT_PERMITTED", "release", OTHER_LAB, function, release=release, **said)
    before = channel.ask("StandingOf", study=STUDY)
    channel.repeats(LAB, function, release=release, **said)
    channel.refuses("CONFLICT", next(iter(otherwise)), LAB, function, release=release, **{**said, **otherwise})
    assert channel.ask("StandingOf", study=STUDY) == before
    assert function in [event["function"] for event in channel.ask("Audit", study=STUDY)]


def test_tampering_is_reported_instance_by_instance(channel: Channel) -> None:
    request, manifest = channel.approved()
    release = channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"]
    for instance in (INSTANCE, OTHER_DIGEST):
        channel.call(LAB, "ReportTamper", release=release, **{**TAMPER, "instance": instance})
    reports = [event for event in channel.ask("Audit", study=STUDY) if event["function"] == "ReportTamper"]
    assert [event["args"]["instance"] for event in reports] == [INSTANCE, OTHER_DIGEST]

"""Queries: advice for C-FIND and screens, lists in parts, the trail."""

import pytest

from orthanc_ledger.errors import ContractError
from tests.ledger.channel import (
    CUSTODIAN,
    DAY,
    LAB,
    LAB_NODE,
    MR_IMAGE,
    OTHER_LAB,
    OTHER_NODE,
    OTHER_STUDY,
    OWNER,
    START,
    STUDY,
    Channel,
    cid,
)


def advice(channel: Channel, study: bytes = STUDY, node: dict[str, str] = LAB_NODE) -> tuple[bool, str | None]:
    answer = channel.ask("CheckAccess", study=study, node=node)
    return answer["permitted"], answer["reason"]


def test_access_is_advised_as_a_release_would_be_decided(channel: Channel) -> None:
    assert advice(channel) == (False, "no approval")
    request, _ = channel.approved()
    assert advice(channel) == (True, None)
    assert channel.ask("CheckAccess", study=STUDY, node=LAB_NODE)["request"] == request
    assert advice(channel, study=OTHER_STUDY) == (False, "no approval")
    assert advice(channel, node=OTHER_NODE) == (False, "no approval")
    channel.wait(10 * DAY)
    assert advice(channel) == (False, "approval expired")


def test_a_revoked_node_is_advised_against(channel: Channel) -> None:
    channel.approved()
    channel.call(LAB, "RevokeNode", node=LAB_NODE)
    assert advice(channel) == (False, "no approval")
    assert channel.ask("ApprovedStudies", node=LAB_NODE) == []


def test_approved_studies_are_those_of_running_approvals_of_the_node(channel: Channel) -> None:
    channel.node(OTHER_LAB)
    request, _ = channel.approved()
    channel.request()
    shown = channel.ask("ApprovedStudies", node=LAB_NODE)
    covered = shown[0].pop("coveredUntil")
    assert shown == [
        {
            "request": request,
            "studies": [STUDY],
            "dataset": None,
            "sopClasses": [MR_IMAGE],
            "release": "identified",
            "until": channel.now + 10 * DAY,
            "future": False,
        }
    ]
    assert channel.ask("AnchorsOfStudy", study=STUDY)[0]["number"] < covered[STUDY.hex()]
    channel.anchor()
    assert channel.ask("AnchorsOfStudy", study=STUDY)[1]["number"] == covered[STUDY.hex()]
    assert channel.ask("ApprovedStudies", node=OTHER_NODE) == []
    channel.wait(10 * DAY)
    assert channel.ask("ApprovedStudies", node=LAB_NODE) == []


def test_a_future_approval_covers_without_end(channel: Channel) -> None:
    channel.approved(future=True)
    assert channel.ask("ApprovedStudies", node=LAB_NODE)[0]["coveredUntil"] is None


def test_a_node_whose_title_begins_like_anothers_is_not_mixed_up(channel: Channel) -> None:
    longer = channel.node(LAB, "LAB1/X")
    request, _ = channel.approved()
    channel.approve(channel.request(node=longer))
    assert [row["request"] for row in channel.ask("ApprovedStudies", node=LAB_NODE)] == [request]
    assert len(channel.ask("ApprovedStudies", node=longer)) == 1


@pytest.mark.parametrize(
    ("query", "args", "field"),
    [("GetAnchor", {"manifestCid": cid("none")}, "manifestCid"), ("GetRequest", {"id": b"\x01" * 32}, "id")],
)
def test_what_does_not_exist_is_not_found(channel: Channel, query: str, args: dict[str, object], field: str) -> None:
    with pytest.raises(ContractError, match=f"NOT_FOUND {field}"):
        channel.ask(query, **args)


def test_every_state_change_is_in_the_trail(channel: Channel) -> None:
    request, manifest = channel.approved()
    channel.call(OWNER, "LogRelease", **channel.release(request, manifest))
    story = ["InitPolicy", "Anchor", "RegisterNode", "ConfirmNode", "RequestAccess", "Approve", "Approve", "LogRelease"]
    assert [event["function"] for event in channel.ask("Audit")] == story
    of_study = channel.ask("Audit", study=STUDY)
    assert [event["function"] for event in of_study] == ["Anchor", "RequestAccess", "Approve", "Approve", "LogRelease"]
    assert of_study[0]["by"]["organisation"] == OWNER
    assert channel.ask("Audit", study=OTHER_STUDY) == []


def test_the_trail_by_organisation_and_time(channel: Channel) -> None:
    channel.approved()
    channel.wait(100)
    late = channel.anchor()
    by_custodian = channel.ask("Audit", organisation=CUSTODIAN)
    assert [event["function"] for event in by_custodian] == ["ConfirmNode", "Approve"]
    assert [event["args"]["manifestCid"] for event in channel.ask("Audit", from_=START + 100)] == [late]
    assert len(channel.ask("Audit", until=START + 100)) == len(channel.ask("Audit")) - 1
    assert channel.ask("Audit", offset=1, limit=2) == channel.ask("Audit")[1:3]


def test_the_history_of_a_key_shows_every_value(channel: Channel) -> None:
    request, _ = channel.approved()
    channel.wait(5)
    channel.call(OWNER, "Revoke", id=request, reason="completed")
    history = channel.ask("HistoryOf", key=f"request/{request.hex()}")
    assert [row["value"]["state"] for row in history] == ["open", "approved", "revoked"]
    assert [row["time"] for row in history] == [START, START, START + 5]
    assert channel.ask("HistoryOf", key="request/none") == []


def test_an_event_is_named_like_its_function(memory: Channel) -> None:
    memory.anchor()
    event = memory.host.last.event
    assert event.name == "Anchor"
    assert event.payload["args"]["study"] == STUDY
    assert event.payload["by"]["assurance"] == "person"

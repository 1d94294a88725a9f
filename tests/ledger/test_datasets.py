"""Datasets: versions of a list that lives off the ledger, requests on one, releases that prove their study."""

from typing import Any

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DATASET,
    DAY,
    DIGEST,
    LAB,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
)

NONCE = b"n" * 16
THIRD = b"t" * 16
LISTED = (STUDY, OTHER_STUDY)
VERSION_1 = {"id": DATASET, "version": 1}


def register(channel: Channel, *studies: bytes, **over: Any) -> None:
    channel.call(OWNER, "RegisterDataset", **channel.listed(*studies, **over))


def approved(channel: Channel) -> bytes:
    """An approved request on a dataset of two studies."""
    register(channel, *LISTED)
    channel.node()
    request = channel.request_dataset()
    channel.approve(request)
    return request


def test_a_version_is_registered_once(channel: Channel) -> None:
    channel.repeats(CUSTODIAN, "RegisterDataset", **channel.listed(STUDY))
    shown = channel.ask("Datasets")
    assert [(row["id"], row["version"], row["count"], row["state"]) for row in shown] == [(DATASET, 1, 1, "registered")]


@pytest.mark.parametrize(
    ("name", "other"), [("root", OTHER_DIGEST), ("count", 5), ("descriptorDigest", OTHER_DIGEST), ("duo", [])]
)
def test_a_registered_version_cannot_get_other_content(channel: Channel, name: str, other: object) -> None:
    register(channel, STUDY)
    channel.refuses("CONFLICT", name, OWNER, "RegisterDataset", **channel.listed(STUDY, **{name: other}))


def test_versions_follow_without_a_gap_and_belong_to_who_registered_the_first(channel: Channel) -> None:
    channel.refuses("INVALID", "version", OWNER, "RegisterDataset", **channel.listed(STUDY, version=2))
    register(channel, STUDY)
    channel.refuses("INVALID", "version", OWNER, "RegisterDataset", **channel.listed(STUDY, version=3))
    channel.refuses("NOT_PERMITTED", "id", CUSTODIAN, "RegisterDataset", **channel.listed(STUDY, version=2))
    channel.refuses("NOT_PERMITTED", "id", CUSTODIAN, "RegisterDataset", **channel.listed(STUDY))
    for version in range(2, 12):
        register(channel, STUDY, version=version)
    assert [row["version"] for row in channel.ask("Datasets")] == list(range(1, 12))
    assert channel.ask("Datasets", offset=1, limit=2) == channel.ask("Datasets")[1:3]


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_either_party_withdraws_a_version_for_good(channel: Channel, organisation: str) -> None:
    register(channel, STUDY)
    register(channel, STUDY, version=2)
    channel.repeats(organisation, "WithdrawDataset", **VERSION_1)
    assert [row["state"] for row in channel.ask("Datasets")] == ["withdrawn", "registered"]
    register(channel, STUDY)  # the same again: a repeat, and nothing more
    assert channel.ask("Datasets")[0]["state"] == "withdrawn"
    channel.refuses("NOT_FOUND", "id", organisation, "WithdrawDataset", id=DATASET, version=3)


@pytest.mark.parametrize(
    "subject",
    [
        {},
        {"studies": [STUDY], "dataset": DATASET, "version": 1},
        {"studies": [STUDY], "version": 1},
        {"dataset": DATASET},
        {"version": 1},
    ],
)
def test_a_request_is_on_studies_or_on_one_version_of_a_dataset(channel: Channel, subject: dict[str, Any]) -> None:
    register(channel, STUDY)
    channel.node()
    rest = {name: value for name, value in channel.access().items() if name != "studies"}
    channel.refuses("INVALID", "dataset", LAB, "RequestAccess", nonce=NONCE, **rest, **subject)


def test_a_request_is_on_a_version_that_is_there_and_not_withdrawn(channel: Channel) -> None:
    register(channel, STUDY)
    channel.node()
    rest = {name: value for name, value in channel.access(dataset=DATASET).items() if name != "studies"}
    channel.refuses("NOT_FOUND", "dataset", LAB, "RequestAccess", nonce=NONCE, version=2, **rest)
    channel.call(OWNER, "WithdrawDataset", **VERSION_1)
    channel.refuses("WRONG_STATE", "dataset", LAB, "RequestAccess", nonce=NONCE, version=1, **rest)


def test_a_release_proves_its_study(channel: Channel) -> None:
    manifest = channel.anchor()
    request = approved(channel)
    release = channel.release(request, manifest)
    channel.refuses("INVALID", "proof", OWNER, "LogRelease", nonce=NONCE, **release)
    assert channel.call(OWNER, "LogRelease", proof=channel.proof(STUDY, *LISTED), **release)


def test_a_release_of_a_named_study_has_no_proof(channel: Channel) -> None:
    request, manifest = channel.approved()
    release = {**channel.release(request, manifest), "proof": channel.proof(STUDY, *LISTED)}
    channel.refuses("INVALID", "proof", OWNER, "LogRelease", nonce=NONCE, **release)


def test_no_proof_leads_to_a_study_outside_the_dataset(channel: Channel) -> None:
    outside = channel.anchor(study=THIRD)
    request = approved(channel)
    proof = channel.proof(STUDY, *LISTED)
    for forged in (
        proof,
        {**proof, "index": 0},
        {**proof, "index": 2},
        {"index": 0, "path": []},
        {**proof, "path": [*proof["path"], DIGEST]},
        channel.proof(THIRD, THIRD, *LISTED),
    ):
        release = channel.release(request, outside, study=THIRD, proof=forged)
        channel.refuses("NOT_PERMITTED", "study", OWNER, "LogRelease", nonce=NONCE, **release)


def test_a_later_version_does_not_widen_an_approval(channel: Channel) -> None:
    request = approved(channel)
    manifest = channel.anchor(study=THIRD)
    register(channel, THIRD, *LISTED, version=2)
    release = channel.release(request, manifest, study=THIRD, proof=channel.proof(THIRD, THIRD, *LISTED))
    channel.refuses("NOT_PERMITTED", "study", OWNER, "LogRelease", nonce=NONCE, **release)


def test_a_withdrawn_dataset_ends_its_approvals_and_a_request_waiting(channel: Channel) -> None:
    manifest = channel.anchor()
    request = approved(channel)
    waiting = channel.request_dataset()
    channel.call(CUSTODIAN, "WithdrawDataset", **VERSION_1)
    release = channel.release(request, manifest, proof=channel.proof(STUDY, *LISTED))
    channel.refuses("WRONG_STATE", "dataset", OWNER, "LogRelease", nonce=NONCE, **release)
    until = channel.now + DAY
    channel.refuses("WRONG_STATE", "dataset", OWNER, "Approve", id=waiting, until=until, release="identified")
    assert channel.ask("ApprovedStudies", node=LAB_NODE) == []


def test_what_is_anchored_after_the_approval_is_not_covered_by_the_dataset_either(channel: Channel) -> None:
    request = approved(channel)
    release = channel.release(request, channel.anchor(), proof=channel.proof(STUDY, *LISTED))
    channel.refuses("WRONG_STATE", "anchors", OWNER, "LogRelease", nonce=NONCE, **release)


def test_readers_learn_the_dataset_and_prove_its_studies(channel: Channel) -> None:
    request = approved(channel)
    row = channel.ask("ApprovedStudies", node=LAB_NODE)[0]
    assert (row["request"], row["studies"], row["dataset"]) == (request, None, VERSION_1)
    asked = {"study": STUDY, "node": LAB_NODE}
    assert channel.ask("CheckAccess", **asked)["reason"] == "no approval"
    proof = channel.proof(STUDY, *LISTED)
    assert channel.ask("CheckAccess", proof=proof, **asked)["permitted"] is True
    assert channel.ask("CheckAccess", proof=proof, **{**asked, "study": THIRD})["permitted"] is False
    channel.call(OWNER, "WithdrawDataset", **VERSION_1)
    assert channel.ask("CheckAccess", proof=proof, **asked)["reason"] == "no approval"

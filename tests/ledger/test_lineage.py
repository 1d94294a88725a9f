"""Lineage: training runs on one's own releases, models of one's own runs."""

from tests.ledger.channel import DATASET, DIGEST, LAB, OTHER_LAB, OTHER_STUDY, OWNER, STUDY, Channel

NONCE = b"n" * 16
UNKNOWN = b"\x01" * 32
ON_DATASET = {"dataset": DATASET, "version": 1}


def released(channel: Channel) -> bytes:
    """A release of a named study to Lab."""
    request, manifest = channel.approved()
    return bytes(channel.call(OWNER, "LogRelease", **channel.release(request, manifest))["release"])


def released_of_dataset(channel: Channel) -> bytes:
    """A release to Lab under a request on a dataset."""
    manifest = channel.anchor()
    channel.call(OWNER, "RegisterDataset", **channel.listed(STUDY, OTHER_STUDY))
    channel.node()
    request = channel.request_dataset()
    channel.approve(request)
    release = channel.release(request, manifest, proof=channel.proof(STUDY, STUDY, OTHER_STUDY))
    return bytes(channel.call(OWNER, "LogRelease", **release)["release"])


def test_a_run_on_ones_own_releases_is_registered_once(channel: Channel) -> None:
    channel.repeats(LAB, "RegisterTrainingRun", codeDigest=DIGEST, releases=[released(channel)])
    trail = [event["function"] for event in channel.ask("Audit", study=STUDY)]
    assert trail[-1] == "RegisterTrainingRun"


def test_a_run_names_releases_to_its_own_organisation(channel: Channel) -> None:
    own = {"codeDigest": DIGEST, "releases": [released(channel)]}
    channel.refuses("NOT_PERMITTED", "releases", OTHER_LAB, "RegisterTrainingRun", nonce=NONCE, **own)
    unknown = {**own, "releases": [*own["releases"], UNKNOWN]}
    channel.refuses("NOT_FOUND", "releases", LAB, "RegisterTrainingRun", nonce=NONCE, **unknown)


def test_a_run_on_a_dataset_names_only_releases_of_that_version(channel: Channel) -> None:
    of_dataset = released_of_dataset(channel)
    run = {"codeDigest": DIGEST, "releases": [of_dataset]}
    channel.call(OWNER, "RegisterDataset", **channel.listed(STUDY, version=2))
    assert channel.call(LAB, "RegisterTrainingRun", **run, **ON_DATASET)
    assert channel.call(LAB, "RegisterTrainingRun", **run)
    channel.refuses("INVALID", "releases", LAB, "RegisterTrainingRun", nonce=NONCE, **run, dataset=DATASET, version=2)
    channel.refuses("NOT_FOUND", "dataset", LAB, "RegisterTrainingRun", nonce=NONCE, **run, dataset=DATASET, version=3)
    for half in ({"dataset": DATASET}, {"version": 1}):
        channel.refuses("INVALID", "dataset", LAB, "RegisterTrainingRun", nonce=NONCE, **run, **half)
    mixed = {**run, "releases": [of_dataset, released(channel)]}
    channel.refuses("INVALID", "releases", LAB, "RegisterTrainingRun", nonce=NONCE, **mixed, **ON_DATASET)


def test_a_model_comes_of_a_run_of_its_organisation(channel: Channel) -> None:
    run = channel.call(LAB, "RegisterTrainingRun", codeDigest=DIGEST, releases=[released(channel)])["id"]
    model = {"digest": DIGEST, "run": run, "metricsDigest": DIGEST}
    channel.repeats(LAB, "RegisterModel", **model)
    channel.refuses("NOT_PERMITTED", "run", OTHER_LAB, "RegisterModel", nonce=NONCE, **model)
    channel.refuses("NOT_FOUND", "run", LAB, "RegisterModel", nonce=NONCE, **{**model, "run": UNKNOWN})

"""Datasets: their versions, and what a proof proves."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET,
    DATASET_REQUEST,
    LAB,
    LEAVES,
    ON_DATASET,
    OWNER,
    STUDY,
    STUDY2,
    TOKENS,
    Args,
    approve,
    digest,
    proof,
    register_dataset,
    release,
    request,
)
from tests.second.ledger.openings import after
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _datasets(),
        _dataset_of_another(),
        _proofs(),
        _dataset_of_one(),
    ]


def _datasets() -> Story:
    story = after("dataset approved", "a dataset has versions, and a request is on one of them")
    second = register_dataset(2, root=digest("grown"), count=6)
    story.refused("INVALID version", OWNER, "RegisterDataset", register_dataset(3))
    story.does(OWNER, "RegisterDataset", second)
    story.repeats(OWNER, "RegisterDataset", register_dataset())
    story.repeats(OWNER, "RegisterDataset", second)
    for differing, other in (
        ("root", register_dataset(root=digest("other"))),
        ("count", register_dataset(count=6)),
        ("descriptorDigest", register_dataset(descriptorDigest=digest("other"))),
        ("duo", register_dataset(duo=["DUO:0000006"])),
        ("root", register_dataset(root=digest("other"), count=6)),
    ):
        story.refused(f"CONFLICT {differing}", OWNER, "RegisterDataset", other)
    story.does(OWNER, "LogRelease", release(DATASET_REQUEST, proof=proof(STUDY)))
    # Withdrawing one version leaves the other, and is final for what was approved.
    story.does(CUSTODIAN, "WithdrawDataset", {"id": DATASET, "version": 1})
    story.refused("WRONG_STATE dataset", OWNER, "LogRelease", release(DATASET_REQUEST, proof=proof(STUDY), count=2))
    story.refused("WRONG_STATE dataset", LAB, "RequestAccess", request(on=ON_DATASET), nonce=1)
    story.repeats(LAB, "RequestAccess", request(on=ON_DATASET))
    story.refused("NOT_FOUND dataset", LAB, "RequestAccess", request(on={"dataset": DATASET, "version": 3}))
    story.does(LAB, "RequestAccess", request(on={"dataset": DATASET, "version": 2}))
    story.refused("NOT_FOUND id", OWNER, "WithdrawDataset", {"id": DATASET, "version": 3})
    story.repeats(OWNER, "RegisterDataset", register_dataset())
    assert [(one["version"], one["state"]) for one in story.asks("Datasets")] == [(1, "withdrawn"), (2, "registered")]
    return story


def _dataset_of_another() -> Story:
    story = after("dataset", "a dataset belongs to the organisation that registered its first version")
    story.refused("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", register_dataset())
    story.refused("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", register_dataset(2))
    story.refused("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", register_dataset(3))
    story.does(CUSTODIAN, "RegisterDataset", register_dataset(id=digest("another")[:16]))
    story.does(CUSTODIAN, "WithdrawDataset", {"id": DATASET, "version": 1})
    story.repeats(OWNER, "WithdrawDataset", {"id": DATASET, "version": 1})
    return story


def _proofs() -> Story:
    story = after("dataset approved", "a proof leads from its study to the root of the request's dataset")

    def refused(why: str, given: Args | None, study: bytes = STUDY) -> None:
        proven = {} if given is None else {"proof": given}
        story.refused(why, OWNER, "LogRelease", release(DATASET_REQUEST, study=study, **proven))

    right = proof(STUDY)
    for study in TOKENS:
        if study != STUDY:
            refused("NOT_PERMITTED study", right, study)
            refused("NOT_PERMITTED study", proof(study))
    refused("INVALID proof", None)
    refused("NOT_PERMITTED study", {"index": right["index"], "path": right["path"][:-1]})
    refused("NOT_PERMITTED study", {"index": right["index"], "path": [*right["path"], digest("more")]})
    refused("NOT_PERMITTED study", {"index": right["index"], "path": right["path"][::-1]})
    refused("NOT_PERMITTED study", {"index": right["index"], "path": []})
    for index in range(7):
        if index != right["index"]:
            refused("NOT_PERMITTED study", {"index": index, "path": right["path"]})
    # With a proof that holds, what is refused is the study that nobody anchored.
    for study in TOKENS:
        if study != STUDY:
            refused("INVALID anchors", proof(study), study)
    story.does(OWNER, "LogRelease", release(DATASET_REQUEST, proof=right))
    return story


def _dataset_of_one() -> Story:
    story = after("nodes confirmed", "the only study of a dataset is proven by an empty path")
    story.does(OWNER, "RegisterDataset", register_dataset(root=LEAVES[TOKENS.index(STUDY)], count=1))
    story.does(LAB, "RequestAccess", request(on=ON_DATASET))
    for by in (OWNER, CUSTODIAN):
        story.does(by, "Approve", approve(DATASET_REQUEST))
    for wrong in ({"index": 1, "path": []}, {"index": 0, "path": [digest("more")]}):
        story.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(DATASET_REQUEST, proof=wrong))
    given = {"proof": {"index": 0, "path": []}}
    story.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(DATASET_REQUEST, study=STUDY2, **given))
    story.does(OWNER, "LogRelease", release(DATASET_REQUEST, **given))
    return story

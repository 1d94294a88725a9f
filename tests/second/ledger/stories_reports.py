"""What is told afterwards: outcomes, denials, research's own word, lineage."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET_REQUEST,
    LAB,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    RELEASE,
    REQUEST,
    RUN,
    STUDY,
    UNKNOWN,
    denials,
    digest,
    id_of,
    model,
    node,
    outcome,
    proof,
    register_dataset,
    register_node,
    release,
    request,
    training_run,
)
from tests.second.ledger.openings import REVOCATION, TAMPERED, after, approved, numbered
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _outcomes(),
        _outcome_of_another(),
        _denials(),
        _research_words(),
        _lineage(),
        _lineage_of_a_dataset(),
    ]


def _outcomes() -> Story:
    story = after("released", "an outcome is the release's organisation's, said once")
    story.refused("INVALID sent", OWNER, "LogOutcome", outcome(sent=2, withheld=2))
    story.refused("INVALID sent", OWNER, "LogOutcome", outcome(sent=4))
    story.refused("NOT_FOUND release", OWNER, "LogOutcome", outcome(UNKNOWN, sent=4))
    story.refused("NOT_PERMITTED release", CUSTODIAN, "LogOutcome", outcome(sent=4))
    story.does(OWNER, "LogOutcome", outcome(sent=0, withheld=2))
    story.repeats(OWNER, "LogOutcome", outcome(sent=0, withheld=2), serial="7")
    story.refused("WRONG_STATE outcome", OWNER, "LogOutcome", outcome())
    story.refused("WRONG_STATE outcome", OWNER, "LogOutcome", outcome(sent=0, withheld=2, bitmapDigest=digest("b")))
    story.refused("INVALID sent", OWNER, "LogOutcome", outcome(sent=4))
    return story


def _outcome_of_another() -> Story:
    story = after("approved", "the custodian's release is reported by the custodian")
    story.does(CUSTODIAN, "LogRelease", release())
    number = id_of("LogRelease", release(), CUSTODIAN)
    story.refused("NOT_PERMITTED release", OWNER, "LogOutcome", outcome(number))
    story.does(CUSTODIAN, "LogOutcome", outcome(number))
    story.does(LAB, "LogRetrieval", {"release": number, "outcome": "partial"})
    return story


def _denials() -> Story:
    story = after("nodes confirmed", "denials are counted by their node, with a number that rises")
    lab = {"peer": node(LAB)}
    first, second = denials(OWNER, 7, **lab), denials(OWNER, 9, unregistered=True, reason="withheld: integrity")
    story.does(OWNER, "LogDenials", first)
    story.does(OWNER, "LogDenials", second)
    story.repeats(OWNER, "LogDenials", first)
    story.refused("CONFLICT seq", OWNER, "LogDenials", denials(OWNER, 7, **lab, count=3))
    story.refused("CONFLICT seq", OWNER, "LogDenials", denials(OWNER, 8, **lab))
    story.refused("CONFLICT seq", OWNER, "LogDenials", denials(OWNER, 9, **lab))
    # Another node counts for itself, and need not be registered.
    other = denials(OWNER, 8, **lab) | {"reportingNode": node(OWNER, "SECOND")}
    story.does(OWNER, "LogDenials", other)
    story.does(CUSTODIAN, "LogDenials", denials(CUSTODIAN, 8, **lab))
    story.refused("NOT_PERMITTED reportingNode", CUSTODIAN, "LogDenials", denials(OWNER, 10, **lab))
    story.refused("INVALID peer", OWNER, "LogDenials", denials(OWNER, 10))
    story.refused("INVALID peer", OWNER, "LogDenials", denials(OWNER, 10, **lab, unregistered=True))
    story.refused("NOT_FOUND peer", OWNER, "LogDenials", denials(OWNER, 10, peer=node(LAB, "NOBODY")))
    # A peer that was registered once is a registered peer, revoked or not.
    story.does(LAB, "RevokeNode", {"node": node(LAB)})
    story.does(LAB, "RegisterNode", register_node(LAB, aeTitle="LABBOX2"))
    story.does(OWNER, "LogDenials", denials(OWNER, 10, **lab))
    story.does(OWNER, "LogDenials", denials(OWNER, 11, peer=node(LAB, "LABBOX2")))
    return story


def _research_words() -> Story:
    story = after("released", "what research says of a release blocks nothing")
    retrieved = {"release": RELEASE, "outcome": "partial"}
    story.refused("NOT_PERMITTED release", OTHER_LAB, "LogRetrieval", retrieved)
    story.refused("NOT_PERMITTED release", OTHER_LAB, "ReportTamper", TAMPERED)
    story.refused("NOT_FOUND release", LAB, "LogRetrieval", retrieved | {"release": REQUEST})
    story.does(LAB, "LogRetrieval", retrieved)
    story.refused("CONFLICT outcome", LAB, "LogRetrieval", retrieved | {"outcome": "complete"})
    story.repeats(LAB, "LogRetrieval", retrieved)
    story.does(LAB, "ReportTamper", TAMPERED)
    story.refused("CONFLICT observed", LAB, "ReportTamper", TAMPERED | {"observed": digest("other")})
    story.repeats(LAB, "ReportTamper", TAMPERED)
    story.does(LAB, "ReportTamper", TAMPERED | {"instance": digest("instance 2")})
    assert story.version(STUDY) == 0
    story.does(OWNER, "LogRelease", release(renews=RELEASE))
    return story


def _lineage() -> Story:
    story = after("run", "lineage is told by an organisation on its own releases")
    story.repeats(LAB, "RegisterTrainingRun", training_run())
    story.refused("NOT_FOUND releases", LAB, "RegisterTrainingRun", training_run() | {"releases": [RELEASE, UNKNOWN]})
    story.refused("NOT_PERMITTED releases", OTHER_LAB, "RegisterTrainingRun", training_run())
    story.refused("INVALID dataset", LAB, "RegisterTrainingRun", training_run(version=1))
    story.refused("INVALID dataset", LAB, "RegisterTrainingRun", training_run(dataset=ON_DATASET["dataset"]))
    story.does(CUSTODIAN, "LogRelease", release())
    both = {"releases": [id_of("LogRelease", release(), CUSTODIAN), RELEASE]}
    story.does(LAB, "RegisterTrainingRun", training_run() | both)
    # Another's release among one's own.
    theirs = numbered(story, request(OTHER_LAB), OTHER_LAB)
    approved(story, theirs)
    given = release(theirs, node=node(OTHER_LAB))
    story.does(OWNER, "LogRelease", given)
    mixed = training_run() | {"releases": [RELEASE, id_of("LogRelease", given, OWNER)]}
    for by in (LAB, OTHER_LAB):
        story.refused("NOT_PERMITTED releases", by, "RegisterTrainingRun", mixed)
    story.refused("NOT_FOUND run", LAB, "RegisterModel", model(UNKNOWN))
    story.refused("NOT_PERMITTED run", OTHER_LAB, "RegisterModel", model())
    story.does(LAB, "RegisterModel", model())
    story.repeats(LAB, "RegisterModel", model())
    assert story.does(LAB, "RegisterModel", model(), nonce=1) == {"id": id_of("RegisterModel", model(), LAB, 1)}
    # What follows from a release stays told when the approval ends.
    story.does(OWNER, "Revoke", REVOCATION)
    story.does(LAB, "RegisterTrainingRun", training_run(), nonce=1)
    story.does(LAB, "RegisterModel", model(RUN) | {"digest": digest("model 2")})
    return story


def _lineage_of_a_dataset() -> Story:
    story = after("dataset approved", "a run on a dataset names releases of requests on exactly that one")
    given = release(DATASET_REQUEST, proof=proof(STUDY))
    story.does(OWNER, "LogRelease", given)
    number = id_of("LogRelease", given, OWNER)
    story.does(OWNER, "RegisterDataset", register_dataset(2))
    story.does(LAB, "RequestAccess", request())
    approved(story, REQUEST)
    story.does(OWNER, "LogRelease", release())
    on_study = id_of("LogRelease", release(), OWNER)
    second = {"dataset": ON_DATASET["dataset"], "version": 2}
    story.refused("NOT_FOUND dataset", LAB, "RegisterTrainingRun", training_run(number, **(second | {"version": 3})))
    story.refused("INVALID releases", LAB, "RegisterTrainingRun", training_run(number, **second))
    story.refused("INVALID releases", LAB, "RegisterTrainingRun", training_run(on_study, **ON_DATASET))
    mixed = {"releases": [number, on_study]}
    story.refused("INVALID releases", LAB, "RegisterTrainingRun", training_run(**ON_DATASET) | mixed)
    story.does(LAB, "RegisterTrainingRun", training_run(number, **ON_DATASET))
    story.does(LAB, "RegisterTrainingRun", training_run() | mixed)
    story.does(OWNER, "WithdrawDataset", {"id": ON_DATASET["dataset"], "version": 1})
    story.does(LAB, "RegisterTrainingRun", training_run(number, **ON_DATASET), nonce=1)
    return story

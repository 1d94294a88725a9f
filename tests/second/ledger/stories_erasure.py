"""Erasure: two parties, a grace time, and nothing that leads back."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET_REQUEST,
    ELSEWHERE,
    GRACE,
    INSTANCE,
    LAB,
    M1,
    NEW,
    OTHER_LAB,
    OWNER,
    STUDY,
    STUDY2,
    STUDY3,
    anchor,
    approve,
    digest,
    flag,
    node,
    proof,
    release,
    supersede,
    withdraw,
)
from tests.second.ledger.openings import BOTH, after, variant
from tests.second.ledger.story import Story

ON_STUDY = {"study": STUDY}


def stories() -> list[Story]:
    return [
        _erase_by_one_party(),
        _grace_to_the_second(),
        _no_grace(),
        _asked_again(),
        _erased_is_final(),
        _erasure_of_a_dataset_study(),
    ]


def _erase_by_one_party() -> Story:
    story = after("anchored", "no party erases alone")
    for by, other, study in ((OWNER, CUSTODIAN, STUDY), (CUSTODIAN, OWNER, STUDY2)):
        story.does(by, "RequestErase", {"study": study})
        story.repeats(by, "RequestErase", {"study": study})
        story.refused("WRONG_STATE requested", other, "RequestErase", {"study": study})
        story.wait(GRACE)
        story.refused("NOT_PERMITTED study", by, "ConfirmErase", {"study": study})
        story.refused("NOT_PERMITTED study", by, "ConfirmErase", {"study": study}, serial="8", assurance="node")
        story.refused("NOT_PERMITTED role", LAB, "ConfirmErase", {"study": study})
        story.refused("NOT_PERMITTED role", OTHER_LAB, "CancelErase", {"study": study})
        story.refused("WRONG_STATE requested", other, "ErasureDone", {"study": study})
        story.does(other, "ConfirmErase", {"study": study})
        story.repeats(other, "ConfirmErase", {"study": study})
    return story


def _grace_to_the_second() -> Story:
    story = after("erasure requested", "the grace time ends with its last second")
    asked = story.now
    story.refused("WRONG_STATE grace", CUSTODIAN, "ConfirmErase", ON_STUDY, at=asked)
    story.refused("WRONG_STATE grace", CUSTODIAN, "ConfirmErase", ON_STUDY, at=asked + GRACE - 1)
    story.does(CUSTODIAN, "ConfirmErase", ON_STUDY, at=asked + GRACE)
    return story


def _no_grace() -> Story:
    story = variant("without grace time an erasure can be confirmed at once", erase_grace_s=0)
    story.does(CUSTODIAN, "RequestErase", ON_STUDY)
    story.refused("NOT_PERMITTED study", CUSTODIAN, "ConfirmErase", ON_STUDY, at=story.now)
    story.does(OWNER, "ConfirmErase", ON_STUDY, at=story.now)
    return story


def _asked_again() -> Story:
    story = after("erasure cancelled", "an erasure asked for again waits again")
    assert story.repeats(OWNER, "CancelErase", ON_STUDY) == {"version": 2}
    story.refused("WRONG_STATE none", CUSTODIAN, "CancelErase", ON_STUDY)
    story.refused("WRONG_STATE none", CUSTODIAN, "ConfirmErase", ON_STUDY)
    story.wait(GRACE)
    assert story.does(CUSTODIAN, "RequestErase", ON_STUDY) == {"version": 3}
    asked = story.now
    assert story.repeats(CUSTODIAN, "RequestErase", ON_STUDY) == {"version": 3}
    story.refused("WRONG_STATE requested", OWNER, "RequestErase", ON_STUDY)
    # The first request and its end are over: to cancel now is to cancel the second.
    story.refused("WRONG_STATE grace", OWNER, "ConfirmErase", ON_STUDY, at=asked + GRACE - 1)
    assert story.does(OWNER, "CancelErase", ON_STUDY) == {"version": 4}
    assert story.repeats(OWNER, "CancelErase", ON_STUDY) == {"version": 4}
    assert story.does(OWNER, "RequestErase", ON_STUDY) == {"version": 5}
    story.wait(GRACE).does(CUSTODIAN, "ConfirmErase", ON_STUDY)
    assert story.repeats(OWNER, "RequestErase", ON_STUDY) == {"version": 5}
    story.refused("WRONG_STATE erased", CUSTODIAN, "RequestErase", ON_STUDY)
    story.refused("WRONG_STATE erased", OWNER, "CancelErase", ON_STUDY)
    return story


def _erased_is_final() -> Story:
    story = after("approved, then erased", "nothing leads out of erased")
    for by in BOTH:
        story.refused("WRONG_STATE erased", by, "CancelErase", ON_STUDY)
        story.refused("WRONG_STATE erased", by, "FlagTampered", flag())
        story.refused("WRONG_STATE erased", by, "LogRelease", release(standingVersion=1))
    story.refused("WRONG_STATE erased", OWNER, "Anchor", anchor(NEW))
    story.refused("WRONG_STATE erased", OWNER, "Supersede", supersede())
    story.refused("WRONG_STATE erased", OWNER, "Withdraw", withdraw())
    story.repeats(OWNER, "Anchor", anchor())
    # Reports of what was, and other studies, go on.
    story.does(OWNER, "ReportConflict", {"study": STUDY, "instance": INSTANCE, "presented": digest("p")})
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})
    story.does(OWNER, "ReportRepair", {"study": STUDY, "instance": INSTANCE, "node": node(OWNER)})
    story.does(OWNER, "Anchor", anchor(NEW, STUDY2))
    for by in (LAB, OWNER, OTHER_LAB, CUSTODIAN):
        story.does(by, "ErasureDone", ON_STUDY)
        story.repeats(by, "ErasureDone", ON_STUDY, serial="6")
    story.refused("WRONG_STATE none", LAB, "ErasureDone", {"study": STUDY2})
    return story


def _erasure_of_a_dataset_study() -> Story:
    story = after("dataset approved", "an erasure stops the releases of its study, and of no other in the dataset")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.does(OWNER, "RequestErase", ON_STUDY)
    asked = release(DATASET_REQUEST, proof=proof(STUDY), standingVersion=1)
    story.refused("WRONG_STATE requested", OWNER, "LogRelease", asked)
    late = release(DATASET_REQUEST, study=STUDY2, proof=proof(STUDY2), anchors=[ELSEWHERE])
    story.refused("WRONG_STATE anchors", OWNER, "LogRelease", late)
    story.refused("NOT_PERMITTED study", OWNER, "LogRelease", late | {"study": STUDY3})
    story.does(OWNER, "CancelErase", ON_STUDY)
    story.refused("WRONG_STATE standingVersion", OWNER, "LogRelease", asked)
    story.does(OWNER, "LogRelease", asked | {"standingVersion": 2})
    story.refused("WRONG_STATE approved", OWNER, "Approve", approve(DATASET_REQUEST, until=story.now + 5))
    return story

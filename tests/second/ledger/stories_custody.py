"""What happens to scans: anchors, supersession, withdrawal, flags, and what one party cannot do alone."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    ELSEWHERE,
    GRACE,
    INSTANCE,
    INSTANCE2,
    LAB,
    M1,
    M2,
    M3,
    NEW,
    NOWHERE,
    OWNER,
    STUDY,
    STUDY2,
    UNKNOWN,
    anchor,
    digest,
    flag,
    id_of,
    node,
    release,
    resolve,
    supersede,
    withdraw,
)
from tests.second.ledger.openings import SUPERSEDE, WITHDRAWAL, after
from tests.second.ledger.story import Story

ON_STUDY = {"study": STUDY}


def stories() -> list[Story]:
    return [
        _insiders_second_anchor(),
        _anchor_differs(),
        _derived(),
        _superseded_twice(),
        _supersede_refused(),
        _supersession_by_one_party(),
        _withdrawals(),
        _flags(),
        _flag_and_resolve_by_one_party(),
        _resolved_with_the_new_manifest(),
        _resolve_refused(),
        _standing(),
        _conflicts(),
    ]


def _insiders_second_anchor() -> Story:
    """The owner anchors other content for the same study after the approval: it commits, and is not covered."""
    story = after("approved", "an insider's second anchor is never released under the earlier approval")
    first = story.repeats(OWNER, "Anchor", anchor())
    story.refused("CONFLICT root", OWNER, "Anchor", anchor(root=digest("forged")))
    story.does(OWNER, "Anchor", anchor(NEW, root=digest("forged")))
    story.refused("WRONG_STATE anchors", OWNER, "LogRelease", release(anchors=[NEW]))
    story.refused("WRONG_STATE anchors", CUSTODIAN, "LogRelease", release(anchors=[M1, NEW]))
    story.does(OWNER, "LogRelease", release())
    # As a correction it needs the custodian: what the owner says alone moves nothing.
    correction = supersede(new=NEW)
    story.does(OWNER, "Supersede", correction)
    number = id_of("Supersede", correction, OWNER)
    story.refused("NOT_PERMITTED role", OWNER, "ConfirmSupersede", {"id": number})
    assert story.version(STUDY) == 0
    order = [seen["manifestCid"] for seen in story.asks("AnchorsOfStudy", ON_STUDY)]
    assert order == [M1, M2, M3, NEW]
    assert story.asks("StandingOf", ON_STUDY)["superseded"] == []
    assert story.asks("GetAnchor", {"manifestCid": M1})["sequence"] == first["sequence"]
    return story


def _anchor_differs() -> Story:
    story = after("anchored", "a manifest is anchored once, with one content")
    commitment = {"kind": "derived", "from": digest("parent")}
    for differing, other in (
        ("study", anchor(study=STUDY2)),
        ("root", anchor(root=digest("other"))),
        ("count", anchor(count=4)),
        ("kind", anchor(kind="derived")),
        ("kind", anchor(**commitment)),
        ("from", anchor(**{"from": digest("parent")})),
        ("profile", anchor(profile="113100")),
        ("study", anchor(study=STUDY2, count=4)),
    ):
        story.refused(f"CONFLICT {differing}", OWNER, "Anchor", other)
    story.repeats(OWNER, "Anchor", anchor(), nonce=9)
    return story


def _derived() -> Story:
    story = after("policy", "exactly derived anchors have a commitment to their parent, and only they a profile")
    commitment = {"from": digest("parent")}
    story.refused("INVALID from", OWNER, "Anchor", anchor(**commitment))
    story.refused("INVALID from", OWNER, "Anchor", anchor(kind="derived"))
    story.refused("INVALID from", OWNER, "Anchor", anchor(profile="113100", **commitment))
    story.refused("INVALID profile", OWNER, "Anchor", anchor(profile="113100"))
    story.does(OWNER, "Anchor", anchor(M2, kind="derived", **commitment))
    story.does(OWNER, "Anchor", anchor(M1, kind="derived", profile="113100", **commitment))
    story.refused("CONFLICT profile", OWNER, "Anchor", anchor(M1, kind="derived", profile="113101", **commitment))
    story.refused("CONFLICT from", OWNER, "Anchor", anchor(M2, kind="derived", **{"from": digest("other parent")}))
    story.refused("CONFLICT from", OWNER, "Anchor", anchor(M2, kind="derived"))
    return story


def _superseded_twice() -> Story:
    story = after("supersession confirmed", "each supersession goes on from the current record of its instance")
    story.refused("WRONG_STATE oldManifest", OWNER, "Supersede", supersede(M1, M3))
    story.does(OWNER, "Supersede", supersede(M1, M3, instance=INSTANCE2))
    story.does(OWNER, "Supersede", supersede(M2, M3, reason="quality"))
    second = id_of("Supersede", supersede(M2, M3, reason="quality"), OWNER)
    back = id_of("Supersede", supersede(M2, M1, reason="other"), OWNER)
    assert story.does(OWNER, "Supersede", supersede(M2, M1, reason="other")) == {"id": back}
    assert story.does(CUSTODIAN, "ConfirmSupersede", {"id": second}) == {"version": 2}
    story.refused("WRONG_STATE oldManifest", CUSTODIAN, "ConfirmSupersede", {"id": back})
    # The state has moved on; repeats still give the first results.
    assert story.repeats(CUSTODIAN, "ConfirmSupersede", {"id": SUPERSEDE}) == {"version": 1}
    assert story.repeats(OWNER, "Supersede", supersede()) == {"id": SUPERSEDE}
    # Back to the first record is a supersession like any other.
    story.does(OWNER, "Supersede", supersede(M3, M1))
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": id_of("Supersede", supersede(M3, M1), OWNER)})
    # The one that was overtaken can still be called off, by either party.
    story.does(CUSTODIAN, "Cancel", {"id": back})
    story.refused("WRONG_STATE cancelled", CUSTODIAN, "ConfirmSupersede", {"id": back})
    assert story.asks("StandingOf", ON_STUDY)["superseded"] == [{"instance": INSTANCE, "newManifest": M1}]
    return story


def _supersede_refused() -> Story:
    story = after("anchored", "both manifests of a supersession are anchored, of this study, and two")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.refused("NOT_FOUND oldManifest", OWNER, "Supersede", supersede(NOWHERE, NOWHERE))
    story.refused("NOT_FOUND newManifest", OWNER, "Supersede", supersede(M1, NOWHERE))
    story.refused("INVALID oldManifest", OWNER, "Supersede", supersede(ELSEWHERE, NOWHERE))
    story.refused("INVALID newManifest", OWNER, "Supersede", supersede(M1, ELSEWHERE))
    story.refused("INVALID newManifest", OWNER, "Supersede", supersede(M1, M1))
    story.refused("INVALID oldManifest", OWNER, "Supersede", supersede(study=STUDY2))
    return story


def _supersession_by_one_party() -> Story:
    story = after("supersession", "no party supersedes alone, and either calls it off")
    story.refused("NOT_PERMITTED role", OWNER, "ConfirmSupersede", {"id": SUPERSEDE})
    story.refused("NOT_PERMITTED role", CUSTODIAN, "Supersede", supersede())
    story.refused("NOT_PERMITTED role", LAB, "Cancel", {"id": SUPERSEDE})
    story.does(CUSTODIAN, "Cancel", {"id": SUPERSEDE})
    story.repeats(CUSTODIAN, "Cancel", {"id": SUPERSEDE})
    story.refused("WRONG_STATE cancelled", OWNER, "Cancel", {"id": SUPERSEDE})
    story.refused("WRONG_STATE cancelled", CUSTODIAN, "ConfirmSupersede", {"id": SUPERSEDE})
    # Cancelled is final, and the same id is the same call: a new nonce makes a new one.
    story.repeats(OWNER, "Supersede", supersede())
    story.does(OWNER, "Supersede", supersede(), nonce=1)
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": id_of("Supersede", supersede(), OWNER, 1)})
    return story


def _withdrawals() -> Story:
    story = after("withdrawn", "a withdrawal stands until both have given it back")
    whole = withdraw(reason="113039")
    del whole["instances"]
    study_number = id_of("Withdraw", whole, OWNER)
    assert story.does(OWNER, "Withdraw", whole) == {"id": study_number, "version": 2}
    assert story.does(CUSTODIAN, "Reinstate", {"id": WITHDRAWAL}) == {"state": "withdrawn"}
    assert story.repeats(CUSTODIAN, "Reinstate", {"id": WITHDRAWAL}) == {"state": "withdrawn"}
    story.refused("NOT_PERMITTED role", LAB, "Reinstate", {"id": WITHDRAWAL})
    story.refused("NOT_FOUND id", OWNER, "Reinstate", {"id": UNKNOWN})
    assert story.version(STUDY) == 2
    assert story.does(OWNER, "Reinstate", {"id": WITHDRAWAL}) == {"state": "reinstated"}
    # Each has given its own word once, with its own first result.
    assert story.repeats(CUSTODIAN, "Reinstate", {"id": WITHDRAWAL}) == {"state": "withdrawn"}
    assert story.repeats(OWNER, "Reinstate", {"id": WITHDRAWAL}) == {"state": "reinstated"}
    assert story.repeats(OWNER, "Withdraw", withdraw()) == {"id": WITHDRAWAL, "version": 1}
    assert story.version(STUDY) == 3
    standing = story.asks("StandingOf", ON_STUDY)
    assert standing["withdrawn"] == [{"id": study_number, "instances": None}]
    return story


def _flags() -> Story:
    story = after("anchored", "flags of an instance are counted without gaps, each with one content")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.refused("NOT_FOUND manifestCid", OWNER, "FlagTampered", flag(cid=NOWHERE))
    story.refused("INVALID manifestCid", OWNER, "FlagTampered", flag(cid=ELSEWHERE))
    assert story.does(CUSTODIAN, "FlagTampered", flag(observed=None, what=[])) == {"version": 1}
    story.refused("CONFLICT n", OWNER, "FlagTampered", flag())
    story.refused("CONFLICT n", OWNER, "FlagTampered", flag(observed=None, what=[0]))
    story.refused("CONFLICT n", OWNER, "FlagTampered", flag(cid=M2, observed=None, what=[]))
    story.refused("INVALID n", OWNER, "FlagTampered", flag(2))
    assert story.does(OWNER, "FlagTampered", flag(1, M2)) == {"version": 2}
    assert story.does(OWNER, "FlagTampered", flag(0, instance=INSTANCE2)) == {"version": 3}
    assert story.repeats(OWNER, "FlagTampered", flag(observed=None, what=[])) == {"version": 1}
    story.refused("NOT_PERMITTED role", LAB, "FlagTampered", flag(2))
    numbers = [(seen["instance"], seen["n"]) for seen in story.asks("StandingOf", ON_STUDY)["flagged"]]
    assert sorted(numbers) == sorted([(INSTANCE, 0), (INSTANCE, 1), (INSTANCE2, 0)])
    return story


def _flag_and_resolve_by_one_party() -> Story:
    story = after("anchored", "one party alone can flag, and cannot lift its flag")
    story.does(OWNER, "FlagTampered", flag())
    assert story.does(OWNER, "Resolve", resolve()) == {"state": "flagged"}
    assert story.repeats(OWNER, "Resolve", resolve(), serial="5", assurance="node") == {"state": "flagged"}
    story.refused("NOT_PERMITTED role", LAB, "Resolve", resolve())
    assert story.version(STUDY) == 1
    assert len(story.asks("StandingOf", ON_STUDY)["flagged"]) == 1
    return story


def _resolved_with_the_new_manifest() -> Story:
    story = after("half resolved", "a flag is lifted when both name the same manifest")
    story.refused("INVALID manifestCid", CUSTODIAN, "Resolve", resolve(cid=M2))
    story.does(OWNER, "Supersede", supersede())
    story.refused("INVALID manifestCid", CUSTODIAN, "Resolve", resolve(cid=M2))
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": SUPERSEDE})
    assert story.does(CUSTODIAN, "Resolve", resolve(cid=M2)) == {"state": "flagged"}
    assert story.version(STUDY) == 2
    assert story.does(OWNER, "Resolve", resolve(cid=M2)) == {"state": "resolved"}
    assert story.version(STUDY) == 3
    # Own words of before give what they gave; a new one comes too late.
    assert story.repeats(OWNER, "Resolve", resolve()) == {"state": "flagged"}
    assert story.repeats(CUSTODIAN, "Resolve", resolve(cid=M2)) == {"state": "flagged"}
    story.refused("WRONG_STATE resolved", CUSTODIAN, "Resolve", resolve())
    story.refused("WRONG_STATE resolved", CUSTODIAN, "Resolve", resolve(cid=NOWHERE))
    assert story.asks("StandingOf", ON_STUDY)["resolved"] == [{"instance": INSTANCE, "manifestCid": M2, "n": 0}]
    # The next finding is a new flag.
    assert story.does(CUSTODIAN, "FlagTampered", flag(1, M2)) == {"version": 4}
    return story


def _resolve_refused() -> Story:
    story = after("flagged", "what a flag cannot be lifted with")
    story.does(OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))
    story.refused("NOT_FOUND n", OWNER, "Resolve", resolve(1))
    story.refused("NOT_FOUND n", OWNER, "Resolve", resolve() | {"study": STUDY2})
    story.refused("NOT_FOUND n", OWNER, "Resolve", resolve() | {"instance": INSTANCE2})
    story.refused("NOT_FOUND manifestCid", OWNER, "Resolve", resolve(cid=NOWHERE))
    story.refused("INVALID manifestCid", OWNER, "Resolve", resolve(cid=ELSEWHERE))
    story.refused("INVALID manifestCid", OWNER, "Resolve", resolve(cid=M3))
    # The current record of another instance lifts nothing.
    other = supersede(instance=INSTANCE2)
    story.does(OWNER, "Supersede", other)
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": id_of("Supersede", other, OWNER)})
    story.refused("INVALID manifestCid", OWNER, "Resolve", resolve(cid=M2))
    return story


def _standing() -> Story:
    """Everything that takes away or gives back raises the number by one, and nothing else does."""
    story = after("approved", "the standing rises with all that takes from research or gives back")

    def now(expected: int) -> None:
        assert story.version(STUDY) == expected, story.version(STUDY)

    story.does(OWNER, "Supersede", supersede())
    story.does(OWNER, "ReportRepair", {"study": STUDY, "instance": INSTANCE, "node": node(OWNER)})
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})
    now(0)
    story.does(CUSTODIAN, "ConfirmSupersede", {"id": SUPERSEDE})
    now(1)
    story.does(OWNER, "Withdraw", withdraw())
    now(2)
    story.does(OWNER, "Reinstate", {"id": WITHDRAWAL})
    now(2)
    story.does(CUSTODIAN, "Reinstate", {"id": WITHDRAWAL})
    now(3)
    story.does(CUSTODIAN, "FlagTampered", flag())
    now(4)
    story.does(CUSTODIAN, "Resolve", resolve())
    now(4)
    story.does(OWNER, "Resolve", resolve())
    now(5)
    story.does(OWNER, "RequestErase", ON_STUDY)
    now(6)
    story.does(CUSTODIAN, "CancelErase", ON_STUDY)
    now(7)
    for stale in (0, 6, 8):
        story.refused("WRONG_STATE standingVersion", OWNER, "LogRelease", release(standingVersion=stale))
    story.does(OWNER, "LogRelease", release(standingVersion=7))
    story.does(OWNER, "RequestErase", ON_STUDY)
    story.wait(GRACE).does(CUSTODIAN, "ConfirmErase", ON_STUDY)
    now(8)
    assert story.asks("StandingOf", ON_STUDY)["erased"] == "erased"
    assert story.asks("StandingOf", {"study": STUDY2})["version"] == 0
    return story


def _conflicts() -> Story:
    story = after("policy", "a conflict is noted also where nothing was anchored, and blocks nothing")
    noted = {"study": STUDY, "instance": INSTANCE, "presented": digest("presented")}
    story.does(OWNER, "ReportConflict", noted)
    story.repeats(OWNER, "ReportConflict", noted)
    story.does(OWNER, "ReportConflict", noted, nonce=1)
    story.does(OWNER, "ReportConflict", noted | {"presented": digest("again")})
    assert story.version(STUDY) == 0
    return story

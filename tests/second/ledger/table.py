"""The table function, state, role: how each state comes about, and what each of the four calls in it."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.second.ledger.cast import (
    COLUMNS,
    DATASET_REQUEST,
    ELSEWHERE,
    INSTANCE,
    LAB,
    M1,
    M2,
    M3,
    NEW,
    NOWHERE,
    ON_DATASET,
    OTHER_LAB,
    POLICY,
    RELEASE,
    STRANGER,
    STUDY,
    STUDY2,
    Args,
    anchor,
    approve,
    denials,
    digest,
    flag,
    model,
    node,
    outcome,
    proof,
    register_dataset,
    register_node,
    release,
    request,
    resolve,
    supersede,
    training_run,
    withdraw,
)
from tests.second.ledger.openings import (
    DENIAL,
    LONGER_LEASE,
    PROPOSAL,
    REVOCATION,
    SUPERSEDE,
    TAMPERED,
    WITHDRAWAL,
    after,
    variant,
)
from tests.second.ledger.story import Story

Maker = Args | Callable[[str], Args]
STUDY_ARG = {"study": STUDY}
STORED = {"manifestCid": M1}
LAB_NODE = {"node": node(LAB)}
ON_UNKNOWN = {"dataset": digest("no dataset")[:16], "version": 1}
PROVEN = {"number": DATASET_REQUEST, "proof": proof(STUDY)}


def at(*states: tuple[str, str], args: Maker) -> list[tuple[str, str, Maker]]:
    """States with the same arguments: (state, opening)."""
    return [(state, opening, args) for state, opening in states]


ROWS: dict[str, list[tuple[str, str, Maker]]] = {
    "InitPolicy": at(("no policy", "nothing"), ("in force", "policy"), args={"policy": POLICY}),
    "ProposePolicy": at(("in force", "policy"), args={"policy": LONGER_LEASE}),
    "ConfirmPolicy": at(
        ("unknown", "policy"),
        ("pending", "proposed"),
        ("confirmed", "policy confirmed"),
        ("cancelled", "proposal cancelled"),
        ("void", "proposal void"),
        args={"id": PROPOSAL},
    ),
    "Anchor": [
        *at(("new", "policy"), ("anchored", "anchored"), args=anchor()),
        *at(("other content", "anchored"), args=anchor(count=4)),
        *at(("erasure requested", "erasure requested"), ("erased", "erased"), args=anchor(NEW)),
    ],
    "ConfirmStored": at(("not anchored", "policy"), ("anchored", "anchored"), ("stored", "stored"), args=STORED),
    "ReportConflict": at(
        ("anchored", "anchored"), args={"study": STUDY, "instance": INSTANCE, "presented": digest("presented")}
    ),
    "Supersede": [
        *at(("not anchored", "policy"), ("anchored", "anchored"), args=supersede()),
        *at(("superseded", "supersession confirmed"), args=supersede(new=M3)),
        *at(("erased", "erased"), args=supersede()),
    ],
    "ConfirmSupersede": at(
        ("unknown", "anchored"),
        ("pending", "supersession"),
        ("confirmed", "supersession confirmed"),
        ("cancelled", "supersession cancelled"),
        ("overtaken", "supersession overtaken"),
        ("erased", "supersession, then erased"),
        args={"id": SUPERSEDE},
    ),
    "Withdraw": at(
        ("anchored", "anchored"),
        ("erasure requested", "erasure requested"),
        ("erased", "erased"),
        args=withdraw(),
    ),
    "Reinstate": at(
        ("unknown", "anchored"),
        ("withdrawn", "withdrawn"),
        ("half", "half reinstated"),
        ("reinstated", "reinstated"),
        ("erased", "withdrawn, then erased"),
        args={"id": WITHDRAWAL},
    ),
    "FlagTampered": [
        *at(("not anchored", "policy"), ("anchored", "anchored"), ("flagged", "flagged"), args=flag()),
        *at(("other content", "flagged"), args=flag(observed=None)),
        *at(("gap", "anchored"), args=flag(1)),
        *at(("erased", "erased"), args=flag()),
    ],
    "Resolve": [
        *at(
            ("not flagged", "anchored"),
            ("flagged", "flagged"),
            ("half", "half resolved"),
            ("resolved", "resolved"),
            args=resolve(),
        ),
        *at(("resolved otherwise", "resolved, then superseded"), args=resolve(cid=M2)),
        *at(("erased", "flagged, then erased"), args=resolve()),
    ],
    "ReportRepair": at(
        ("anchored", "anchored"), args=lambda by: {"study": STUDY, "instance": INSTANCE, "node": node(by)}
    ),
    "RegisterNode": at(
        ("new", "policy"),
        ("proposed", "nodes proposed"),
        ("confirmed", "nodes confirmed"),
        ("revoked", "nodes revoked"),
        args=register_node,
    ),
    "ConfirmNode": at(
        ("unknown", "policy"),
        ("proposed", "nodes proposed"),
        ("confirmed", "nodes confirmed"),
        ("revoked", "proposed node revoked"),
        args=LAB_NODE | {"version": 1},
    ),
    "RevokeNode": at(
        ("unknown", "policy"),
        ("proposed", "nodes proposed"),
        ("confirmed", "nodes confirmed"),
        ("revoked", "nodes revoked"),
        args=LAB_NODE,
    ),
    "RegisterDataset": [
        *at(
            ("new", "policy"),
            ("registered", "dataset"),
            ("withdrawn", "dataset withdrawn"),
            args=register_dataset(),
        ),
        *at(("other content", "dataset"), args=register_dataset(count=4)),
        *at(("gap", "policy"), ("withdrawn, next version", "dataset withdrawn"), args=register_dataset(2)),
    ],
    "WithdrawDataset": at(
        ("unknown", "policy"),
        ("registered", "dataset"),
        ("withdrawn", "dataset withdrawn"),
        args={"id": ON_DATASET["dataset"], "version": 1},
    ),
    "RequestAccess": [
        *at(
            ("node unknown", "anchored"),
            ("node proposed", "nodes proposed"),
            ("node confirmed", "nodes confirmed"),
            ("node revoked", "nodes revoked"),
            args=request,
        ),
        *at(
            ("dataset registered", "dataset"),
            ("dataset withdrawn", "dataset withdrawn"),
            args=lambda by: request(by, ON_DATASET),
        ),
        *at(("dataset unknown", "dataset"), args=lambda by: request(by, ON_UNKNOWN)),
        *at(("both study and dataset", "dataset"), args=lambda by: request(by, **ON_DATASET)),
    ],
    "Approve": [
        *at(
            ("unknown", "nodes confirmed"),
            ("open", "asked"),
            ("half", "half approved"),
            ("half otherwise", "half approved otherwise"),
            ("approved", "approved"),
            ("expired", "expired"),
            ("denied", "denied"),
            ("revoked", "revoked"),
            ("node revoked", "asked, then node revoked"),
            ("erasure requested", "asked, then erasure requested"),
            ("erased", "asked, then erased"),
            args=approve(),
        ),
        *at(("dataset withdrawn", "dataset asked, then withdrawn"), args=approve(DATASET_REQUEST)),
    ],
    "Deny": at(
        ("unknown", "nodes confirmed"),
        ("open", "asked"),
        ("half", "half approved"),
        ("approved", "approved"),
        ("expired", "expired"),
        ("denied", "denied"),
        ("revoked", "revoked"),
        ("node revoked", "asked, then node revoked"),
        args=DENIAL,
    ),
    "Revoke": at(
        ("unknown", "nodes confirmed"),
        ("open", "asked"),
        ("half", "half approved"),
        ("approved", "approved"),
        ("expired", "expired"),
        ("denied", "denied"),
        ("revoked", "revoked"),
        ("node revoked", "asked, then node revoked"),
        args=REVOCATION,
    ),
    "LogRelease": [
        *at(
            ("unknown", "nodes confirmed"),
            ("open", "asked"),
            ("half", "half approved"),
            ("approved", "approved"),
            ("expired", "expired"),
            ("denied", "denied"),
            ("revoked", "approved, then revoked"),
            ("node revoked", "approved, then node revoked"),
            ("flagged since", "approved, then flagged"),
            args=release(),
        ),
        *at(("other node", "approved"), args=release(node=node(OTHER_LAB))),
        *at(("study not named", "approved"), args=release(study=STUDY2)),
        *at(
            ("erasure requested", "approved, then erasure requested"),
            ("erased", "approved, then erased"),
            args=release(standingVersion=1),
        ),
        *at(("after the approval", "approved, then anchored"), args=release(anchors=[M1, NEW])),
        *at(("another study's anchor", "approved, then anchored"), args=release(anchors=[M1, ELSEWHERE])),
        *at(("not anchored", "approved"), args=release(anchors=[M1, NOWHERE])),
        *at(("not stored", "approved, storage required"), args=release()),
        *at(
            ("dataset proven", "dataset approved"),
            ("dataset withdrawn", "dataset approved, then withdrawn"),
            args=release(**PROVEN),
        ),
        *at(("dataset without proof", "dataset approved"), args=release(DATASET_REQUEST)),
        *at(("dataset wrong proof", "dataset approved"), args=release(DATASET_REQUEST, proof=proof(STUDY2))),
        *at(("renewed", "released"), args=release(renews=RELEASE)),
    ],
    "LogOutcome": [
        *at(("unknown", "approved"), ("released", "released"), ("reported", "outcome"), args=outcome()),
        *at(("other content", "outcome"), args=outcome(sent=2)),
    ],
    "LogDenials": [
        *at(("unregistered", "policy"), args=lambda by: denials(by, unregistered=True)),
        *at(
            ("registered peer", "nodes confirmed"),
            ("unknown peer", "policy"),
            args=lambda by: denials(by, peer=node(LAB)),
        ),
        *at(("both", "nodes confirmed"), args=lambda by: denials(by, peer=node(LAB), unregistered=True)),
        *at(("old seq", "denials"), args=lambda by: denials(by, 5, unregistered=True, count=3)),
    ],
    "LogRetrieval": [
        *at(
            ("unknown", "approved"),
            ("released", "released"),
            ("reported", "retrieved"),
            args={"release": RELEASE, "outcome": "complete"},
        ),
        *at(("other content", "retrieved"), args={"release": RELEASE, "outcome": "partial"}),
    ],
    "ReportTamper": [
        *at(("unknown", "approved"), ("released", "released"), ("reported", "tampering reported"), args=TAMPERED),
        *at(("other content", "tampering reported"), args=TAMPERED | {"observed": digest("seen otherwise")}),
    ],
    "RequestErase": at(
        ("none", "anchored"),
        ("requested", "erasure requested"),
        ("cancelled", "erasure cancelled"),
        ("erased", "erased"),
        args=STUDY_ARG,
    ),
    "CancelErase": at(
        ("none", "anchored"),
        ("requested", "erasure requested"),
        ("cancelled", "erasure cancelled"),
        ("erased", "erased"),
        args=STUDY_ARG,
    ),
    "ConfirmErase": at(
        ("none", "anchored"),
        ("before grace", "erasure requested"),
        ("after grace", "grace over"),
        ("erased", "erased"),
        args=STUDY_ARG,
    ),
    "ErasureDone": at(
        ("none", "anchored"),
        ("requested", "erasure requested"),
        ("erased", "erased"),
        ("done", "erasure done"),
        args=STUDY_ARG,
    ),
    "Cancel": [
        *at(
            ("unknown", "anchored"),
            ("pending", "supersession"),
            ("confirmed", "supersession confirmed"),
            ("cancelled", "supersession cancelled"),
            args={"id": SUPERSEDE},
        ),
        *at(("void", "proposal void"), args={"id": PROPOSAL}),
    ],
    "RevokeCertificate": at(("valid", "policy"), ("revoked", "certificates revoked"), args={"serial": "2"}),
    "RegisterTrainingRun": [
        *at(("unknown release", "approved"), ("released", "released"), args=training_run()),
        *at(("dataset unknown", "released"), args=training_run(**ON_DATASET)),
        *at(("other dataset", "released, dataset registered"), args=training_run(**ON_DATASET)),
    ],
    "RegisterModel": at(("unknown run", "released"), ("registered run", "run"), args=model()),
}


def cells() -> Iterator[tuple[str, str, str, str, Story]]:
    """(function, state, column, what came of it, the story) of every cell."""
    for function, rows in ROWS.items():
        for state, opening, args in rows:
            for column, by in COLUMNS.items():
                story = _begin(opening, f"{function}, {state}: {column}")
                yield function, state, column, story.tries(by, function, args(by) if callable(args) else args), story
    for column, by in COLUMNS.items():
        for state, story, other in _anybody(column, by):
            came = story.tries(other.pop("by", by), "RegisterNode", register_node(by), **other)
            yield "any", state, column, came, story


def _begin(opening: str, title: str) -> Story:
    if opening == "approved, storage required":
        return variant(title, "approved", require_stored=True)
    return after(opening, title)


def _anybody(column: str, by: str) -> list[tuple[str, Story, dict[str, Any]]]:
    revoked, outside = (
        after("certificates revoked", f"any, revoked certificate: {column}"),
        after("policy", f"any, outside the policy: {column}"),
    )
    skewed = variant(f"any, clock skew: {column}", max_clock_skew_s=60)
    return [
        ("revoked certificate", revoked, {"serial": "2"}),
        ("outside the policy", outside, {"by": STRANGER}),
        ("clock skew", skewed, {"host_at": skewed.now + 1 + 61}),
    ]

"""How most stories begin: each opening goes on from another one."""

from functools import cache
from typing import Any

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET,
    DATASET_REQUEST,
    ELSEWHERE,
    GRACE,
    INSTANCE,
    LAB,
    M1,
    M2,
    M3,
    MEMBERS,
    NEW,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    POLICY,
    RELEASE,
    REQUEST,
    STUDY,
    STUDY2,
    UNTIL,
    Args,
    anchor,
    approve,
    denials,
    digest,
    flag,
    id_of,
    node,
    outcome,
    register_dataset,
    register_node,
    release,
    request,
    resolve,
    supersede,
    training_run,
    withdraw,
)
from tests.second.ledger.story import Story

SUPERSEDE, OVERTAKING = (id_of("Supersede", supersede(new=new), OWNER) for new in (M2, M3))
WITHDRAWAL = id_of("Withdraw", withdraw(), OWNER)
LONGER_LEASE, SHORTER_LEASE = POLICY | {"lease_s": 50}, POLICY | {"lease_s": 40}
PROPOSAL, OTHER_PROPOSAL = (id_of("ProposePolicy", {"policy": new}, OWNER) for new in (LONGER_LEASE, SHORTER_LEASE))
STORED_POLICY = POLICY | {"require_stored": True}
OTHER_REQUEST = id_of("RequestAccess", request(OTHER_LAB), OTHER_LAB)
REVOCATION = {"id": REQUEST, "reason": "breach"}
TAMPERED = {"release": RELEASE, "instance": INSTANCE, "observed": digest("seen")}
DENIAL = {"id": REQUEST, "reason": "scope"}

Step = tuple[str, str, Args]
BOTH = (OWNER, CUSTODIAN)
WITH_NODES = (OWNER, LAB, OTHER_LAB)
_APPROVED: list[Step] = [(by, "Approve", approve()) for by in (CUSTODIAN, OWNER)]
_DATASET_APPROVED: list[Step] = [(by, "Approve", approve(DATASET_REQUEST)) for by in (CUSTODIAN, OWNER)]
_ERASURE: list[Step] = [(OWNER, "RequestErase", {"study": STUDY})]
_ERASED: list[Step] = [(CUSTODIAN, "ConfirmErase", {"study": STUDY})]
_DATASET_WITHDRAWN: list[Step] = [(OWNER, "WithdrawDataset", {"id": DATASET, "version": 1})]

# name: (the opening before it, seconds to wait, steps)
OPENINGS: dict[str, tuple[str, int, list[Step]]] = {
    "anchored": ("policy", 0, [(OWNER, "Anchor", anchor(cid)) for cid in (M1, M2, M3)]),
    "proposed": ("policy", 0, [(OWNER, "ProposePolicy", {"policy": LONGER_LEASE})]),
    "policy confirmed": ("proposed", 0, [(CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})]),
    "proposal cancelled": ("proposed", 0, [(OWNER, "Cancel", {"id": PROPOSAL})]),
    "proposal void": (
        "proposed",
        0,
        [
            (OWNER, "ProposePolicy", {"policy": SHORTER_LEASE}),
            (CUSTODIAN, "ConfirmPolicy", {"id": OTHER_PROPOSAL}),
        ],
    ),
    "stored": ("anchored", 0, [(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})]),
    "supersession": ("anchored", 0, [(OWNER, "Supersede", supersede())]),
    "supersession confirmed": ("supersession", 0, [(CUSTODIAN, "ConfirmSupersede", {"id": SUPERSEDE})]),
    "supersession cancelled": ("supersession", 0, [(OWNER, "Cancel", {"id": SUPERSEDE})]),
    "supersession overtaken": (
        "supersession",
        0,
        [(OWNER, "Supersede", supersede(new=M3)), (CUSTODIAN, "ConfirmSupersede", {"id": OVERTAKING})],
    ),
    "withdrawn": ("anchored", 0, [(OWNER, "Withdraw", withdraw())]),
    "half reinstated": ("withdrawn", 0, [(OWNER, "Reinstate", {"id": WITHDRAWAL})]),
    "reinstated": ("half reinstated", 0, [(CUSTODIAN, "Reinstate", {"id": WITHDRAWAL})]),
    "flagged": ("anchored", 0, [(OWNER, "FlagTampered", flag())]),
    "half resolved": ("flagged", 0, [(OWNER, "Resolve", resolve())]),
    "resolved": ("half resolved", 0, [(CUSTODIAN, "Resolve", resolve())]),
    "resolved, then superseded": (
        "resolved",
        0,
        [(OWNER, "Supersede", supersede()), (CUSTODIAN, "ConfirmSupersede", {"id": SUPERSEDE})],
    ),
    "erasure requested": ("anchored", 0, _ERASURE),
    "erasure cancelled": ("erasure requested", 0, [(OWNER, "CancelErase", {"study": STUDY})]),
    "erased": ("erasure requested", GRACE, _ERASED),
    "grace over": ("erasure requested", GRACE - 1, []),
    "supersession, then erasure requested": ("supersession", 0, _ERASURE),
    "supersession, then erased": ("supersession, then erasure requested", GRACE, _ERASED),
    "withdrawn, then erasure requested": ("withdrawn", 0, _ERASURE),
    "withdrawn, then erased": ("withdrawn, then erasure requested", GRACE, _ERASED),
    "flagged, then erasure requested": ("flagged", 0, _ERASURE),
    "flagged, then erased": ("flagged, then erasure requested", GRACE, _ERASED),
    "erasure done": (
        "erased",
        0,
        [(by, "ErasureDone", {"study": STUDY}) for by in (OWNER, CUSTODIAN, LAB, OTHER_LAB)],
    ),
    "nodes proposed": ("anchored", 0, [(by, "RegisterNode", register_node(by)) for by in WITH_NODES]),
    "nodes confirmed": (
        "nodes proposed",
        0,
        [(CUSTODIAN, "ConfirmNode", {"node": node(by), "version": 1}) for by in WITH_NODES],
    ),
    "proposed node revoked": ("nodes proposed", 0, [(CUSTODIAN, "RevokeNode", {"node": node(LAB)})]),
    "nodes revoked": (
        "nodes confirmed",
        0,
        [(OWNER, "RevokeNode", {"node": node(OWNER)})]
        + [(CUSTODIAN, "RevokeNode", {"node": node(by)}) for by in (LAB, OTHER_LAB)],
    ),
    "dataset": ("nodes confirmed", 0, [(OWNER, "RegisterDataset", register_dataset())]),
    "dataset withdrawn": ("dataset", 0, _DATASET_WITHDRAWN),
    "asked": ("nodes confirmed", 0, [(LAB, "RequestAccess", request())]),
    "half approved": ("asked", 0, [(CUSTODIAN, "Approve", approve())]),
    "half approved otherwise": ("asked", 0, [(CUSTODIAN, "Approve", approve(until=UNTIL - 1))]),
    "approved": ("asked", 0, _APPROVED),
    "expired": ("approved", 10 * 86_400, []),
    "denied": ("asked", 0, [(OWNER, "Deny", DENIAL)]),
    "revoked": ("asked", 0, [(OWNER, "Revoke", REVOCATION)]),
    "approved, then revoked": ("approved", 0, [(OWNER, "Revoke", REVOCATION)]),
    "asked, then node revoked": ("asked", 0, [(CUSTODIAN, "RevokeNode", {"node": node(LAB)})]),
    "approved, then node revoked": ("approved", 0, [(CUSTODIAN, "RevokeNode", {"node": node(LAB)})]),
    "asked, then erasure requested": ("asked", 0, _ERASURE),
    "asked, then erased": ("asked, then erasure requested", GRACE, _ERASED),
    "approved, then flagged": ("approved", 0, [(OWNER, "FlagTampered", flag())]),
    "approved, then erasure requested": ("approved", 0, _ERASURE),
    "approved, then erased": ("approved, then erasure requested", GRACE, _ERASED),
    "approved, then anchored": (
        "approved",
        0,
        [(OWNER, "Anchor", anchor(NEW)), (OWNER, "Anchor", anchor(ELSEWHERE, STUDY2))],
    ),
    "dataset asked": ("dataset", 0, [(LAB, "RequestAccess", request(on=ON_DATASET))]),
    "dataset approved": ("dataset asked", 0, _DATASET_APPROVED),
    "dataset asked, then withdrawn": ("dataset asked", 0, _DATASET_WITHDRAWN),
    "dataset approved, then withdrawn": ("dataset approved", 0, _DATASET_WITHDRAWN),
    "released": ("approved", 0, [(OWNER, "LogRelease", release())]),
    "outcome": ("released", 0, [(OWNER, "LogOutcome", outcome())]),
    "retrieved": ("released", 0, [(LAB, "LogRetrieval", {"release": RELEASE, "outcome": "complete"})]),
    "tampering reported": ("released", 0, [(LAB, "ReportTamper", TAMPERED)]),
    "released, dataset registered": ("released", 0, [(OWNER, "RegisterDataset", register_dataset())]),
    "denials": ("nodes confirmed", 0, [(by, "LogDenials", denials(by, 5, unregistered=True)) for by in BOTH]),
    "certificates revoked": ("policy", 0, [(by, "RevokeCertificate", {"serial": "2"}) for by in MEMBERS]),
    "run": ("released", 0, [(LAB, "RegisterTrainingRun", training_run())]),
}


@cache
def opening(name: str) -> Story:
    """A story to go on from."""
    if name == "nothing":
        return Story(name)
    if name == "policy":
        return _told(name, opening("nothing"), [(OWNER, "InitPolicy", {"policy": POLICY})])
    before, seconds, steps = OPENINGS[name]
    return _told(name, opening(before), steps, seconds)


def _told(name: str, start: Story, steps: list[Step], seconds: int = 0) -> Story:
    story = Story(name, start).wait(seconds)
    for step in steps:
        story.does(*step)
    return story


def all_openings() -> list[Story]:
    """Every opening."""
    return [opening(name) for name in ("nothing", "policy", *OPENINGS)]


def after(name: str, title: str) -> Story:
    """A new story that goes on from an opening."""
    return Story(title, opening(name))


def variant(title: str, upto: str = "policy", **fields: Any) -> Story:
    """A new story under another policy, with the steps up to an opening."""
    policy = POLICY | fields
    story = Story(title, policy=policy)
    story.does(OWNER, "InitPolicy", {"policy": policy})
    names = [upto]
    while names[0] != "policy":
        names.insert(0, OPENINGS[names[0]][0])
    for name in names[1:]:
        _, seconds, steps = OPENINGS[name]
        story.wait(seconds)
        for step in steps:
            story.does(*step)
    return story


def numbered(story: Story, args: Args, by: str = LAB, nonce: int = 0) -> bytes:
    """A request that is made now; its id."""
    number = story.does(by, "RequestAccess", args, nonce=nonce)["id"]
    assert number == id_of("RequestAccess", args, by, nonce)
    return number


def approved(story: Story, number: bytes, until: int = UNTIL) -> None:
    """By owner and custodian."""
    for by in BOTH:
        story.does(by, "Approve", approve(number, until))

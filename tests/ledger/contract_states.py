"""Every function of the contract in every state of what it is about, as short stories that end right before the call.

The names of functions and states are those of docs/contract.md's table and of tests/vectors/contract/table.csv. Where
another party did something before, it was the owner unless the state says otherwise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.ledger.channel import (
    CUSTODIAN,
    DATASET,
    DAY,
    DIGEST,
    INSTANCE,
    LAB,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_STUDY,
    OWNER,
    ROLES,
    START,
    STUDY,
    Channel,
    Memory,
    cid,
    policy,
)

Args = dict[str, Any]
Story = Callable[[Channel, str], Args]
"""What happens on a channel before an organisation's call; the call's arguments."""

UNKNOWN = b"\x01" * 32
UNTIL = START + 10 * DAY
GRACE = policy()["erase_grace_s"]
STORIES: dict[tuple[str, str], Story] = {}


@dataclass(frozen=True)
class Scene:
    """One state, and the policy it plays under."""

    function: str
    state: str
    story: Story
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return "RegisterNode" if self.function == "any" else self.function

    def play(self, organisation: str) -> tuple[Channel, Args]:
        """A channel in this state, and what the organisation calls next."""
        chosen = policy(**self.policy)
        channel = Channel(Memory(chosen), chosen)
        if self.state != "no policy":
            channel.init()
        return channel, self.story(channel, organisation)


POLICIES = {("LogRelease", "not stored"): {"require_stored": True}, ("any", "clock skew"): {"max_clock_skew_s": 60}}


def scenes() -> Iterator[Scene]:
    for (function, state), story in STORIES.items():
        yield Scene(function, state, story, POLICIES.get((function, state), {}))


def state(function: str, *states: str) -> Callable[[Callable[..., Args]], Callable[..., Args]]:
    """Register a story for states of a function; with several, it takes the state as its third argument."""

    def register(story: Callable[..., Args]) -> Callable[..., Args]:
        for name in states:
            STORIES[function, name] = story if len(states) == 1 else _in_state(story, name)
        return story

    return register


def _in_state(story: Callable[..., Args], name: str) -> Story:
    return lambda channel, organisation: story(channel, organisation, name)


def own_node(organisation: str) -> dict[str, str]:
    return {"organisation": organisation, "aeTitle": "NODE"}


# Policy


@state("InitPolicy", "no policy", "in force")
def init_policy(channel: Channel, organisation: str, state: str) -> Args:
    return {"policy": channel.policy}


@state("ProposePolicy", "in force")
def propose_policy(channel: Channel, organisation: str) -> Args:
    return {"policy": policy(lease_s=30)}


@state("ConfirmPolicy", "unknown", "pending", "confirmed", "cancelled", "void")
def confirm_policy(channel: Channel, organisation: str, state: str) -> Args:
    return {"id": UNKNOWN if state == "unknown" else proposed_policy(channel, state)}


def proposed_policy(channel: Channel, state: str) -> bytes:
    proposal = bytes(channel.call(OWNER, "ProposePolicy", policy=policy(lease_s=30))["id"])
    if state == "confirmed":
        channel.call(CUSTODIAN, "ConfirmPolicy", id=proposal)
    if state == "cancelled":
        channel.call(OWNER, "Cancel", id=proposal)
    if state == "void":
        other = channel.call(OWNER, "ProposePolicy", policy=policy(lease_s=20))["id"]
        channel.call(CUSTODIAN, "ConfirmPolicy", id=other)
    return proposal


# Anchors and custody


@state("Anchor", "new", "anchored", "other content", "erasure requested", "erased")
def anchor(channel: Channel, organisation: str, state: str) -> Args:
    args = {"manifestCid": cid("m"), "study": STUDY, "root": DIGEST, "count": 3, "kind": "original"}
    if state in ("anchored", "other content"):
        channel.call(OWNER, "Anchor", **args)
    bring_erasure(channel, state)
    return {**args, "count": 4} if state == "other content" else args


def bring_erasure(channel: Channel, state: str) -> None:
    if state in ("erasure requested", "erased"):
        channel.erase_requested()
    if state == "erased":
        channel.erased()


@state("ConfirmStored", "not anchored", "anchored", "stored")
def confirm_stored(channel: Channel, organisation: str, state: str) -> Args:
    if state == "not anchored":
        return {"manifestCid": cid("none")}
    manifest = channel.anchor()
    if state == "stored":
        channel.call(CUSTODIAN, "ConfirmStored", manifestCid=manifest)
    return {"manifestCid": manifest}


@state("ReportConflict", "anchored")
def report_conflict(channel: Channel, organisation: str) -> Args:
    channel.anchor()
    return {"study": STUDY, "instance": INSTANCE, "presented": DIGEST}


@state("Supersede", "not anchored", "anchored", "superseded", "erased")
def supersede(channel: Channel, organisation: str, state: str) -> Args:
    if state == "not anchored":
        return superseding(cid("none"), cid("neither"))
    old, new = channel.anchor(), channel.anchor()
    if state == "superseded":
        superseded(channel, old, channel.anchor())
    bring_erasure(channel, state)
    return superseding(old, new)


@state("ConfirmSupersede", "unknown", "pending", "confirmed", "cancelled", "overtaken", "erased")
def confirm_supersede(channel: Channel, organisation: str, state: str) -> Args:
    return {"id": UNKNOWN if state == "unknown" else proposed_supersession(channel, state)}


def superseding(old: str, new: str) -> Args:
    return {"study": STUDY, "instance": INSTANCE, "oldManifest": old, "newManifest": new, "reason": "quality"}


def superseded(channel: Channel, old: str, new: str) -> None:
    channel.call(CUSTODIAN, "ConfirmSupersede", id=channel.call(OWNER, "Supersede", **superseding(old, new))["id"])


def proposed_supersession(channel: Channel, state: str) -> bytes:
    old = channel.anchor()
    pending = bytes(channel.call(OWNER, "Supersede", **superseding(old, channel.anchor()))["id"])
    if state == "confirmed":
        channel.call(CUSTODIAN, "ConfirmSupersede", id=pending)
    if state == "cancelled":
        channel.call(OWNER, "Cancel", id=pending)
    if state == "overtaken":
        superseded(channel, old, channel.anchor())
    bring_erasure(channel, state)
    return pending


@state("Withdraw", "anchored", "erasure requested", "erased")
def withdraw(channel: Channel, organisation: str, state: str) -> Args:
    channel.anchor()
    bring_erasure(channel, state)
    return {"study": STUDY, "reason": "113001"}


@state("Reinstate", "unknown", "withdrawn", "half", "reinstated", "erased")
def reinstate(channel: Channel, organisation: str, state: str) -> Args:
    if state == "unknown":
        return {"id": UNKNOWN}
    withdrawal = channel.call(OWNER, "Withdraw", study=STUDY, reason="113001")["id"]
    for party in said_by(state, "reinstated"):
        channel.call(party, "Reinstate", id=withdrawal)
    bring_erasure(channel, state)
    return {"id": withdrawal}


def said_by(state: str, *completed: str) -> tuple[str, ...]:
    """Who has given a word of both in a state."""
    if state in completed:
        return OWNER, CUSTODIAN
    return (OWNER,) if state == "half" else ()


# Tampering


@state("FlagTampered", "not anchored", "anchored", "flagged", "other content", "gap", "erased")
def flag_tampered(channel: Channel, organisation: str, state: str) -> Args:
    if state == "not anchored":
        return flagging(cid("none"))
    manifest = channel.anchor()
    if state in ("flagged", "other content"):
        channel.call(OWNER, "FlagTampered", **flagging(manifest))
    bring_erasure(channel, state)
    over = {"other content": {"observed": OTHER_DIGEST}, "gap": {"n": 1}}.get(state, {})
    return {**flagging(manifest), **over}


@state("Resolve", "not flagged", "flagged", "half", "resolved", "resolved otherwise", "erased")
def resolve(channel: Channel, organisation: str, state: str) -> Args:
    manifest = channel.anchor()
    args = {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": manifest}
    if state == "not flagged":
        return args
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    for party in said_by(state, "resolved", "resolved otherwise"):
        channel.call(party, "Resolve", **args)
    bring_erasure(channel, state)
    if state == "resolved otherwise":
        args = {**args, "manifestCid": channel.anchor()}
        superseded(channel, manifest, args["manifestCid"])
    return args


def flagging(manifest: str) -> Args:
    return {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": manifest, "observed": DIGEST, "what": []}


@state("ReportRepair", "anchored")
def report_repair(channel: Channel, organisation: str) -> Args:
    channel.anchor()
    return {"study": STUDY, "instance": INSTANCE, "node": own_node(organisation)}


# Nodes


@state("RegisterNode", "new", "proposed", "confirmed", "revoked")
def register_node(channel: Channel, organisation: str, state: str) -> Args:
    args = {"aeTitle": "NODE", "role": "research" if ROLES[organisation] == "research" else "clinical"}
    args |= {"certDigests": []}
    if organisation != CUSTODIAN:
        bring_node(channel, organisation, args, state)
    return args


def bring_node(channel: Channel, organisation: str, args: Args, state: str) -> None:
    node = {"organisation": organisation, "aeTitle": args["aeTitle"]}
    if state in ("proposed", "confirmed", "revoked"):
        channel.call(organisation, "RegisterNode", **args)
    if state == "confirmed":
        channel.call(CUSTODIAN, "ConfirmNode", node=node, version=1)
    if state == "revoked":
        channel.call(CUSTODIAN, "RevokeNode", node=node)


LAB_REGISTRATION = {"aeTitle": LAB_NODE["aeTitle"], "role": "research", "certDigests": []}


@state("ConfirmNode", "unknown", "proposed", "confirmed", "revoked")
def confirm_node(channel: Channel, organisation: str, state: str) -> Args:
    bring_node(channel, LAB, LAB_REGISTRATION, state)
    return {"node": LAB_NODE, "version": 1}


@state("RevokeNode", "unknown", "proposed", "confirmed", "revoked")
def revoke_node(channel: Channel, organisation: str, state: str) -> Args:
    bring_node(channel, LAB, LAB_REGISTRATION, state)
    return {"node": LAB_NODE}


# Datasets


@state("RegisterDataset", "new", "registered", "other content", "gap")
def register_dataset(channel: Channel, organisation: str, state: str) -> Args:
    args = channel.listed(STUDY, OTHER_STUDY)
    if state in ("registered", "other content"):
        channel.call(OWNER, "RegisterDataset", **args)
    return {**args, **{"other content": {"count": 3}, "gap": {"version": 2}}.get(state, {})}


@state("WithdrawDataset", "unknown", "registered", "withdrawn")
def withdraw_dataset(channel: Channel, organisation: str, state: str) -> Args:
    bring_dataset(channel, state)
    return {"id": DATASET, "version": 1}


def bring_dataset(channel: Channel, state: str) -> None:
    if not state.endswith("unknown"):
        channel.call(OWNER, "RegisterDataset", **channel.listed(STUDY, OTHER_STUDY))
    if state.endswith("withdrawn"):
        channel.call(OWNER, "WithdrawDataset", id=DATASET, version=1)


# Requests


@state("RequestAccess", "node unknown", "node proposed", "node confirmed", "node revoked")
def request_access(channel: Channel, organisation: str, state: str) -> Args:
    if ROLES[organisation] == "research":
        args = {"aeTitle": "NODE", "role": "research", "certDigests": []}
        bring_node(channel, organisation, args, state.removeprefix("node "))
    return channel.access(node=own_node(organisation))


@state("RequestAccess", "dataset registered", "dataset unknown", "dataset withdrawn", "both study and dataset")
def request_dataset(channel: Channel, organisation: str, state: str) -> Args:
    args: Args = {**request_access(channel, organisation, "node confirmed"), "dataset": DATASET, "version": 1}
    bring_dataset(channel, state)
    if state != "both study and dataset":
        del args["studies"]
    return args


APPROVE_STATES = ("unknown", "open", "half", "half otherwise", "approved", "expired", "denied", "revoked")
REQUEST_STATES = ("unknown", "open", "half", "approved", "expired", "denied", "revoked")


@state("Approve", *APPROVE_STATES, "node revoked", "erased")
def approve(channel: Channel, organisation: str, state: str) -> Args:
    request = request_in(channel, state)
    if state == "node revoked":
        channel.call(CUSTODIAN, "RevokeNode", node=LAB_NODE)
    bring_erasure(channel, state)
    return approving(request)


@state("Approve", "dataset withdrawn")
def approve_dataset(channel: Channel, organisation: str) -> Args:
    return approving(dataset_request(channel, withdrawn=True))


def approving(request: bytes) -> Args:
    return {"id": request, "until": UNTIL, "release": "identified"}


def request_in(channel: Channel, state: str) -> bytes:
    """Lab's request on an anchored study, in the state; open in states of something else."""
    if state == "unknown":
        return UNKNOWN
    channel.anchor()
    channel.node()
    request = channel.request()
    for party in {"half": (CUSTODIAN,), "approved": (OWNER, CUSTODIAN), "expired": (OWNER, CUSTODIAN)}.get(state, ()):
        channel.call(party, "Approve", **approving(request))
    if state == "half otherwise":
        channel.approve(request, seconds=5 * DAY, by=(CUSTODIAN,))
    if state == "expired":
        channel.wait(UNTIL - channel.now)
    if state == "denied":
        channel.call(OWNER, "Deny", id=request, reason="purpose")
    if state == "revoked":
        channel.call(OWNER, "Revoke", id=request, reason="breach")
    return request


def dataset_request(channel: Channel, approved: bool = False, withdrawn: bool = False) -> bytes:
    """Lab's request on a dataset of two studies."""
    channel.node()
    bring_dataset(channel, "registered")
    request = channel.request_dataset()
    if approved:
        channel.approve(request)
    if withdrawn:
        channel.call(OWNER, "WithdrawDataset", id=DATASET, version=1)
    return request


@state("Deny", *REQUEST_STATES)
def deny(channel: Channel, organisation: str, state: str) -> Args:
    return {"id": request_in(channel, state), "reason": "purpose"}


@state("Revoke", *REQUEST_STATES)
def revoke(channel: Channel, organisation: str, state: str) -> Args:
    return {"id": request_in(channel, state), "reason": "breach"}


# Releases


@state("LogRelease", *REQUEST_STATES)
def log_release(channel: Channel, organisation: str, state: str) -> Args:
    request = request_in(channel, state)
    anchored = channel.ask("AnchorsOfStudy", study=STUDY) or [{"manifestCid": channel.anchor()}]
    return channel.release(request, anchored[0]["manifestCid"])


@state("LogRelease", "node revoked", "flagged since", "erasure requested", "erased", "not stored")
def log_release_later(channel: Channel, organisation: str, state: str) -> Args:
    request, manifest = channel.approved()
    if state == "node revoked":
        channel.call(CUSTODIAN, "RevokeNode", node=LAB_NODE)
    if state == "flagged since":
        channel.call(OWNER, "FlagTampered", **flagging(manifest))
    bring_erasure(channel, state)
    return channel.release(request, manifest)


@state("LogRelease", "other node", "study not named", "after the approval", "another study's anchor", "not anchored")
def log_release_beside(channel: Channel, organisation: str, state: str) -> Args:
    """What the approval does not cover."""
    request, manifest = channel.approved()
    if state == "other node":
        return channel.release(request, manifest, node=channel.node(LAB, "LAB2"))
    if state == "study not named":
        return channel.release(request, channel.anchor(study=OTHER_STUDY), study=OTHER_STUDY)
    if state == "after the approval":
        return channel.release(request, channel.anchor())
    if state == "another study's anchor":
        return channel.release(request, channel.anchor(study=OTHER_STUDY))
    return channel.release(request, cid("none"))


@state("LogRelease", "dataset proven", "dataset without proof", "dataset wrong proof", "dataset withdrawn")
def log_release_dataset(channel: Channel, organisation: str, state: str) -> Args:
    manifest = channel.anchor()
    request = dataset_request(channel, approved=True, withdrawn=state == "dataset withdrawn")
    release = channel.release(request, manifest)
    if state == "dataset without proof":
        return release
    proven = OTHER_STUDY if state == "dataset wrong proof" else STUDY
    return {**release, "proof": channel.proof(proven, STUDY, OTHER_STUDY)}


@state("LogRelease", "renewed")
def log_release_again(channel: Channel, organisation: str) -> Args:
    request, manifest = channel.approved()
    return channel.release(request, manifest, renews=released(channel, request, manifest))


def released(channel: Channel, request: bytes, manifest: str, **over: Any) -> bytes:
    return bytes(channel.call(OWNER, "LogRelease", **channel.release(request, manifest, **over))["release"])


@state("LogOutcome", "unknown", "released", "reported", "other content")
def log_outcome(channel: Channel, organisation: str, state: str) -> Args:
    def outcome(release: bytes) -> Args:
        return {"release": release, "sent": 2, "withheld": 1, "bitmapDigest": DIGEST}

    return told(channel, OWNER, "LogOutcome", outcome, state, {"sent": 1})


@state("LogRetrieval", "unknown", "released", "reported", "other content")
def log_retrieval(channel: Channel, organisation: str, state: str) -> Args:
    def retrieval(release: bytes) -> Args:
        return {"release": release, "outcome": "complete"}

    return told(channel, LAB, "LogRetrieval", retrieval, state, {"outcome": "partial"})


@state("ReportTamper", "unknown", "released", "reported", "other content")
def report_tamper(channel: Channel, organisation: str, state: str) -> Args:
    def report(release: bytes) -> Args:
        return {"release": release, "instance": INSTANCE, "observed": DIGEST}

    return told(channel, LAB, "ReportTamper", report, state, {"observed": OTHER_DIGEST})


def told(
    channel: Channel, teller: str, function: str, args: Callable[[bytes], Args], state: str, otherwise: Args
) -> Args:
    """A word on the owner's release to Lab, told before in the states that say so."""
    if state == "unknown":
        return args(UNKNOWN)
    said = args(released(channel, *channel.approved()))
    if state != "released":
        channel.call(teller, function, **said)
    return {**said, **otherwise} if state == "other content" else said


@state("LogDenials", "unregistered", "registered peer", "unknown peer", "both", "old seq")
def log_denials(channel: Channel, organisation: str, state: str) -> Args:
    args = {"reportingNode": own_node(organisation), "reason": "no approval", "seq": 5, "count": 2}
    if state == "registered peer":
        channel.register()
    if state == "old seq" and ROLES[organisation] != "research":
        channel.call(organisation, "LogDenials", unregistered=True, **args)
        args |= {"count": 3}
    if state in ("unregistered", "both", "old seq"):
        args |= {"unregistered": True}
    if state in ("registered peer", "unknown peer", "both"):
        args |= {"peer": LAB_NODE}
    return args


# Erasure


@state("RequestErase", "none", "requested", "cancelled", "erased")
def request_erase(channel: Channel, organisation: str, state: str) -> Args:
    return erasing(channel, state)


@state("CancelErase", "none", "requested", "cancelled", "erased")
def cancel_erase(channel: Channel, organisation: str, state: str) -> Args:
    return erasing(channel, state)


@state("ConfirmErase", "none", "before grace", "after grace", "erased")
def confirm_erase(channel: Channel, organisation: str, state: str) -> Args:
    return erasing(channel, state)


@state("ErasureDone", "none", "requested", "erased", "done")
def erasure_done(channel: Channel, organisation: str, state: str) -> Args:
    return erasing(channel, state)


def erasing(channel: Channel, state: str) -> Args:
    if state != "none":
        channel.erase_requested()
    if state == "cancelled":
        channel.call(OWNER, "CancelErase", study=STUDY)
    if state == "before grace":
        channel.wait(GRACE - 1)
    if state == "after grace":
        channel.wait(GRACE)
    if state in ("erased", "done"):
        channel.erased()
    if state == "done":
        for party in ROLES:
            channel.call(party, "ErasureDone", study=STUDY)
    return {"study": STUDY}


# The rest


@state("Cancel", "unknown", "pending", "confirmed", "cancelled")
def cancel(channel: Channel, organisation: str, state: str) -> Args:
    return confirm_supersede(channel, organisation, state)


@state("Cancel", "void")
def cancel_policy(channel: Channel, organisation: str) -> Args:
    return {"id": proposed_policy(channel, "void")}


@state("RevokeCertificate", "valid", "revoked")
def revoke_certificate(channel: Channel, organisation: str, state: str) -> Args:
    if state == "revoked":
        channel.call(organisation, "RevokeCertificate", serial="2a")
    return {"serial": "2a"}


@state("RegisterTrainingRun", "unknown release", "released", "dataset unknown", "other dataset")
def register_training_run(channel: Channel, organisation: str, state: str) -> Args:
    if state == "unknown release":
        return {"codeDigest": DIGEST, "releases": [UNKNOWN]}
    used = {"codeDigest": DIGEST, "releases": [released(channel, *channel.approved())]}
    if state == "released":
        return used
    bring_dataset(channel, "unknown" if state == "dataset unknown" else "registered")
    return {**used, "dataset": DATASET, "version": 1}


@state("RegisterModel", "unknown run", "registered run")
def register_model(channel: Channel, organisation: str, state: str) -> Args:
    run = UNKNOWN
    if state == "registered run":
        used = register_training_run(channel, LAB, "released")
        run = channel.call(LAB, "RegisterTrainingRun", **used)["id"]
    return {"digest": DIGEST, "run": run, "metricsDigest": DIGEST}


@state("any", "revoked certificate", "outside the policy", "clock skew")
def anything(channel: Channel, organisation: str, state: str) -> Args:
    if state == "revoked certificate":
        channel.call(organisation, "RevokeCertificate", serial=channel.host.serial)
    if state == "clock skew":
        channel.host.host_offset = 61
    return {"aeTitle": "NODE", "role": "clinical", "certDigests": []}

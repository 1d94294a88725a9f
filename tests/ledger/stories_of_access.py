"""Stories of nodes, datasets, requests, releases and what became of them; and of calls that no function looks at."""

from collections.abc import Callable
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
    cid,
)
from tests.ledger.stories import UNKNOWN, Args, Book, own_node
from tests.ledger.stories_of_custody import bring_erasure, flagging

STORIES = Book()
state = STORIES.state

UNTIL = START + 10 * DAY


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


@state("RegisterDataset", "new", "registered", "other content", "gap", "withdrawn", "withdrawn, next version")
def register_dataset(channel: Channel, organisation: str, state: str) -> Args:
    bring_dataset(channel, "unknown" if state in ("new", "gap") else state.removesuffix(", next version"))
    other = {"other content": {"count": 3}, "gap": {"version": 2}, "withdrawn, next version": {"version": 2}}
    return channel.listed(STUDY, OTHER_STUDY, **other.get(state, {}))


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


@state("Approve", *APPROVE_STATES, "node revoked", "erasure requested", "erased")
def approve(channel: Channel, organisation: str, state: str) -> Args:
    request = request_in(channel, state)
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
    if state == "node revoked":
        channel.call(CUSTODIAN, "RevokeNode", node=LAB_NODE)
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


@state("Deny", *REQUEST_STATES, "node revoked")
def deny(channel: Channel, organisation: str, state: str) -> Args:
    return {"id": request_in(channel, state), "reason": "purpose"}


@state("Revoke", *REQUEST_STATES, "node revoked")
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


# Certificates, lineage, and what every call goes through


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

"""Stories of policies, anchors, supersession, withdrawal, tampering and erasure."""

from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    INSTANCE,
    OTHER_DIGEST,
    OWNER,
    ROLES,
    STUDY,
    Channel,
    cid,
    policy,
)
from tests.ledger.stories import UNKNOWN, Args, Book, own_node

STORIES = Book()
state = STORIES.state

GRACE = policy()["erase_grace_s"]


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


# Cancellation


@state("Cancel", "unknown", "pending", "confirmed", "cancelled")
def cancel(channel: Channel, organisation: str, state: str) -> Args:
    return confirm_supersede(channel, organisation, state)


@state("Cancel", "void")
def cancel_policy(channel: Channel, organisation: str) -> Args:
    return {"id": proposed_policy(channel, "void")}

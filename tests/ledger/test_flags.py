"""Tampering: flagged by either party, resolved by both; copies that were repaired."""

from typing import Any

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    INSTANCE,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    cid,
)


def flagging(manifest: str, **over: Any) -> dict[str, Any]:
    args = {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": manifest, "observed": DIGEST, "what": []}
    return {**args, **over}


def resolving(manifest: str, **over: Any) -> dict[str, Any]:
    return {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": manifest, **over}


def superseded(channel: Channel, old: str) -> str:
    """The manifest of a confirmed supersession."""
    new = channel.anchor()
    args = {"study": STUDY, "instance": INSTANCE, "oldManifest": old, "newManifest": new, "reason": "quality"}
    channel.call(CUSTODIAN, "ConfirmSupersede", id=channel.call(OWNER, "Supersede", **args)["id"])
    return new


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_a_tampered_instance_is_flagged_by_owner_or_custodian(channel: Channel, organisation: str) -> None:
    manifest = channel.anchor()
    channel.repeats(organisation, "FlagTampered", **flagging(manifest, what=["(0028,0010)", 0]))
    standing = channel.ask("StandingOf", study=STUDY)
    assert standing["flagged"] == [{"instance": INSTANCE, "manifestCid": manifest, "n": 0}]
    assert standing["version"] == 1
    assert channel.ask("StandingOf", study=OTHER_STUDY)["version"] == 0


def test_a_flag_cannot_be_rewritten(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    channel.refuses("CONFLICT", "n", CUSTODIAN, "FlagTampered", **flagging(manifest, observed=OTHER_DIGEST))
    channel.refuses("INVALID", "n", OWNER, "FlagTampered", **flagging(manifest, n=2))
    channel.call(OWNER, "FlagTampered", **flagging(manifest, n=1, observed=None))
    assert [flag["n"] for flag in channel.ask("StandingOf", study=STUDY)["flagged"]] == [0, 1]


def test_a_flag_names_an_anchor_of_the_study(channel: Channel) -> None:
    elsewhere = channel.anchor(study=OTHER_STUDY)
    channel.refuses("NOT_FOUND", "manifestCid", OWNER, "FlagTampered", **flagging(cid("none")))
    channel.refuses("INVALID", "manifestCid", OWNER, "FlagTampered", **flagging(elsewhere))


@pytest.mark.parametrize("order", [(OWNER, CUSTODIAN), (CUSTODIAN, OWNER)])
def test_a_flag_stands_until_both_have_resolved_it(channel: Channel, order: tuple[str, str]) -> None:
    manifest = channel.anchor()
    channel.call(CUSTODIAN, "FlagTampered", **flagging(manifest))
    assert channel.call(order[0], "Resolve", **resolving(manifest)) == {"state": "flagged"}
    channel.repeats(order[0], "Resolve", **resolving(manifest))
    assert len(channel.ask("StandingOf", study=STUDY)["flagged"]) == 1
    channel.repeats(order[1], "Resolve", **resolving(manifest))
    standing = channel.ask("StandingOf", study=STUDY)
    assert (standing["flagged"], standing["version"]) == ([], 2)
    assert standing["resolved"] == [{"instance": INSTANCE, "manifestCid": manifest, "n": 0}]


def test_two_words_for_two_manifests_resolve_nothing(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    corrected = superseded(channel, manifest)
    channel.call(OWNER, "Resolve", **resolving(manifest))
    assert channel.call(CUSTODIAN, "Resolve", **resolving(corrected)) == {"state": "flagged"}
    assert len(channel.ask("StandingOf", study=STUDY)["flagged"]) == 1
    assert channel.call(OWNER, "Resolve", **resolving(corrected)) == {"state": "resolved"}
    assert channel.ask("StandingOf", study=STUDY)["resolved"][0]["manifestCid"] == corrected
    channel.refuses("WRONG_STATE", "resolved", CUSTODIAN, "Resolve", **resolving(manifest))


def test_a_flag_is_resolved_for_the_flagged_anchor_or_the_current_record_only(channel: Channel) -> None:
    manifest, unrelated = channel.anchor(), channel.anchor()
    elsewhere = channel.anchor(study=OTHER_STUDY)
    channel.refuses("NOT_FOUND", "n", OWNER, "Resolve", **resolving(manifest))
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    channel.refuses("NOT_FOUND", "n", OWNER, "Resolve", **resolving(manifest, n=1))
    channel.refuses("NOT_FOUND", "manifestCid", OWNER, "Resolve", **resolving(cid("none")))
    for other in (elsewhere, unrelated):
        channel.refuses("INVALID", "manifestCid", OWNER, "Resolve", **resolving(other))


def test_a_manifest_superseded_between_the_two_words_does_not_resolve(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    corrected = superseded(channel, manifest)
    channel.call(OWNER, "Resolve", **resolving(corrected))
    superseded(channel, corrected)
    channel.refuses("INVALID", "manifestCid", CUSTODIAN, "Resolve", **resolving(corrected))


def test_a_resolved_instance_can_be_flagged_again(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    for organisation in (OWNER, CUSTODIAN):
        channel.call(organisation, "Resolve", **resolving(manifest))
    channel.call(OWNER, "FlagTampered", **flagging(manifest, n=1))
    standing = channel.ask("StandingOf", study=STUDY)
    assert ([flag["n"] for flag in standing["flagged"]], [flag["n"] for flag in standing["resolved"]]) == ([1], [0])


def test_an_erased_study_is_neither_flagged_nor_resolved(channel: Channel) -> None:
    manifest = channel.anchor()
    channel.call(OWNER, "FlagTampered", **flagging(manifest))
    channel.erase_requested()
    channel.erased()
    channel.refuses("WRONG_STATE", "erased", OWNER, "FlagTampered", **flagging(manifest, n=1))
    channel.refuses("WRONG_STATE", "erased", OWNER, "Resolve", **resolving(manifest))


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_a_repair_is_noted_for_ones_own_node_and_blocks_nothing(channel: Channel, organisation: str) -> None:
    before = channel.ask("StandingOf", study=STUDY)
    report = {"study": STUDY, "instance": INSTANCE}
    channel.repeats(organisation, "ReportRepair", node={"organisation": organisation, "aeTitle": "PACS"}, **report)
    channel.refuses("NOT_PERMITTED", "node", organisation, "ReportRepair", node=LAB_NODE, **report)
    assert channel.ask("StandingOf", study=STUDY) == before

"""Conflicts, supersession, tampering, and the study's standing."""

from typing import Any

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    INSTANCE,
    OTHER_DIGEST,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    cid,
)


def superseding(old: str, new: str, **over: Any) -> dict[str, Any]:
    args = {"study": STUDY, "instance": INSTANCE, "oldManifest": old, "newManifest": new, "reason": "wrong-worklist"}
    return {**args, **over}


def flagging(manifest: str, **over: Any) -> dict[str, Any]:
    args = {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": manifest, "observed": DIGEST, "what": []}
    return {**args, **over}


def version(channel: Channel, study: bytes = STUDY) -> int:
    return int(channel.ask("StandingOf", study=study)["version"])


def test_a_conflict_is_noted_and_blocks_nothing(channel: Channel) -> None:
    channel.anchor()
    before = channel.ask("StandingOf", study=STUDY)
    channel.repeats(OWNER, "ReportConflict", study=STUDY, instance=INSTANCE, presented=DIGEST)
    assert channel.ask("StandingOf", study=STUDY) == before


def test_a_supersession_counts_only_when_the_custodian_confirms(channel: Channel) -> None:
    old, new = channel.anchor(), channel.anchor()
    pending = channel.call(OWNER, "Supersede", **superseding(old, new))["id"]
    assert channel.ask("StandingOf", study=STUDY)["superseded"] == []
    channel.refuses("NOT_PERMITTED", "role", OWNER, "ConfirmSupersede", id=pending)
    channel.repeats(CUSTODIAN, "ConfirmSupersede", id=pending)
    standing = channel.ask("StandingOf", study=STUDY)
    assert standing["superseded"] == [{"instance": INSTANCE, "newManifest": new}]
    assert standing["version"] == 1


def test_a_supersession_starts_from_the_current_record(channel: Channel) -> None:
    first, second, third = channel.anchor(), channel.anchor(), channel.anchor()
    rivals = [channel.call(OWNER, "Supersede", **superseding(first, new))["id"] for new in (second, third)]
    channel.call(CUSTODIAN, "ConfirmSupersede", id=rivals[0])
    channel.refuses("WRONG_STATE", "oldManifest", CUSTODIAN, "ConfirmSupersede", id=rivals[1])
    channel.refuses("WRONG_STATE", "oldManifest", OWNER, "Supersede", **superseding(first, third))
    again = channel.call(OWNER, "Supersede", **superseding(second, third))["id"]
    channel.call(CUSTODIAN, "ConfirmSupersede", id=again)
    assert channel.ask("StandingOf", study=STUDY)["superseded"][0]["newManifest"] == third
    assert version(channel) == 2


def test_a_supersession_names_two_anchors_of_the_study(channel: Channel) -> None:
    here, elsewhere = channel.anchor(), channel.anchor(study=OTHER_STUDY)
    channel.refuses("NOT_FOUND", "newManifest", OWNER, "Supersede", **superseding(here, cid("none")))
    channel.refuses("NOT_FOUND", "oldManifest", OWNER, "Supersede", **superseding(cid("none"), here))
    channel.refuses("INVALID", "newManifest", OWNER, "Supersede", **superseding(here, elsewhere))
    channel.refuses("INVALID", "newManifest", OWNER, "Supersede", **superseding(here, here))


@pytest.mark.parametrize("organisation", [OWNER, CUSTODIAN])
def test_a_tampered_instance_is_flagged_by_owner_or_custodian(channel: Channel, organisation: str) -> None:
    manifest = channel.anchor()
    channel.repeats(organisation, "FlagTampered", **flagging(manifest, what=["(0028,0010)", 0]))
    standing = channel.ask("StandingOf", study=STUDY)
    assert standing["flagged"] == [{"instance": INSTANCE, "manifestCid": manifest, "n": 0}]
    assert standing["version"] == 1
    assert version(channel, OTHER_STUDY) == 0


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


def test_the_standing_of_an_untouched_study(channel: Channel) -> None:
    untouched = {"version": 0, "superseded": [], "flagged": [], "withdrawn": [], "erased": "none"}
    assert channel.ask("StandingOf", study=STUDY) == untouched

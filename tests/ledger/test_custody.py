"""Conflicts and supersession, and the study's standing."""

from typing import Any

from tests.ledger.channel import (
    CUSTODIAN,
    DAY,
    DIGEST,
    INSTANCE,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    cid,
)


def superseding(old: str, new: str, **over: Any) -> dict[str, Any]:
    args = {"study": STUDY, "instance": INSTANCE, "oldManifest": old, "newManifest": new, "reason": "wrong-worklist"}
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


def test_a_cancelled_supersession_is_not_confirmed(channel: Channel) -> None:
    pending = channel.call(OWNER, "Supersede", **superseding(channel.anchor(), channel.anchor()))["id"]
    channel.repeats(CUSTODIAN, "Cancel", id=pending)
    channel.refuses("WRONG_STATE", "cancelled", CUSTODIAN, "ConfirmSupersede", id=pending)
    assert channel.ask("StandingOf", study=STUDY)["superseded"] == []


def test_nothing_is_superseded_in_an_erased_study(channel: Channel) -> None:
    old, new = channel.anchor(), channel.anchor()
    pending, confirmed = (channel.call(OWNER, "Supersede", **superseding(old, new))["id"] for _ in range(2))
    channel.call(CUSTODIAN, "ConfirmSupersede", id=confirmed)
    channel.erase_requested()
    channel.erased()
    channel.refuses("WRONG_STATE", "erased", OWNER, "Supersede", **superseding(new, old))
    channel.refuses("WRONG_STATE", "erased", CUSTODIAN, "ConfirmSupersede", id=pending)
    assert channel.call(CUSTODIAN, "ConfirmSupersede", id=confirmed) == {"version": 1}


def test_the_standing_of_an_untouched_study(channel: Channel) -> None:
    untouched = {"version": 0, "superseded": [], "flagged": [], "resolved": [], "withdrawn": [], "erased": "none"}
    assert channel.ask("StandingOf", study=STUDY) == untouched


def test_everything_that_takes_or_gives_back_raises_the_standing_by_one(channel: Channel) -> None:
    old, new = channel.anchor(), channel.anchor()
    versions = []

    def count(organisation: str, function: str, **args: Any) -> Any:
        result = channel.call(organisation, function, **args)
        versions.append(version(channel))
        return result

    withdrawal = count(OWNER, "Withdraw", study=STUDY, reason="113001")["id"]
    count(OWNER, "Reinstate", id=withdrawal)
    count(CUSTODIAN, "Reinstate", id=withdrawal)
    flag = {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": old}
    count(OWNER, "FlagTampered", observed=None, what=[], **flag)
    count(CUSTODIAN, "Resolve", **flag)
    count(OWNER, "Resolve", **flag)
    pending = count(OWNER, "Supersede", **superseding(old, new))["id"]
    count(CUSTODIAN, "ConfirmSupersede", id=pending)
    count(CUSTODIAN, "RequestErase", study=STUDY)
    count(OWNER, "CancelErase", study=STUDY)
    count(OWNER, "RequestErase", study=STUDY)
    channel.wait(7 * DAY)
    count(CUSTODIAN, "ConfirmErase", study=STUDY)
    assert versions == [1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 8]
    assert version(channel, OTHER_STUDY) == 0

"""Anchors: exactly once, and what cannot be changed about them."""

from typing import Any

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    OTHER_DIGEST,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    cid,
)

ARGS: dict[str, Any] = {"manifestCid": cid("m"), "study": STUDY, "root": DIGEST, "count": 3, "kind": "original"}
DERIVED: dict[str, Any] = {**ARGS, "kind": "derived", "from": OTHER_DIGEST, "profile": "113100"}


def test_an_anchor_submitted_again_is_anchored_once(channel: Channel) -> None:
    channel.repeats(OWNER, "Anchor", **ARGS)
    assert len(channel.ask("AnchorsOfStudy", study=STUDY)) == 1


@pytest.mark.parametrize(
    ("name", "other"), [("study", OTHER_STUDY), ("root", OTHER_DIGEST), ("count", 4), ("profile", "113101")]
)
def test_an_anchored_manifest_cannot_get_other_content(channel: Channel, name: str, other: object) -> None:
    first = DERIVED if name == "profile" else ARGS
    channel.call(OWNER, "Anchor", **first)
    channel.refuses("CONFLICT", name, OWNER, "Anchor", **{**first, name: other})


def test_a_derived_anchor_carries_its_commitment_and_an_original_none(channel: Channel) -> None:
    channel.refuses("INVALID", "from", OWNER, "Anchor", **{**ARGS, "kind": "derived"})
    channel.refuses("INVALID", "from", OWNER, "Anchor", **{**ARGS, "from": DIGEST})
    channel.refuses("INVALID", "profile", OWNER, "Anchor", **{**ARGS, "profile": "113100"})
    channel.call(OWNER, "Anchor", **DERIVED)
    shown = channel.ask("GetAnchor", manifestCid=cid("m"))
    assert {name: shown[name] for name in DERIVED} == DERIVED


def test_anchors_come_in_the_order_of_their_commits(channel: Channel) -> None:
    cids = [channel.anchor() for _ in range(12)]
    channel.anchor(study=OTHER_STUDY)
    shown = channel.ask("AnchorsOfStudy", study=STUDY)
    assert [row["manifestCid"] for row in shown] == cids
    assert [row["number"] for row in shown] == list(range(12))
    assert channel.ask("AnchorsOfStudy", study=STUDY, offset=2, limit=3) == shown[2:5]


def test_the_custodian_confirms_what_it_stores(channel: Channel) -> None:
    manifest = channel.anchor()
    assert channel.ask("GetAnchor", manifestCid=manifest)["stored"] is False
    channel.repeats(CUSTODIAN, "ConfirmStored", manifestCid=manifest)
    assert channel.ask("GetAnchor", manifestCid=manifest)["stored"] is True
    assert channel.ask("AnchorsOfStudy", study=STUDY)[0]["stored"] is True


def test_anchors_are_listed_by_their_cid_from_any_place_on(channel: Channel) -> None:
    cids = sorted(channel.anchor(study=study) for study in (STUDY, OTHER_STUDY) * 3)
    channel.call(CUSTODIAN, "ConfirmStored", manifestCid=cids[0])
    shown = channel.ask("Anchors")
    assert [row["manifestCid"] for row in shown] == cids
    assert [row["stored"] for row in shown] == [True, *[False] * 5]
    assert channel.ask("Anchors", after=cids[2], limit=2) == shown[3:5]
    between = cid("nothing")
    assert channel.ask("Anchors", after=between) == [row for row in shown if row["manifestCid"] > between]


def test_nothing_is_anchored_for_an_erased_study(channel: Channel) -> None:
    channel.erase_requested()
    channel.call(OWNER, "Anchor", **ARGS)
    channel.erased()
    channel.refuses("WRONG_STATE", "erased", OWNER, "Anchor", **{**ARGS, "manifestCid": cid("n")})
    channel.anchor(study=OTHER_STUDY)
    assert (
        channel.call(OWNER, "Anchor", **ARGS)["sequence"] == channel.ask("AnchorsOfStudy", study=STUDY)[0]["sequence"]
    )

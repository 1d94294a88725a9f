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
    assert [row["sequence"] for row in shown] == sorted(row["sequence"] for row in shown)
    assert channel.ask("AnchorsOfStudy", study=STUDY, offset=2, limit=3) == shown[2:5]


def test_the_custodian_confirms_what_it_stores(channel: Channel) -> None:
    manifest = channel.anchor()
    assert channel.ask("GetAnchor", manifestCid=manifest)["stored"] is False
    channel.repeats(CUSTODIAN, "ConfirmStored", manifestCid=manifest)
    assert channel.ask("GetAnchor", manifestCid=manifest)["stored"] is True
    assert channel.ask("AnchorsOfStudy", study=STUDY)[0]["stored"] is True


@pytest.mark.parametrize("state", ["requested", "erased"])
def test_nothing_is_anchored_for_a_study_in_erasure(memory: Channel, state: str) -> None:
    memory.host.put(f"erasure/{STUDY.hex()}", {"state": state})
    memory.refuses("WRONG_STATE", state, OWNER, "Anchor", **ARGS)
    memory.anchor(study=OTHER_STUDY)

"""Nodes: proposed by their organisation, confirmed by the custodian, version by version."""

import pytest

from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    LAB,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_LAB,
    OTHER_NODE,
    OWNER,
    Channel,
)


def shown(channel: Channel, organisation: str = LAB) -> dict[str, object]:
    found: list[dict[str, object]] = [
        row for row in channel.ask("Nodes") if row["node"]["organisation"] == organisation
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("organisation", "role", "allowed"),
    [
        (OWNER, "modality", True),
        (OWNER, "clinical", True),
        (OWNER, "research", False),
        (LAB, "research", True),
        (LAB, "clinical", False),
        (LAB, "modality", False),
    ],
)
def test_who_registers_which_role(channel: Channel, organisation: str, role: str, allowed: bool) -> None:
    args = {"aeTitle": "NODE", "role": role, "certDigests": []}
    if allowed:
        channel.repeats(organisation, "RegisterNode", **args)
    else:
        channel.refuses("NOT_PERMITTED", "role", organisation, "RegisterNode", **args)


def test_a_node_is_current_only_when_confirmed(channel: Channel) -> None:
    version = channel.register(digests=(DIGEST,))
    assert shown(channel)["state"] == "proposed"
    channel.refuses("NOT_PERMITTED", "role", LAB, "ConfirmNode", node=LAB_NODE, version=version)
    channel.repeats(CUSTODIAN, "ConfirmNode", node=LAB_NODE, version=version)
    assert shown(channel)["state"] == "confirmed"
    assert shown(channel)["confirmed"] == {"version": 1, "role": "research", "certDigests": [DIGEST]}


def test_a_version_swapped_under_the_custodians_eyes_is_not_confirmed(channel: Channel) -> None:
    seen = channel.register(digests=(DIGEST,))
    channel.register(digests=(OTHER_DIGEST,))
    channel.refuses("WRONG_STATE", "version", CUSTODIAN, "ConfirmNode", node=LAB_NODE, version=seen)


def test_a_proposed_version_leaves_the_confirmed_one_current(channel: Channel) -> None:
    channel.node()
    channel.register(digests=(OTHER_DIGEST,))
    confirmed, proposed = shown(channel)["confirmed"], shown(channel)["proposed"]
    assert confirmed == {"version": 1, "role": "research", "certDigests": []}
    assert proposed == {"version": 2, "role": "research", "certDigests": [OTHER_DIGEST]}
    assert channel.request()


def test_another_organisation_with_the_same_ae_title_is_another_node(channel: Channel) -> None:
    channel.node()
    version = channel.register(OTHER_LAB, "LAB1")
    channel.refuses(
        "WRONG_STATE", "node", OTHER_LAB, "RequestAccess", nonce=b"n" * 16, **channel.access(node=OTHER_NODE)
    )
    channel.call(CUSTODIAN, "ConfirmNode", node=OTHER_NODE, version=version)
    assert len(channel.ask("Nodes")) == 2


@pytest.mark.parametrize("organisation", [LAB, CUSTODIAN])
def test_its_organisation_and_the_custodian_revoke_a_node(channel: Channel, organisation: str) -> None:
    channel.node()
    channel.repeats(organisation, "RevokeNode", node=LAB_NODE)
    assert shown(channel)["state"] == "revoked"


@pytest.mark.parametrize("organisation", [OWNER, OTHER_LAB])
def test_nobody_else_revokes_a_node(channel: Channel, organisation: str) -> None:
    channel.node()
    channel.refuses("NOT_PERMITTED", "node", organisation, "RevokeNode", node=LAB_NODE)


def test_a_revoked_nodes_pending_version_cannot_be_confirmed(channel: Channel) -> None:
    version = channel.register()
    channel.call(LAB, "RevokeNode", node=LAB_NODE)
    channel.refuses("WRONG_STATE", "version", CUSTODIAN, "ConfirmNode", node=LAB_NODE, version=version)
    assert channel.register() == version + 1


def test_an_unknown_node_cannot_be_revoked(channel: Channel) -> None:
    channel.refuses("NOT_FOUND", "node", CUSTODIAN, "RevokeNode", node=LAB_NODE)

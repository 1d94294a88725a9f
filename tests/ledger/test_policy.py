"""The policy: once, and only the one the ledger was started with."""

from collections.abc import Callable
from typing import Any

import pytest

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.policy import policy_digest
from tests.ledger.channel import CUSTODIAN, DIGEST, LAB, OWNER, STUDY, Channel, Memory, cid, policy

NewChannel = Callable[..., Channel]


def test_the_policy_comes_first(new_channel: NewChannel) -> None:
    channel = new_channel()
    args = {"manifestCid": cid("m"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    channel.refuses("WRONG_STATE", "policy", OWNER, "Anchor", **args)
    with pytest.raises(ContractError, match="WRONG_STATE policy"):
        channel.ask("GetPolicy")


def test_only_the_policy_of_the_genesis_is_taken(new_channel: NewChannel) -> None:
    channel = new_channel()
    channel.refuses("INVALID", "policy", OWNER, "InitPolicy", policy=policy(lease_s=59))
    channel.init()
    assert channel.ask("GetPolicy") == channel.policy


def test_a_research_organisation_cannot_bring_the_policy(new_channel: NewChannel) -> None:
    channel = new_channel()
    channel.refuses("NOT_PERMITTED", "role", LAB, "InitPolicy", policy=channel.policy)


def test_a_second_policy_is_refused_and_the_same_again_changes_nothing(new_channel: NewChannel) -> None:
    channel = new_channel()
    channel.repeats(CUSTODIAN, "InitPolicy", policy=channel.policy)
    channel.refuses("INVALID", "policy", OWNER, "InitPolicy", policy=policy(require_stored=True))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("organisations", {"A": "owner", "B": "owner"}),
        ("organisations", {"A": "owner", "B": "custodian", "C": "custodian"}),
        ("organisations", {"A": "owner"}),
        ("organisations", {"A": "owner", "B": "custodian", "C": "auditor"}),
        ("organisations", {"A": "owner", "B": "custodian", "C/D": "research"}),
        ("approvals", []),
        ("approvals", ["research"]),
        ("identified_needs", ["owner", "owner"]),
        ("release_forms", []),
        ("release_forms", ["raw"]),
        ("max_days", 0),
        ("lease_s", 61),
        ("lease_s", 0),
        ("require_stored", 1),
        ("max_clock_skew_s", -1),
        ("excluded_origins", ["email"]),
        ("surprise", 1),
    ],
)
def test_a_malformed_policy_is_refused_by_the_fields_name(field: str, wrong: Any) -> None:
    with pytest.raises(ContractError) as refusal:
        policy_digest(policy(**{field: wrong}))
    assert (refusal.value.code, refusal.value.field) == ("INVALID", field)


def test_identified_releases_need_owner_and_custodian_by_default() -> None:
    assert policy()["identified_needs"] == ["owner", "custodian"]
    assert policy()["release_forms"] == ["identified"]


@pytest.mark.parametrize("offset", [-121, 121])
def test_a_time_too_far_from_the_hosts_clock_is_refused(offset: int) -> None:
    chosen = policy(max_clock_skew_s=120)
    host = Memory(chosen)
    channel = Channel(host, chosen).init()
    host.host_offset = offset
    channel.refuses("SKEW", "time", OWNER, "RegisterNode", aeTitle="PACS", role="clinical", certDigests=[])
    host.host_offset = 120 if offset > 0 else -120
    channel.call(OWNER, "RegisterNode", aeTitle="PACS", role="clinical", certDigests=[])


def test_a_skew_of_zero_switches_the_check_off(memory: Channel) -> None:
    memory.host.host_offset = 10**6
    memory.call(OWNER, "RegisterNode", aeTitle="PACS", role="clinical", certDigests=[])

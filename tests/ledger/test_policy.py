"""The policy: the first only the one the ledger was started with, every later one confirmed by the other party."""

from collections.abc import Callable
from typing import Any

import pytest

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.policy import policy_digest
from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    LAB,
    LAB_NODE,
    OTHER_LAB,
    OWNER,
    ROLES,
    STUDY,
    Channel,
    Memory,
    cid,
    policy,
)

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
        ("certificates", {"OtherlabMSP": b""}),
        ("certificates", {"OtherlabMSP": b"x" * 4097}),
        ("certificates", {"Other/Lab": b"x"}),
        ("certificates", {"OtherlabMSP": "PEM"}),
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


def changed(channel: Channel, **fields: Any) -> None:
    """Bring a policy with other fields into force."""
    proposal = channel.call(OWNER, "ProposePolicy", policy=policy(**fields))["id"]
    channel.call(CUSTODIAN, "ConfirmPolicy", id=proposal)


@pytest.mark.parametrize(("proposes", "confirms"), [(OWNER, CUSTODIAN), (CUSTODIAN, OWNER)])
def test_a_policy_is_in_force_once_the_other_party_confirms(channel: Channel, proposes: str, confirms: str) -> None:
    proposal = channel.call(proposes, "ProposePolicy", policy=policy(lease_s=30))["id"]
    channel.refuses("NOT_PERMITTED", "id", proposes, "ConfirmPolicy", id=proposal)
    assert channel.ask("GetPolicy")["lease_s"] == 60
    channel.repeats(confirms, "ConfirmPolicy", id=proposal)
    assert channel.ask("GetPolicy") == policy(lease_s=30)


def test_a_proposal_sent_again_is_one(channel: Channel) -> None:
    channel.repeats(OWNER, "ProposePolicy", policy=policy(lease_s=30))
    assert len(channel.ask("Pending")) == 1


def test_a_confirmed_policy_voids_the_other_proposals(channel: Channel) -> None:
    proposals = [channel.call(OWNER, "ProposePolicy", policy=policy(lease_s=lease))["id"] for lease in (10, 20)]
    channel.call(CUSTODIAN, "ConfirmPolicy", id=proposals[0])
    channel.refuses("WRONG_STATE", "void", CUSTODIAN, "ConfirmPolicy", id=proposals[1])
    channel.refuses("WRONG_STATE", "void", OWNER, "Cancel", id=proposals[1])
    again = channel.call(OWNER, "ProposePolicy", policy=policy(lease_s=20))["id"]
    assert channel.call(CUSTODIAN, "ConfirmPolicy", id=again) == {"version": 2}
    assert channel.call(CUSTODIAN, "ConfirmPolicy", id=proposals[0]) == {"version": 1}  # a repeat brings nothing back
    assert channel.ask("GetPolicy")["lease_s"] == 20


def test_a_cancelled_proposal_is_not_confirmed(channel: Channel) -> None:
    proposal = channel.call(OWNER, "ProposePolicy", policy=policy(lease_s=10))["id"]
    channel.repeats(CUSTODIAN, "Cancel", id=proposal)
    channel.refuses("WRONG_STATE", "cancelled", CUSTODIAN, "ConfirmPolicy", id=proposal)
    channel.refuses("NOT_FOUND", "id", CUSTODIAN, "ConfirmPolicy", id=DIGEST)


@pytest.mark.parametrize(
    "organisations",
    [
        {**ROLES, OWNER: "custodian", CUSTODIAN: "owner"},
        {**ROLES, OWNER: "research", LAB: "owner"},
        {name: role for name, role in {**ROLES, "NewMSP": "owner"}.items() if name != OWNER},
    ],
)
def test_owner_and_custodian_are_fixed_with_the_channel(channel: Channel, organisations: dict[str, str]) -> None:
    proposed = policy(organisations=organisations)
    channel.refuses("INVALID", "organisations", OWNER, "ProposePolicy", nonce=b"n" * 16, policy=proposed)


def test_a_malformed_proposal_is_refused_by_the_fields_name(channel: Channel) -> None:
    for field in ("lease_s", "surprise"):
        channel.refuses("INVALID", field, OWNER, "ProposePolicy", nonce=b"n" * 16, policy=policy(**{field: 61}))


def test_an_organisation_joins_by_a_policy_with_its_certificate(memory: Channel) -> None:
    joined = {"organisations": {**ROLES, "NewMSP": "research"}, "certificates": {"NewMSP": b"DER"}}
    node = {"aeTitle": "NEW", "role": "research", "certDigests": []}
    memory.refuses("NOT_PERMITTED", "organisation", "NewMSP", "RegisterNode", **node)
    changed(memory, **joined)
    assert memory.call("NewMSP", "RegisterNode", **node)["version"] == 1


def test_an_organisation_outside_the_policy_gets_nothing_more(channel: Channel) -> None:
    request, manifest = channel.approved()
    waiting = channel.request()
    changed(channel, organisations={name: role for name, role in ROLES.items() if name != LAB})
    release = channel.release(request, manifest)
    channel.refuses("WRONG_STATE", "node", OWNER, "LogRelease", nonce=b"n" * 16, **release)
    until = channel.now + 1
    channel.refuses("WRONG_STATE", "node", OWNER, "Approve", id=waiting, until=until, release="identified")
    assert channel.ask("ApprovedStudies", node=LAB_NODE) == []
    channel.refuses("NOT_PERMITTED", "organisation", LAB, "Revoke", id=request, reason="other")
    changed(channel)
    assert channel.call(OWNER, "LogRelease", **release)


def test_who_must_approve_is_the_policys_word_at_each_approval(channel: Channel) -> None:
    channel.node()
    request = channel.request()
    changed(channel, identified_needs=["custodian"])
    until = channel.now + 100
    channel.refuses("NOT_PERMITTED", "role", OWNER, "Approve", id=request, until=until, release="identified")
    channel.approve(request, by=(CUSTODIAN,))
    changed(channel, lease_s=30)  # owner again needed: what was approved stays
    assert channel.ask("GetRequest", id=request)["state"] == "approved"


def test_fewer_days_in_the_policy_bind_requests_made_before(channel: Channel) -> None:
    channel.node(OTHER_LAB)
    channel.node()
    request = channel.request(days=30)
    changed(channel, max_days=5)
    late = {"id": request, "until": channel.now + 5 * 86_400 + 1, "release": "identified"}
    channel.refuses("INVALID", "until", OWNER, "Approve", **late)
    channel.call(OWNER, "Approve", **{**late, "until": late["until"] - 1})

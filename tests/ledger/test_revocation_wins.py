"""What ends an approval wins over every release that commits after it, whatever anybody does before and after."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthanc_ledger.errors import ContractError
from tests.ledger.channel import (
    CUSTODIAN,
    DATASET,
    LAB,
    LAB_NODE,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    Memory,
    policy,
)
from tests.ledger.random_calls import (
    EVERYBODY,
    WITHOUT_LAB,
    Drawn,
    approve_every_request,
    call_one,
    crowded,
    permitted,
    releases,
)

Release = dict[str, Any]


def confirm_anew(channel: Channel) -> None:
    channel.node()


def register_again(channel: Channel) -> None:
    channel.call(OWNER, "RegisterDataset", **channel.listed(STUDY, OTHER_STUDY))


def remove_lab(channel: Channel, request: bytes) -> None:
    proposal = channel.call(OWNER, "ProposePolicy", policy=WITHOUT_LAB)["id"]
    channel.call(CUSTODIAN, "ConfirmPolicy", id=proposal)


@dataclass(frozen=True)
class Ending:
    """Something that ends approvals: how it is done, which releases it ends, and what alone would give them back.

    `again` is what a naive reader would try to get them back with.
    """

    end: Callable[[Channel, bytes], object]
    ends: Callable[[Release, bytes], bool]
    given_back_by: tuple[str, ...] = ()
    again: Callable[[Channel], None] = approve_every_request


ENDINGS = {
    "Revoke": Ending(
        lambda channel, request: channel.call(LAB, "Revoke", id=request, reason="completed"),
        lambda release, request: release["request"] == request,
    ),
    "RevokeNode": Ending(
        lambda channel, request: channel.call(CUSTODIAN, "RevokeNode", node=LAB_NODE),
        lambda release, request: release["node"] == LAB_NODE,
        again=confirm_anew,
    ),
    "WithdrawDataset": Ending(
        lambda channel, request: channel.call(OWNER, "WithdrawDataset", id=DATASET, version=1),
        lambda release, request: "proof" in release,
        again=register_again,
    ),
    "policy without the organisation": Ending(
        remove_lab,
        lambda release, request: release["node"]["organisation"] == LAB,
        given_back_by=("ProposePolicy", "ConfirmPolicy"),
    ),
    "RequestErase": Ending(
        lambda channel, request: channel.call(OWNER, "RequestErase", study=STUDY),
        lambda release, request: release["study"] == STUDY,
        given_back_by=("CancelErase",),
    ),
}
CASES = 50


@pytest.mark.parametrize("name", ENDINGS)
@settings(max_examples=CASES, deadline=None)
@given(data=st.data())
def test_no_release_commits_after(name: str, data: st.DataObject) -> None:
    """50 cases for each ending: up to 4 calls by everybody, the ending, up to 8 calls, the same asked for again.

    Then every release there is to try is refused, and so is every one of a request denied or revoked by then.
    """
    draw, ending = Drawn(data), ENDINGS[name]
    channel = crowded(Channel(Memory(policy()), policy()).init())
    request = next(r["request"] for r in releases(channel) if "proof" not in r and permitted(channel, r))
    assert any(ending.ends(release, request) for release in releases(channel) if permitted(channel, release))
    for _ in range(draw.number(0, 4)):
        call_one(draw, channel, EVERYBODY)
    known = {release["request"] for release in releases(channel)}
    try:
        ending.end(channel, request)
    except ContractError:
        return  # one of the calls was first: nothing was left to end
    over = {row["id"] for state in ("denied", "revoked") for row in channel.ask("RequestsByState", state=state)}
    for _ in range(draw.number(0, 8)):
        call_one(draw, channel, EVERYBODY, without=ending.given_back_by)
    with suppress(ContractError):
        ending.again(channel)
    ended = [r for r in releases(channel) if r["request"] in known and ending.ends(r, request)]
    ended += [r for r in releases(channel) if r["request"] in over]
    assert not [release for release in ended if permitted(channel, release)]

"""No sequence of calls by research organisations alone turns a refused release into a permitted one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orthanc_ledger.errors import ContractError
from tests.ledger.channel import (
    CUSTODIAN,
    DAY,
    DIGEST,
    LAB,
    LAB_NODE,
    OTHER_DIGEST,
    OTHER_LAB,
    OTHER_NODE,
    OTHER_STUDY,
    OWNER,
    STUDY,
    Channel,
    Memory,
    policy,
)
from tests.ledger.test_arguments import VALID


class World:
    """Requests in every state, and every release one may try under them."""

    def __init__(self) -> None:
        self.channel = channel = Channel(Memory(policy()), policy()).init()
        self.manifests = [channel.anchor(), channel.anchor(study=OTHER_STUDY)]
        channel.node()
        channel.node(OTHER_LAB)
        channel.node(LAB, "GONE")
        channel.register(LAB, "NEW")
        gone = {"organisation": LAB, "aeTitle": "GONE"}
        self.nodes = [LAB_NODE, OTHER_NODE, gone, {"organisation": LAB, "aeTitle": "NEW"}]
        self.requests = {
            name: channel.request(node=gone if name == "gone" else LAB_NODE)
            for name in ("open", "half", "approved", "denied", "revoked", "expired", "gone")
        }
        for name in ("approved", "revoked", "gone"):
            channel.approve(self.requests[name])
        channel.approve(self.requests["expired"], seconds=1)
        channel.approve(self.requests["half"], by=(CUSTODIAN,))
        channel.call(OWNER, "Deny", id=self.requests["denied"], reason="purpose")
        channel.call(OWNER, "Revoke", id=self.requests["revoked"], reason="breach")
        channel.call(CUSTODIAN, "RevokeNode", node=gone)
        channel.wait(1)
        self.manifests.append(channel.anchor())  # after every approval
        self.refused = [args for args in self.releases() if not self.permitted(args)]

    def releases(self) -> list[dict[str, Any]]:
        return [
            Channel.release(request, manifest, study=study, node=node)
            for request in self.requests.values()
            for manifest in self.manifests
            for study in (STUDY, OTHER_STUDY)
            for node in self.nodes
        ]

    def permitted(self, args: dict[str, Any]) -> bool:
        try:
            self.channel.call(OWNER, "LogRelease", **args)
        except ContractError:
            return False
        return True


def calls(world: World) -> st.SearchStrategy[tuple[str, str, dict[str, Any]]]:
    """Everything a research organisation can say that is well-formed, its own functions or others'."""
    ids = st.sampled_from(list(world.requests.values()))
    nodes = st.sampled_from(world.nodes)
    titles = st.sampled_from([node["aeTitle"] for node in world.nodes])
    digests = st.sampled_from([[], [DIGEST], [DIGEST, OTHER_DIGEST]])
    studies = st.sampled_from([[STUDY], [OTHER_STUDY], [STUDY, OTHER_STUDY]])
    access = st.builds(
        lambda node, wanted, future: Channel.access(node=node, studies=wanted, future=future),
        nodes,
        studies,
        st.booleans(),
    )
    until = st.integers(1, 20).map(lambda days: world.channel.now + days * DAY)
    functions = {
        "RegisterNode": st.fixed_dictionaries(
            {"aeTitle": titles, "role": st.sampled_from(["research", "clinical"]), "certDigests": digests}
        ),
        "RevokeNode": st.fixed_dictionaries({"node": nodes}),
        "ConfirmNode": st.fixed_dictionaries({"node": nodes, "version": st.integers(1, 4)}),
        "RequestAccess": access,
        "Approve": st.fixed_dictionaries({"id": ids, "until": until, "release": st.just("identified")}),
        "Deny": st.fixed_dictionaries({"id": ids, "reason": st.just("other")}),
        "Revoke": st.fixed_dictionaries({"id": ids, "reason": st.just("other")}),
        "LogRelease": st.sampled_from(world.refused),
        "InitPolicy": st.just({"policy": policy(identified_needs=["custodian"])}),
        "Anchor": st.just(VALID["Anchor"]),
    }
    choices = [st.tuples(st.sampled_from([LAB, OTHER_LAB]), st.just(name), args) for name, args in functions.items()]
    return st.one_of(choices)


PERMITTED = 1  # the one approved request, for its node, with the one anchor of its study that was there before


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_research_organisations_alone_never_open_the_gate(data: st.DataObject) -> None:
    world = World()
    assert len(world.releases()) - len(world.refused) == PERMITTED
    for organisation, function, args in data.draw(st.lists(calls(world), max_size=12)):
        try:
            world.channel.call(organisation, function, **args)
        except ContractError:
            continue
    assert not [args for args in world.refused if world.permitted(args)]
    new = [request["id"] for request in world.channel.ask("RequestsByState", state="open")]
    for request in new:
        assert not world.permitted(Channel.release(request, world.manifests[0]))

"""Nodes: what is put under a confirmation, and what a revocation ends."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    LAB,
    NEW,
    OTHER_LAB,
    OWNER,
    STUDY,
    anchor,
    approve,
    digest,
    id_of,
    node,
    register_node,
    release,
    request,
)
from tests.second.ledger.openings import after
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _who_registers_which_node(),
        _swapped_key(),
        _swapped_title(),
        _versions_of_a_node(),
        _revoked_node_again(),
        _node_revoked_by_others(),
        _new_certificate(),
        _revoked_and_confirmed_again(),
    ]


def _who_registers_which_node() -> Story:
    story = after("policy", "clinical titles are the owner's, research titles research's")
    for role in ("modality", "clinical"):
        story.refused("NOT_PERMITTED role", LAB, "RegisterNode", register_node(LAB, role=role))
    story.refused("NOT_PERMITTED role", OWNER, "RegisterNode", register_node(OWNER, role="research"))
    story.does(OWNER, "RegisterNode", register_node(OWNER, role="modality"))
    # The same title at another organisation is another node.
    story.does(LAB, "RegisterNode", register_node(LAB, aeTitle="ARCHIVE", certDigests=[]))
    story.refused("NOT_FOUND node", CUSTODIAN, "ConfirmNode", {"node": node(OTHER_LAB, "ARCHIVE"), "version": 1})
    return story


def _swapped_key() -> Story:
    """An insider at Lab changes the certificate between the custodian's look and the custodian's word."""
    story = after("nodes proposed", "a swapped certificate does not come under the confirmation of the first")
    swapped = register_node(LAB, certDigests=[digest("swapped")])
    assert story.does(LAB, "RegisterNode", swapped) == {"node": node(LAB), "version": 2}
    story.refused("WRONG_STATE version", CUSTODIAN, "ConfirmNode", {"node": node(LAB), "version": 1})
    story.refused("WRONG_STATE node", LAB, "RequestAccess", request())
    # The first again is a third version: only the latest standing one is recognised.
    assert story.does(LAB, "RegisterNode", register_node(LAB))["version"] == 3
    story.does(CUSTODIAN, "ConfirmNode", {"node": node(LAB), "version": 3})
    story.does(LAB, "RequestAccess", request(publicKeyDigest=digest("key")))
    # Another key is another request: what was approved for one is not for the other.
    story.does(LAB, "RequestAccess", request(publicKeyDigest=digest("swapped key")))
    numbers = [id_of("RequestAccess", request(publicKeyDigest=digest(key)), LAB) for key in ("key", "swapped key")]
    for by in (OWNER, CUSTODIAN):
        story.does(by, "Approve", approve(numbers[0]))
    story.does(OWNER, "Anchor", anchor(NEW))
    story.does(OWNER, "LogRelease", release(numbers[0]))
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release(numbers[1]))
    return story


def _swapped_title() -> Story:
    story = after("approved", "a release goes to the node of its request alone")
    for other in (
        node(LAB, "LABBOX2"),
        node(LAB, "labbox"),
        node(OTHER_LAB, "LABBOX"),
        node(OTHER_LAB),
        node(OWNER),
    ):
        story.refused("NOT_PERMITTED node", OWNER, "LogRelease", release(node=other))
    story.does(LAB, "RegisterNode", register_node(LAB, aeTitle="LABBOX2"))
    story.does(CUSTODIAN, "ConfirmNode", {"node": node(LAB, "LABBOX2"), "version": 1})
    story.refused("NOT_PERMITTED node", OWNER, "LogRelease", release(node=node(LAB, "LABBOX2")))
    story.refused("NOT_PERMITTED node", LAB, "RequestAccess", request(node=node(OTHER_LAB)))
    story.refused("NOT_PERMITTED node", OTHER_LAB, "RequestAccess", request())
    story.does(OWNER, "LogRelease", release())
    return story


def _versions_of_a_node() -> Story:
    story = after("nodes confirmed", "the confirmed version stays until the new one is confirmed by its number")
    lab = {"node": node(LAB)}
    for number in (2, 3):
        new = register_node(LAB, certDigests=[digest(f"certificate {number}")])
        assert story.does(LAB, "RegisterNode", new)["version"] == number
        assert story.repeats(LAB, "RegisterNode", new)["version"] == number
    story.does(LAB, "RequestAccess", request())
    story.refused("WRONG_STATE version", CUSTODIAN, "ConfirmNode", lab | {"version": 2})
    story.refused("WRONG_STATE version", CUSTODIAN, "ConfirmNode", lab | {"version": 4})
    story.repeats(CUSTODIAN, "ConfirmNode", lab | {"version": 1})
    shown = next(one for one in story.asks("Nodes") if one["node"] == node(LAB))
    assert (shown["state"], shown["proposed"]["version"], shown["confirmed"]["version"]) == ("confirmed", 3, 1)
    story.does(CUSTODIAN, "ConfirmNode", lab | {"version": 3})
    story.repeats(CUSTODIAN, "ConfirmNode", lab | {"version": 1})
    story.refused("WRONG_STATE version", CUSTODIAN, "ConfirmNode", lab | {"version": 2})
    # The same certificates in another role, or in another order, are other content.
    story.does(OWNER, "RegisterNode", register_node(OWNER, role="modality"))
    two = [digest("a"), digest("b")]
    assert story.does(LAB, "RegisterNode", register_node(LAB, certDigests=two))["version"] == 4
    assert story.does(LAB, "RegisterNode", register_node(LAB, certDigests=two[::-1]))["version"] == 5
    return story


def _revoked_node_again() -> Story:
    story = after("nodes revoked", "a revoked node is registered as a new version, and revoked again")
    lab = {"node": node(LAB)}
    story.repeats(LAB, "RevokeNode", lab)
    story.repeats(CUSTODIAN, "ConfirmNode", lab | {"version": 1})
    assert story.does(LAB, "RegisterNode", register_node(LAB))["version"] == 2
    story.refused("WRONG_STATE node", LAB, "RequestAccess", request())
    story.does(LAB, "RevokeNode", lab)
    story.repeats(CUSTODIAN, "RevokeNode", lab)
    story.refused("WRONG_STATE version", CUSTODIAN, "ConfirmNode", lab | {"version": 2})
    assert story.does(LAB, "RegisterNode", register_node(LAB))["version"] == 3
    story.does(CUSTODIAN, "ConfirmNode", lab | {"version": 3})
    story.does(LAB, "RequestAccess", request())
    story.does(CUSTODIAN, "RevokeNode", lab)
    states = {one["node"]["organisation"]: one["state"] for one in story.asks("Nodes")}
    assert states == {OWNER: "revoked", LAB: "revoked", OTHER_LAB: "revoked"}
    return story


def _node_revoked_by_others() -> Story:
    story = after("nodes confirmed", "a node is revoked by its organisation or by the custodian")
    story.refused("NOT_PERMITTED node", OTHER_LAB, "RevokeNode", {"node": node(LAB)})
    story.refused("NOT_PERMITTED node", LAB, "RevokeNode", {"node": node(OWNER)})
    story.refused("NOT_PERMITTED node", OWNER, "RevokeNode", {"node": node(OTHER_LAB)})
    story.refused("NOT_PERMITTED node", OWNER, "RevokeNode", {"node": node(LAB, "NOBODY")})
    story.refused("NOT_FOUND node", CUSTODIAN, "RevokeNode", {"node": node(LAB, "NOBODY")})
    story.does(OWNER, "RevokeNode", {"node": node(OWNER)})
    story.does(CUSTODIAN, "RevokeNode", {"node": node(LAB)})
    story.does(OTHER_LAB, "RevokeNode", {"node": node(OTHER_LAB)})
    return story


def _new_certificate() -> Story:
    story = after("half approved", "a new version of a node keeps its requests and approvals")
    story.does(LAB, "RegisterNode", register_node(LAB, certDigests=[digest("renewed")]))
    story.does(OWNER, "Approve", approve())
    story.does(OWNER, "LogRelease", release())
    story.does(CUSTODIAN, "ConfirmNode", {"node": node(LAB), "version": 2})
    story.does(CUSTODIAN, "LogRelease", release())
    return story


def _revoked_and_confirmed_again() -> Story:
    story = after("approved, then node revoked", "revoking a node ends its approvals for good")
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release())
    story.does(LAB, "RegisterNode", register_node(LAB))
    story.does(CUSTODIAN, "ConfirmNode", {"node": node(LAB), "version": 2})
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release())
    assert not story.asks("CheckAccess", {"study": STUDY, "node": node(LAB)})["permitted"]
    assert story.asks("ApprovedStudies", {"node": node(LAB)}) == []
    # A new request is what it takes.
    story.does(LAB, "RequestAccess", request(), nonce=1)
    number = id_of("RequestAccess", request(), LAB, 1)
    for by in (OWNER, CUSTODIAN):
        story.does(by, "Approve", approve(number))
    story.does(OWNER, "LogRelease", release(number))
    assert story.asks("CheckAccess", {"study": STUDY, "node": node(LAB)})["request"] == number
    return story

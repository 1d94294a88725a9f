"""Who takes part: nodes and what is put under a confirmation, datasets, policies, organisations that come and go."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET,
    DATASET_REQUEST,
    LAB,
    LEAVES,
    NEW,
    ON_DATASET,
    OTHER_LAB,
    OWNER,
    POLICY,
    STRANGER,
    STUDY,
    STUDY2,
    TOKENS,
    UNKNOWN,
    Args,
    anchor,
    approve,
    digest,
    id_of,
    node,
    proof,
    register_dataset,
    register_node,
    release,
    request,
)
from tests.second.ledger.openings import LONGER_LEASE, OTHER_PROPOSAL, PROPOSAL, SHORTER_LEASE, after, variant
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
        _datasets(),
        _dataset_of_another(),
        _proofs(),
        _dataset_of_one(),
        _proposal_of_one_party(),
        _proposals_void(),
        _proposal_cancelled(),
        _fixed_parties(),
        _organisation_removed_and_back(),
        _organisation_joins(),
        _fewer_approvals(),
        _more_approvals(),
        _init_again(),
    ]


def _propose(story: Story, by: str, policy: Args, nonce: int = 0) -> bytes:
    args = {"policy": policy}
    number = id_of("ProposePolicy", args, by, nonce)
    assert story.does(by, "ProposePolicy", args, nonce=nonce) == {"id": number}
    return number


def _new_policy(story: Story, policy: Args, nonce: int = 0) -> None:
    number = _propose(story, OWNER, policy, nonce)
    story.does(CUSTODIAN, "ConfirmPolicy", {"id": number})


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


def _datasets() -> Story:
    story = after("dataset approved", "a dataset has versions, and a request is on one of them")
    second = register_dataset(2, root=digest("grown"), count=6)
    story.refused("INVALID version", OWNER, "RegisterDataset", register_dataset(3))
    story.does(OWNER, "RegisterDataset", second)
    story.repeats(OWNER, "RegisterDataset", register_dataset())
    story.repeats(OWNER, "RegisterDataset", second)
    for differing, other in (
        ("root", register_dataset(root=digest("other"))),
        ("count", register_dataset(count=6)),
        ("descriptorDigest", register_dataset(descriptorDigest=digest("other"))),
        ("duo", register_dataset(duo=["DUO:0000006"])),
        ("root", register_dataset(root=digest("other"), count=6)),
    ):
        story.refused(f"CONFLICT {differing}", OWNER, "RegisterDataset", other)
    story.does(OWNER, "LogRelease", release(DATASET_REQUEST, proof=proof(STUDY)))
    # Withdrawing one version leaves the other, and is final for what was approved.
    story.does(CUSTODIAN, "WithdrawDataset", {"id": DATASET, "version": 1})
    story.refused("WRONG_STATE dataset", OWNER, "LogRelease", release(DATASET_REQUEST, proof=proof(STUDY), count=2))
    story.refused("WRONG_STATE dataset", LAB, "RequestAccess", request(on=ON_DATASET), nonce=1)
    story.repeats(LAB, "RequestAccess", request(on=ON_DATASET))
    story.refused("NOT_FOUND dataset", LAB, "RequestAccess", request(on={"dataset": DATASET, "version": 3}))
    story.does(LAB, "RequestAccess", request(on={"dataset": DATASET, "version": 2}))
    story.refused("NOT_FOUND id", OWNER, "WithdrawDataset", {"id": DATASET, "version": 3})
    story.repeats(OWNER, "RegisterDataset", register_dataset())
    assert [(one["version"], one["state"]) for one in story.asks("Datasets")] == [(1, "withdrawn"), (2, "registered")]
    return story


def _dataset_of_another() -> Story:
    story = after("dataset", "a dataset belongs to the organisation that registered its first version")
    story.refused("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", register_dataset())
    story.refused("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", register_dataset(2))
    story.refused("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", register_dataset(3))
    story.does(CUSTODIAN, "RegisterDataset", register_dataset(id=digest("another")[:16]))
    story.does(CUSTODIAN, "WithdrawDataset", {"id": DATASET, "version": 1})
    story.repeats(OWNER, "WithdrawDataset", {"id": DATASET, "version": 1})
    return story


def _proofs() -> Story:
    story = after("dataset approved", "a proof leads from its study to the root of the request's dataset")

    def refused(why: str, given: Args | None, study: bytes = STUDY) -> None:
        proven = {} if given is None else {"proof": given}
        story.refused(why, OWNER, "LogRelease", release(DATASET_REQUEST, study=study, **proven))

    right = proof(STUDY)
    for study in TOKENS:
        if study != STUDY:
            refused("NOT_PERMITTED study", right, study)
            refused("NOT_PERMITTED study", proof(study))
    refused("INVALID proof", None)
    refused("NOT_PERMITTED study", {"index": right["index"], "path": right["path"][:-1]})
    refused("NOT_PERMITTED study", {"index": right["index"], "path": [*right["path"], digest("more")]})
    refused("NOT_PERMITTED study", {"index": right["index"], "path": right["path"][::-1]})
    refused("NOT_PERMITTED study", {"index": right["index"], "path": []})
    for index in range(7):
        if index != right["index"]:
            refused("NOT_PERMITTED study", {"index": index, "path": right["path"]})
    # With a proof that holds, what is refused is the study that nobody anchored.
    for study in TOKENS:
        if study != STUDY:
            refused("INVALID anchors", proof(study), study)
    story.does(OWNER, "LogRelease", release(DATASET_REQUEST, proof=right))
    return story


def _dataset_of_one() -> Story:
    story = after("nodes confirmed", "the only study of a dataset is proven by an empty path")
    story.does(OWNER, "RegisterDataset", register_dataset(root=LEAVES[TOKENS.index(STUDY)], count=1))
    story.does(LAB, "RequestAccess", request(on=ON_DATASET))
    for by in (OWNER, CUSTODIAN):
        story.does(by, "Approve", approve(DATASET_REQUEST))
    for wrong in ({"index": 1, "path": []}, {"index": 0, "path": [digest("more")]}):
        story.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(DATASET_REQUEST, proof=wrong))
    given = {"proof": {"index": 0, "path": []}}
    story.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(DATASET_REQUEST, study=STUDY2, **given))
    story.does(OWNER, "LogRelease", release(DATASET_REQUEST, **given))
    return story


def _proposal_of_one_party() -> Story:
    story = after("policy", "a policy needs the other party, whoever proposes it")
    for by, other, lease in ((OWNER, CUSTODIAN, 30), (CUSTODIAN, OWNER, 20)):
        number = _propose(story, by, POLICY | {"lease_s": lease})
        story.refused("NOT_PERMITTED id", by, "ConfirmPolicy", {"id": number})
        story.refused("NOT_PERMITTED id", by, "ConfirmPolicy", {"id": number}, serial="9")
        story.refused("NOT_PERMITTED role", LAB, "ConfirmPolicy", {"id": number})
        story.does(other, "ConfirmPolicy", {"id": number})
        story.repeats(other, "ConfirmPolicy", {"id": number})
        assert story.ledger.state["policy"]["lease_s"] == lease
    story.refused("NOT_FOUND id", OWNER, "ConfirmPolicy", {"id": UNKNOWN})
    assert story.ledger.state["policyVersion"] == 2
    assert story.asks("GetPolicy")["lease_s"] == 20
    return story


def _proposals_void() -> Story:
    story = after("proposed", "once one proposal is confirmed the others are void")
    story.does(OWNER, "ProposePolicy", {"policy": SHORTER_LEASE})
    theirs = _propose(story, CUSTODIAN, POLICY | {"max_days": 30})
    assert story.does(CUSTODIAN, "ConfirmPolicy", {"id": OTHER_PROPOSAL}) == {"version": 1}
    story.refused("WRONG_STATE void", CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.refused("WRONG_STATE void", OWNER, "ConfirmPolicy", {"id": theirs})
    story.refused("NOT_PERMITTED id", CUSTODIAN, "ConfirmPolicy", {"id": theirs})
    story.refused("WRONG_STATE void", OWNER, "Cancel", {"id": PROPOSAL})
    story.refused("WRONG_STATE void", CUSTODIAN, "Cancel", {"id": theirs})
    story.refused("WRONG_STATE confirmed", CUSTODIAN, "Cancel", {"id": OTHER_PROPOSAL})
    # The same id is the void one; with a new nonce it is a new proposal, on the policy in force.
    story.repeats(OWNER, "ProposePolicy", {"policy": LONGER_LEASE})
    number = _propose(story, OWNER, LONGER_LEASE, nonce=1)
    assert [one["id"] for one in story.asks("Pending")] == [number]
    return story


def _proposal_cancelled() -> Story:
    story = after("proposed", "a proposal is called off by either party, for good")
    story.refused("NOT_FOUND id", OWNER, "Cancel", {"id": UNKNOWN})
    story.does(CUSTODIAN, "Cancel", {"id": PROPOSAL})
    story.repeats(CUSTODIAN, "Cancel", {"id": PROPOSAL})
    story.refused("WRONG_STATE cancelled", OWNER, "Cancel", {"id": PROPOSAL})
    story.refused("WRONG_STATE cancelled", CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.repeats(OWNER, "ProposePolicy", {"policy": LONGER_LEASE})
    # Cancelled stays cancelled also when it would be void.
    _new_policy(story, SHORTER_LEASE)
    story.refused("WRONG_STATE cancelled", CUSTODIAN, "ConfirmPolicy", {"id": PROPOSAL})
    story.refused("WRONG_STATE cancelled", OWNER, "Cancel", {"id": PROPOSAL})
    story.repeats(CUSTODIAN, "Cancel", {"id": PROPOSAL})
    return story


def _fixed_parties() -> Story:
    story = after("policy", "owner and custodian stay, and nobody's role changes")
    members = POLICY["organisations"]
    without = {name: role for name, role in members.items() if name not in (OWNER, CUSTODIAN)}
    for organisations in (
        without | {STRANGER: "owner", CUSTODIAN: "custodian"},
        without | {OWNER: "owner", STRANGER: "custodian"},
        without | {OWNER: "custodian", CUSTODIAN: "owner"},
        without | {OWNER: "research", STRANGER: "owner", CUSTODIAN: "custodian"},
        members | {LAB: "custodian", CUSTODIAN: "research"},
    ):
        proposed = {"policy": POLICY | {"organisations": organisations}}
        story.refused("INVALID organisations", OWNER, "ProposePolicy", proposed)
        story.refused("INVALID organisations", CUSTODIAN, "ProposePolicy", proposed)
    return story


def _organisation_removed_and_back() -> Story:
    story = after("approved", "an organisation that is out of the policy has nothing; back in it, what it had")
    members = POLICY["organisations"]
    without = POLICY | {"organisations": {name: role for name, role in members.items() if name != LAB}}
    _new_policy(story, without)
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release())
    story.refused("NOT_PERMITTED organisation", LAB, "RequestAccess", request(), nonce=1)
    story.refused("NOT_PERMITTED organisation", LAB, "RequestAccess", request())
    story.refused("NOT_PERMITTED organisation", LAB, "RegisterNode", register_node(LAB))
    story.does(OWNER, "Anchor", anchor(NEW))
    _new_policy(story, POLICY)
    story.does(OWNER, "LogRelease", release())
    story.repeats(LAB, "RequestAccess", request())
    # And while it was out, a request of it could not be approved either.
    story.does(LAB, "RequestAccess", request(), nonce=1)
    number = id_of("RequestAccess", request(), LAB, 1)
    story.does(CUSTODIAN, "Approve", approve(number))
    _new_policy(story, without, nonce=1)
    story.refused("WRONG_STATE node", OWNER, "Approve", approve(number))
    story.repeats(CUSTODIAN, "Approve", approve(number))
    story.does(CUSTODIAN, "RevokeNode", {"node": node(LAB)})
    _new_policy(story, POLICY, nonce=1)
    story.refused("WRONG_STATE node", OWNER, "Approve", approve(number))
    story.refused("WRONG_STATE node", OWNER, "LogRelease", release(count=2))
    return story


def _organisation_joins() -> Story:
    story = after("policy", "an organisation joins with a policy, and comes with its CA's certificate")
    joined = POLICY | {
        "organisations": POLICY["organisations"] | {STRANGER: "research"},
        "certificates": {STRANGER: b"the CA's certificate"},
    }
    _new_policy(story, joined)
    story.does(STRANGER, "RegisterNode", register_node(OTHER_LAB, aeTitle="STRANGE"))
    assert story.asks("GetPolicy") == joined
    return story


def _fewer_approvals() -> Story:
    story = after("asked", "which roles are needed is the policy's word at each Approve: fewer")
    _new_policy(story, POLICY | {"identified_needs": ["custodian"]})
    story.refused("NOT_PERMITTED role", OWNER, "Approve", approve())
    story.does(CUSTODIAN, "Approve", approve())
    story.does(OWNER, "LogRelease", release())
    return story


def _more_approvals() -> Story:
    story = variant(
        "which roles are needed is the policy's word at each Approve: more", "asked", identified_needs=["custodian"]
    )
    story.refused("NOT_PERMITTED role", OWNER, "Approve", approve())
    _new_policy(story, POLICY)
    first = story.does(CUSTODIAN, "Approve", approve())
    assert first["state"] == "open"
    story.refused("WRONG_STATE open", OWNER, "LogRelease", release())
    assert story.does(OWNER, "Approve", approve())["state"] == "approved"
    story.does(OWNER, "LogRelease", release())
    # What was approved stays approved, also when the policy then says otherwise.
    _new_policy(story, POLICY | {"identified_needs": ["custodian"]})
    story.does(OWNER, "LogRelease", release(count=2))
    return story


def _init_again() -> Story:
    story = after("policy confirmed", "the first policy comes once")
    story.repeats(CUSTODIAN, "InitPolicy", {"policy": POLICY})
    story.refused("INVALID policy", OWNER, "InitPolicy", {"policy": LONGER_LEASE})
    assert story.asks("GetPolicy") == LONGER_LEASE
    return story

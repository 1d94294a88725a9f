"""What holds for every function: a policy first, the clock, who may call at all, and what a repeat is."""

from tests.second.ledger.arguments import usual
from tests.second.ledger.cast import (
    COLUMNS,
    CUSTODIAN,
    LAB,
    M1,
    M2,
    OTHER_LAB,
    OWNER,
    POLICY,
    STRANGER,
    STUDY,
    anchor,
    digest,
    id_of,
    node,
    register_node,
    withdraw,
)
from tests.second.ledger.forms import FUNCTIONS
from tests.second.ledger.openings import after, variant
from tests.second.ledger.story import Story


def stories() -> list[Story]:
    return [
        _no_policy(),
        _no_policy_to_ask(),
        _outside(),
        _revoked_certificates(),
        _clock_skew(),
        *_roles(),
        _order(),
        _ids(),
        _who_is_kept(),
        _sequence(),
    ]


def _no_policy() -> Story:
    story = after("nothing", "without a policy nothing is allowed")
    for function, (_, by, args) in usual().items():
        if function != "InitPolicy":
            story.refused("WRONG_STATE policy", by, function, args)
            story.refused("WRONG_STATE policy", STRANGER, function, args)
    story.does(CUSTODIAN, "InitPolicy", {"policy": POLICY})
    assert story.asks("GetPolicy") == POLICY
    return story


def _no_policy_to_ask() -> Story:
    story = after("nothing", "without a policy nothing is told")
    for query, args in (("GetPolicy", {}), ("StandingOf", {"study": STUDY}), ("Nodes", {})):
        assert story.asks(query, args) == ["WRONG_STATE", "policy"]
    return story


def _outside() -> Story:
    story = after("policy", "an organisation outside the policy may call nothing")
    for function, (_, _, args) in usual().items():
        story.refused("NOT_PERMITTED organisation", STRANGER, function, args)
    return story


def _revoked_certificates() -> Story:
    story = after("certificates revoked", "a revoked certificate may call nothing")
    for function, (_, by, args) in usual().items():
        story.refused("NOT_PERMITTED certificate", by, function, args, serial="2")
    # The same serial of another organisation is another certificate, and the organisation has others.
    story.does(OWNER, "Anchor", anchor(), serial="22")
    story.does(LAB, "RevokeCertificate", {"serial": "3"})
    story.does(OTHER_LAB, "RegisterNode", register_node(OTHER_LAB), serial="3")
    story.refused("NOT_PERMITTED certificate", LAB, "RegisterNode", register_node(LAB), serial="3")
    # It may be the caller's own: what it did stays, and it does no more.
    story.does(OWNER, "RevokeCertificate", {"serial": "22"}, serial="22")
    story.refused("NOT_PERMITTED certificate", OWNER, "RevokeCertificate", {"serial": "22"}, serial="22")
    story.repeats(OWNER, "RevokeCertificate", {"serial": "22"})
    story.refused("NOT_PERMITTED certificate", OWNER, "Anchor", anchor(), serial="22")
    story.repeats(OWNER, "Anchor", anchor())
    return story


def _clock_skew() -> Story:
    story = variant("the host's clock may differ from the signer's by max_clock_skew_s", max_clock_skew_s=60)
    brought = {"InitPolicy": {"policy": POLICY | {"max_clock_skew_s": 60}}}
    for function, (_, by, args) in usual().items():
        for difference in (-61, 61):
            given = brought.get(function, args)
            story.refused("SKEW time", by, function, given, host_at=story.now + 1 + difference)
    story.refused("SKEW time", STRANGER, "RegisterNode", register_node(LAB), host_at=story.now + 62)
    for number, difference in enumerate((-60, 60)):
        titled = register_node(LAB, aeTitle=f"LAB{number}")
        story.does(LAB, "RegisterNode", titled, host_at=story.now + 1 + difference)
    return story


def _roles() -> list[Story]:
    """Every function called by every role that it does not list, each where the right one's call commits."""
    told = []
    for function, (opening, by, args) in usual().items():
        listed = FUNCTIONS[function].roles
        if not listed:
            continue
        story = after(opening, f"{function}: the other roles")
        for column, other in COLUMNS.items():
            role = "research" if "research" in column else column
            if role not in listed:
                story.refused("NOT_PERMITTED role", other, function, args)
                story.refused("NOT_PERMITTED role", other, function, args, assurance="node")
        story.does(by, function, args)
        told.append(story)
    return told


def _order() -> Story:
    story = variant("what is checked first", max_clock_skew_s=60)
    node_of_lab = {"node": node(LAB), "version": 1}
    late = {"host_at": story.now + 500}
    story.does(OTHER_LAB, "RevokeCertificate", {"serial": "2"})
    story.refused("INVALID function", STRANGER, "confirmNode", {}, nonce=b"", **late)
    story.refused("INVALID version", STRANGER, "ConfirmNode", {"node": node(LAB)}, nonce=b"", **late)
    story.refused("INVALID nonce", STRANGER, "ConfirmNode", node_of_lab, nonce=b"", **late)
    story.refused("SKEW time", STRANGER, "ConfirmNode", node_of_lab, **late)
    story.refused("NOT_PERMITTED organisation", STRANGER, "ConfirmNode", node_of_lab, serial="2")
    story.refused("NOT_PERMITTED certificate", OTHER_LAB, "ConfirmNode", node_of_lab, serial="2")
    story.refused("NOT_PERMITTED role", OTHER_LAB, "ConfirmNode", node_of_lab)
    story.refused("NOT_FOUND node", CUSTODIAN, "ConfirmNode", node_of_lab)
    return story


def _ids() -> Story:
    story = after("anchored", "an id is function, arguments, organisation and nonce")
    first = story.does(OWNER, "Withdraw", withdraw(), nonce=1)
    assert first == {"id": id_of("Withdraw", withdraw(), OWNER, 1), "version": 1}
    assert story.does(OWNER, "Withdraw", withdraw(), nonce=2)["version"] == 2
    assert story.repeats(OWNER, "Withdraw", withdraw(), nonce=1) == first
    # Neither time nor certificate belongs to it.
    story.wait(86_400)
    assert story.repeats(OWNER, "Withdraw", withdraw(), nonce=1, serial="7", assurance="node") == first
    assert story.does(OWNER, "Withdraw", withdraw(reason="113001"), nonce=1)["version"] == 3
    # A list is what it is, in its order.
    ab, ba = [[digest(name) for name in names] for names in ("ab", "ba")]
    one = story.does(OWNER, "Withdraw", withdraw(instances=ab))
    other = story.does(OWNER, "Withdraw", withdraw(instances=ba))
    assert one["id"] != other["id"]
    repair = {"study": STUDY, "instance": digest("i"), "node": node(OWNER)}
    story.does(OWNER, "ReportRepair", repair)
    story.repeats(OWNER, "ReportRepair", repair)
    story.does(CUSTODIAN, "ReportRepair", repair | {"node": node(CUSTODIAN)})
    story.refused("NOT_PERMITTED node", CUSTODIAN, "ReportRepair", repair)
    return story


def _who_is_kept() -> Story:
    story = after("anchored", "a decision keeps who took it: organisation, role, assurance and serial")
    story.does(CUSTODIAN, "ConfirmStored", {"manifestCid": M1}, assurance="node", serial="ab12")
    kept = {"organisation": CUSTODIAN, "role": "custodian", "assurance": "node", "serial": "ab12"}
    assert story.ledger.state[f"stored/{M1}"] == kept
    story.repeats(CUSTODIAN, "ConfirmStored", {"manifestCid": M1})
    return story


def _sequence() -> Story:
    story = after("policy", "only what commits has a sequence")
    story.refused("NOT_PERMITTED role", LAB, "Anchor", anchor())
    first = story.does(OWNER, "Anchor", anchor(), at=story.now)
    assert story.repeats(OWNER, "Anchor", anchor(), at=story.now + 5) == first
    assert story.does(OWNER, "Anchor", anchor(M2), at=story.now)["sequence"] == 3
    return story

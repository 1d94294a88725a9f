"""The private network of Kubo nodes: who is let in, what listens, and what becomes of it when a node dies."""

import time
from collections.abc import Callable

import pytest

from tests.kubo.live import ALL_PATHS, GONE, Kubos, Node, Refused

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time


def add(node: Node, content: bytes) -> str:
    """Add as the settings say, pinned; returns the CID."""
    (told,) = node.call("add", body=content)
    return str(told["Hash"])


def test_what_one_organisation_adds_another_gets(kubos: Kubos) -> None:
    cid = add(kubos.node("kubo0.hospital"), b"sealed")
    assert kubos.node("kubo0.research").call("cat", cid) == b"sealed"


@pytest.mark.parametrize("key", ["none", "another"])
def test_a_node_without_the_key_gets_nothing_either_way(
    hospital: Node, stray_node: Callable[..., Node], key: str
) -> None:
    member = stray_node(ALL_PATHS, swarm_key=hospital.repo / "swarm.key")
    outside = stray_node({**ALL_PATHS, **({"swarm.key": GONE} if key == "none" else {})})
    cids = {node: add(node, f"of {node.peer_id}".encode()) for node in (member, outside)}
    for one, other in ((member, outside), (outside, member), (outside, hospital)):
        with pytest.raises(Refused, match=r"failed to negotiate|deadline"):
            one.call("swarm/connect", other.swarm, timeout="2s")
    for one, other in ((member, outside), (outside, member)):
        with pytest.raises(Refused, match="deadline"):
            one.call("cat", cids[other], timeout="0.5s")
    assert outside.connected() == set()


def test_one_with_the_key_would_get_it(kubos: Kubos, stray_node: Callable[..., Node], hospital: Node) -> None:
    cid = add(hospital, b"for who has the key")
    member = stray_node(ALL_PATHS, swarm_key=hospital.repo / "swarm.key")
    member.call("swarm/connect", hospital.swarm)
    assert member.call("cat", cid) == b"for who has the key"


@pytest.mark.parametrize("name", ["kubo0.hospital", "kubo0.custodian"])
def test_a_node_that_was_killed_is_connected_again_and_what_it_held_is_there(
    kubos: Kubos, name: str, figure: Callable[[str], None]
) -> None:
    content = b"held by " + name.encode()
    cid = add(kubos.node(name), content)
    assert kubos.node("kubo1.hospital").call("cat", cid) == content
    kubos.kill(name)
    assert kubos.node("kubo0.research").call("cat", cid, timeout="5s") == content  # from kubo1
    kubos.start(name)
    began = time.monotonic()
    kubos.wait_connected()
    figure(f"kubo: killed, started, connected with all others: {time.monotonic() - began:.2f} s")
    assert kubos.node(name).call("cat", cid, offline="true") == content


def test_the_api_answers_who_has_the_token_and_no_more_than_a_store_needs(hospital: Node) -> None:
    for token, command in (("wrong", "id"), ("", "id"), (hospital.token, "config"), (hospital.token, "shutdown")):
        with pytest.raises(Refused, match=r"^403 "):
            hospital.call(command, token=token)
    assert hospital.call("id")[0]["ID"] == hospital.peer_id

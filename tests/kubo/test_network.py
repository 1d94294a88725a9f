"""The private network of Kubo nodes: who is let in, what listens, and what becomes of it when a node dies."""

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
    kubos: Kubos, stray_node: Callable[..., Node], key: str
) -> None:
    inside = kubos.node("kubo0.hospital")
    outside = stray_node({**ALL_PATHS, **({"swarm.key": GONE} if key == "none" else {})})
    cids = {node: add(node, f"of {node.peer_id}".encode()) for node in (inside, outside)}
    with pytest.raises(Refused, match="failed to negotiate"):
        outside.call("swarm/connect", inside.swarm)
    with pytest.raises(Refused, match="deadline"):
        outside.call("cat", cids[inside], timeout="1s")
    with pytest.raises(Refused, match="deadline"):
        inside.call("cat", cids[outside], timeout="1s")
    assert outside.peer_id not in inside.connected()


def test_one_with_the_key_would_get_it(kubos: Kubos, stray_node: Callable[..., Node], hospital: Node) -> None:
    cid = add(hospital, b"for who has the key")
    member = stray_node(ALL_PATHS, swarm_key=hospital.repo / "swarm.key")
    member.call("swarm/connect", hospital.swarm)
    assert member.call("cat", cid) == b"for who has the key"


@pytest.mark.parametrize("name", ["kubo0.hospital", "kubo0.custodian"])
def test_a_node_that_was_killed_is_connected_again_and_what_it_held_is_there(kubos: Kubos, name: str) -> None:
    cid = add(kubos.node(name), b"held by " + name.encode())
    other = kubos.node("kubo1.hospital")
    assert other.call("cat", cid) == b"held by " + name.encode()
    kubos.kill(name)
    assert other.call("cat", cid, timeout="5s")  # which has it from the first time
    kubos.start(name)
    kubos.wait_connected()
    assert kubos.node(name).call("cat", cid, offline="true") == b"held by " + name.encode()


def test_the_api_answers_who_has_the_token_and_no_more_than_a_store_needs(hospital: Node) -> None:
    for token, command in (("wrong", "id"), ("", "id"), (hospital.token, "config"), (hospital.token, "shutdown")):
        with pytest.raises(Refused, match=r"^403 "):
            hospital.call(command, token=token)
    assert hospital.call("id")[0]["ID"] == hospital.peer_id

"""A live trial network: what it promises, and what no member of it can do alone."""

import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from orthanc_ledger.consortium import files
from orthanc_ledger.consortium.administration import Administration
from orthanc_ledger.consortium.binaries import chaincode_binary, fabric_binaries
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import LOOPBACK, Settings, trial
from orthanc_ledger.consortium.trial import identity_of
from orthanc_ledger.errors import ConfigError, ContractError, LedgerAway
from orthanc_ledger.ledger.identity import load_identity
from tests.consortium.live import YES, anchor, back_dated, ledger_of, need_go, running, submit_by
from tests.kubo.live import Kubos

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

WAIT_S = 30.0
BOTH = ("peer0.hospital", "peer0.custodian")


@contextmanager
def altered(network: Network, *organisations: str) -> Iterator[None]:
    """These organisations' chaincode says yes to everything, for a while."""
    services = [network.topology.organisation(name).chaincode.name for name in organisations]
    program = chaincode_binary(YES)
    try:
        for service in services:
            network.stop(service)
            network.start(service, program)
        yield
    finally:
        for service in services:
            network.stop(service)
            network.start(service)


def test_a_transaction_commits_and_every_organisation_sees_it(
    network: Network, wait_until: Callable[..., None]
) -> None:
    with ledger_of(network, "hospital") as hospital:
        hospital.submit("Anchor", anchor("first"))
    for name in ("hospital", "custodian", "research"):
        with ledger_of(network, name) as ledger:
            wait_until(lambda ledger=ledger: is_anchored(ledger, "first"), WAIT_S, f"{name} has the anchor")


def test_what_one_organisation_s_kubo_takes_the_others_get_also_after_it_was_started_again(network: Network) -> None:
    kubos = Kubos(network.directory, network.topology)
    network.kill("kubo0.hospital")
    network.up()
    kubos.wait_connected()
    (told,) = kubos.node().call("add", body=b"sealed")
    for name in ("kubo0.custodian", "kubo0.research"):
        assert kubos.node(name).call("cat", told["Hash"]) == b"sealed"


def is_anchored(ledger: object, name: str) -> bool:
    with suppress(ContractError):
        ledger.query("GetAnchor", {"manifestCid": anchor(name)["manifestCid"]})  # type: ignore[attr-defined]
        return True
    return False


def test_another_definition_is_a_ledger_of_its_own_within_a_second(
    network: Network, figure: Callable[[str], None]
) -> None:
    with ledger_of(network, "hospital") as hospital:
        hospital.submit("Anchor", anchor("here"))
    began = time.monotonic()
    network.deploy("other")
    figure(f"consortium: a further definition of the chaincode: {time.monotonic() - began:.2f} s")
    with ledger_of(network, "hospital", "other") as hospital, pytest.raises(ContractError, match="WRONG_STATE policy"):
        hospital.submit("Anchor", anchor("here"))


DOUBTFUL = """\
#!/bin/sh
first() {{ {first}; }}
if mkdir "{folder}/$3-$CORE_PEER_LOCALMSPID"; then first "$@"; echo "Error: {words}"; exit 1; fi
exec {peer} "$@"
"""


@pytest.mark.parametrize(
    ("name", "words", "first"),
    [
        ("lost", "timed out waiting for txid on all peers", ":"),
        ("unseen", "timed out waiting for txid on all peers", '{peer} "$@"'),
        ("overtaken", "transaction invalidated with status (MVCC_READ_CONFLICT)", '{peer} "$@"'),
    ],
    ids=["lost", "unseen", "overtaken"],
)
def test_approvals_and_a_commit_that_were_not_seen_are_tried_again_whatever_became_of_them(
    network: Network, tmp_path: Path, name: str, words: str, first: str
) -> None:
    peer = fabric_binaries() / "peer"
    (tmp_path / "peer").write_text(
        DOUBTFUL.format(first=first.format(peer=peer), folder=tmp_path, words=words, peer=peer)
    )
    (tmp_path / "peer").chmod(0o755)
    Administration(network.directory, network.topology, tmp_path).define(name)
    assert len(list(tmp_path.glob("approveformyorg-*"))) == len(network.topology.organisations)
    assert len(list(tmp_path.glob("commit-*"))) == 1
    files.write_connection(network.directory, network.topology, network.topology.organisation("hospital"), name)
    with ledger_of(network, "hospital", name) as hospital, pytest.raises(ContractError, match="WRONG_STATE policy"):
        hospital.submit("Anchor", anchor("here"))


def test_an_altered_chaincode_of_one_organisation_cannot_commit(network: Network) -> None:
    with altered(network, "custodian"):
        said = submit_by(network, "custodian", ["peer0.custodian"], "Anchor", anchor("forged"))
        assert "ENDORSEMENT_POLICY_FAILURE" in said
        said = submit_by(network, "custodian", BOTH, "Anchor", anchor("forged"))
        assert "NOT_PERMITTED role" in said  # the owner's peer, asked as well
        with ledger_of(network, "hospital", patience_s=2.0) as hospital, pytest.raises(LedgerAway):
            hospital.submit("Anchor", anchor("hindered"))
    with ledger_of(network, "custodian") as custodian:
        assert not is_anchored(custodian, "forged")
        assert not is_anchored(custodian, "hindered")


def test_research_and_one_other_cannot_create_an_approval(network: Network) -> None:
    approval = {"id": b"i" * 32, "until": 2_000_000_000, "release": "identified"}
    with altered(network, "research", "custodian"):
        said = submit_by(network, "research", ["peer0.research", "peer0.custodian"], "Approve", approval)
        assert "ENDORSEMENT_POLICY_FAILURE" in said
    with ledger_of(network, "research") as research, pytest.raises(ContractError, match="NOT_FOUND"):
        research.query("GetRequest", {"id": approval["id"]})


def test_a_back_dated_proposal_is_refused(network: Network) -> None:
    window_s = Settings().time_window_s
    assert window_s is not None
    with (
        ledger_of(network, "hospital", clock=back_dated(window_s + 5)) as hospital,
        pytest.raises(ContractError, match="incorrect timestamp"),  # the peer's filter, before any chaincode
    ):
        hospital.submit("Anchor", anchor("yesterday"))
    with (
        ledger_of(network, "hospital", clock=back_dated(window_s // 2)) as hospital,
        pytest.raises(
            ContractError, match=r"^SKEW time: .* from the host's clock"
        ),  # the contract, by the chaincode's clock
    ):
        hospital.submit("Anchor", anchor("yesterday"))


def test_a_chaincode_service_is_called_by_its_own_peers_alone(network: Network) -> None:
    service = network.topology.organisation("hospital").chaincode
    keys = network.directory / "crypto" / "chaincode"
    with_key, without = (tls_to(keys / "hospital") for _ in range(2))
    with_key.load_cert_chain(keys / "hospital" / "client.crt", keys / "hospital" / "client.key")
    anothers = tls_to(keys / "hospital")
    anothers.load_cert_chain(keys / "custodian" / "client.crt", keys / "custodian" / "client.key")
    assert is_let_in(service.port, with_key)
    assert not is_let_in(service.port, without)
    assert not is_let_in(service.port, anothers)


def tls_to(keys: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=keys / "ca.crt")
    context.set_alpn_protocols(["h2"])
    return context


def is_let_in(port: int, context: ssl.SSLContext) -> bool:
    """Whether the service goes on after the handshake: in TLS 1.3 a refusal comes with the first read."""
    with (
        suppress(OSError),
        socket.create_connection((LOOPBACK, port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as secured,
    ):
        return secured.recv(1) != b""
    return False


def test_both_peers_of_the_hospital_endorse_and_one_that_was_away_catches_up(
    network: Network, wait_until: Callable[..., None]
) -> None:
    network.kill("peer0.hospital")
    try:
        with ledger_of(network, "hospital") as hospital:
            hospital.submit("Anchor", anchor("by peer 1"))
    finally:
        network.start("peer0.hospital")
    network.stop("peer1.hospital")
    try:
        with ledger_of(network, "hospital") as hospital:
            wait_until(lambda: is_anchored(hospital, "by peer 1"), WAIT_S, "peer 0 has caught up")
            hospital.submit("Anchor", anchor("by peer 0"))
    finally:
        network.start("peer1.hospital")


def test_the_leader_killed_another_leads_and_the_network_goes_on(network: Network) -> None:
    leader = network.wait_for_leader()
    network.kill(leader)
    try:
        assert network.wait_for_leader() != leader
        with ledger_of(network, "hospital") as hospital:
            hospital.submit("Anchor", anchor(f"without {leader}"))
    finally:
        network.start(leader)


def test_a_frozen_service_answers_nobody_until_it_goes_on(network: Network) -> None:
    network.freeze("chaincode.custodian")
    with ledger_of(network, "hospital", patience_s=2.0) as hospital, pytest.raises(LedgerAway):
        hospital.submit("Anchor", anchor("frozen"))
    network.resume("chaincode.custodian")
    with ledger_of(network, "hospital") as hospital:
        hospital.submit("Anchor", anchor("frozen"))


def test_what_is_on_the_ledger_outlives_down_and_up_which_leave_no_process(
    network: Network, figure: Callable[[str], None]
) -> None:
    with ledger_of(network, "hospital") as hospital:
        hospital.submit("Anchor", anchor("kept"))
    memory_mb = {name: resident_mb(network.processes.pid(name)) for name in network.processes.names()}
    figure(f"consortium: resident memory: {sum(memory_mb.values())} MB: {memory_mb}")
    pids = [network.processes.pid(server.name) for server in network.topology.servers]
    network.down()
    assert network.processes.names() == []
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    began = time.monotonic()
    Network(network.directory).up()
    figure(f"consortium: up again with what it kept: {time.monotonic() - began:.2f} s")
    with ledger_of(network, "hospital") as hospital:
        assert is_anchored(hospital, "kept")
        hospital.submit("Anchor", anchor("afterwards"))


def resident_mb(pid: int | None) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


def test_a_port_that_is_taken_is_named_and_nothing_is_left_running(
    network: Network, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    topology = trial(("hospital", "custodian"), orderers=1, hospital_peers=1).with_ports(free_port)
    port = topology.organisation("custodian").peers[0].port
    small = Network.create(tmp_path / "small", "0" * 64, topology)
    with (
        socket.create_server((LOOPBACK, port)),
        pytest.raises(ConfigError, match=rf"peer0\.custodian.*{port} is taken"),
    ):
        small.up()
    assert small.processes.names() == []


def test_a_server_that_does_not_start_is_named_with_the_end_of_its_log(
    network: Network, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    topology = trial(("hospital", "custodian"), orderers=1, hospital_peers=1).with_ports(free_port)
    small = Network.create(tmp_path / "small", "0" * 64, topology)
    (orderer,) = topology.orderers
    shutil.rmtree(Path(files.places(small.directory).orderer(orderer)) / "msp")
    with pytest.raises(
        LedgerAway, match=r"orderer\.hospital: ended instead of coming up; .*orderer\.hospital\.log ends"
    ):
        small.up()
    assert small.processes.names() == []


def test_a_small_network_with_a_transaction_a_block_and_no_time_window(
    tmp_path: Path, free_port: Callable[[], int], figure: Callable[[str], None]
) -> None:
    need_go()
    chaincode_binary()
    topology = trial(("hospital", "custodian"), orderers=1, hospital_peers=1).with_ports(free_port)
    began = time.monotonic()
    with running(tmp_path / "small", topology, Settings(max_message_count=1, time_window_s=None)) as network:
        figure(f"consortium: two organisations, one orderer, to the first commit: {time.monotonic() - began:.2f} s")
        with (
            ledger_of(network, "hospital", clock=back_dated(1_000_000)) as hospital,
            pytest.raises(ContractError, match=r"^SKEW time: .* from the host's clock"),
        ):
            hospital.submit("Anchor", anchor("long ago"))


def test_an_identity_says_what_it_is_and_is_issued_once(network: Network) -> None:
    folder = network.identity("research", "lab-7", "person")
    assert load_identity(folder).msp_id == "ResearchMSP"
    assert folder == identity_of(network, "research", "lab-7")
    with pytest.raises(ConfigError, match="exists already"):
        network.identity("research", "lab-7", "node")

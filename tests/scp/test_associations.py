"""Who may associate on which port, and how many at once."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.sop_class import Verification

from dicom_scp.server import Listener
from orthanc_ledger.errors import ConfigError

from .client import WAIT_S, associated, run
from .world import LOCAL, NODE, SCANNER, TRIAL, WORKSTATION, FolderArchive, FolderInbox, Node, Peer, config, serving

ECHO = [build_context(Verification)]
CALLED_AE_NOT_RECOGNIZED = (1, 1, 7)
CALLING_AE_NOT_RECOGNIZED = (1, 1, 3)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


def rejection(assoc: Association) -> tuple[int, int, int] | None:
    """Result, source and reason of an A-ASSOCIATE-RJ, None when the association is established."""
    if assoc.is_established:
        return None
    # A rejection that was faster than the client's own thread is taken for a failed connection, and left in the queue.
    answer = assoc.acceptor.primitive or assoc.dul.receive_pdu()
    assert answer is not None
    return answer.result, answer.result_source, answer.diagnostic


@pytest.mark.parametrize("calling", ["SCANNER", "WORKSTATION"])
def test_echo_on_the_clinical_port(node: Node, calling: str) -> None:
    with associated(node.port, ECHO, calling) as assoc:
        assert assoc.send_c_echo().Status == 0x0000


def test_echo_on_the_research_port(research_node: Node) -> None:
    with associated(research_node.port, ECHO, "TRIAL") as assoc:
        assert assoc.send_c_echo().Status == 0x0000


def test_dcmtk_echo(node: Node, dcmtk: Callable[[str], str]) -> None:
    assert run(dcmtk("echoscu"), "-aet", "SCANNER", "-aec", NODE, LOCAL, str(node.port)).returncode == 0
    refused = run(dcmtk("echoscu"), "-aet", "SCANNER", "-aec", "OTHER", LOCAL, str(node.port))
    assert "Called AE Title Not Recognized" in refused.stdout


def test_wrong_called_title_is_rejected(node: Node) -> None:
    with associated(node.port, ECHO, called="OTHER") as assoc:
        assert rejection(assoc) == CALLED_AE_NOT_RECOGNIZED


@pytest.mark.parametrize("calling", ["STRANGER", "TRIAL"])
def test_clinical_port_rejects_strangers_and_research_titles(node: Node, calling: str) -> None:
    with associated(node.port, ECHO, calling) as assoc:
        assert rejection(assoc) == CALLING_AE_NOT_RECOGNIZED


@pytest.mark.parametrize("calling", ["STRANGER", "SCANNER", "WORKSTATION"])
def test_research_port_honours_no_other_role(research_node: Node, calling: str) -> None:
    with associated(research_node.port, ECHO, calling) as assoc:
        assert rejection(assoc) == CALLING_AE_NOT_RECOGNIZED


def test_title_from_an_address_it_is_not_bound_to_is_rejected(folder: Path) -> None:
    elsewhere = Peer("SCANNER", "modality", "HOSPITAL", hosts=("127.0.0.2", "192.0.2.1"))
    anywhere = Peer("WORKSTATION", "clinical", "HOSPITAL")
    with serving(folder, config(peers=[elsewhere, anywhere])) as node:
        with associated(node.port, ECHO, "SCANNER") as assoc:
            assert rejection(assoc) == CALLING_AE_NOT_RECOGNIZED
        with associated(node.port, ECHO, "WORKSTATION") as assoc:
            assert rejection(assoc) is None


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv4_caller_of_an_ipv6_socket_is_known_by_its_ipv4_address(folder: Path) -> None:
    with serving(folder, config(host="::")) as node, associated(node.port, ECHO) as assoc:
        assert rejection(assoc) is None


def test_host_that_is_no_address_stops_the_start(folder: Path) -> None:
    inbox = FolderInbox(folder)
    wrong = Peer("SCANNER", "modality", "HOSPITAL", hosts=("scanner.example",))
    with pytest.raises(ConfigError, match="SCANNER"):
        Listener(config(peers=[wrong]), inbox, FolderArchive(inbox))


def test_fault_while_admitting_admits_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Listener, "_admit", fault)
    with associated(node.port, ECHO) as assoc:
        assert not assoc.is_established


def test_limit_leaves_a_share_to_modalities(folder: Path) -> None:
    with serving(folder, config(max_associations=3, reserved_associations=2)) as node, ExitStack() as open_ones:

        def associate(calling: str) -> tuple[int, int, int] | None:
            return rejection(open_ones.enter_context(associated(node.port, ECHO, calling)))

        assert associate("WORKSTATION") is None
        assert associate("WORKSTATION") == LOCAL_LIMIT_EXCEEDED
        assert associate("SCANNER") is None
        assert associate("SCANNER") is None
        assert associate("SCANNER") == LOCAL_LIMIT_EXCEEDED


def test_released_association_makes_room(folder: Path, wait_until: Callable[..., None]) -> None:
    with serving(folder, config(max_associations=1, reserved_associations=0)) as node:
        for _ in range(3):
            with associated(node.port, ECHO) as assoc:
                assert rejection(assoc) is None
            wait_until(lambda: not node.listener.associations, WAIT_S, "the association is over")


def test_a_hundred_associations_at_once(node: Node) -> None:
    with associated(node.port, ECHO) as assoc, ExitStack() as open_ones:
        assert assoc.requestor.primitive is not None
        request = A_ASSOCIATE_RQ(assoc.requestor.primitive).encode()
        for _ in range(99):  # plain sockets: a hundred SCUs' threads would take minutes of a small machine
            connection = open_ones.enter_context(socket.create_connection((LOCAL, node.port), WAIT_S))
            connection.sendall(request)
            assert connection.recv(1) == b"\x02"  # A-ASSOCIATE-AC
        assert len(node.listener.associations) == 100
        assert assoc.send_c_echo().Status == 0x0000


def test_connections_that_never_associate_are_bounded_for_an_address(
    folder: Path, wait_until: Callable[..., None]
) -> None:
    with serving(folder, config(max_associations=4, reserved_associations=0)) as node, ExitStack() as open_ones:
        silent = [open_ones.enter_context(socket.create_connection((LOCAL, node.port), WAIT_S)) for _ in range(11)]
        assert silent[10].recv(1) == b""
        assert len(node.listener.associations) == 10
        silent[0].close()
        wait_until(lambda: len(node.listener.associations) == 9, WAIT_S, "the closed connection is noticed")


def test_strangers_that_never_associate_leave_room_for_a_modality_at_its_address(
    folder: Path, wait_until: Callable[..., None]
) -> None:
    scanner = Peer("SCANNER", "modality", "HOSPITAL", hosts=("127.0.0.2",))
    settings = config(peers=[scanner], max_associations=4, reserved_associations=0)

    def connect(address: str) -> socket.socket:
        connection = socket.create_connection((LOCAL, node.port), WAIT_S, source_address=(address, 0))
        return open_ones.enter_context(connection)

    with serving(folder, settings) as node, ExitStack() as open_ones:
        for _ in range(10):
            connect("127.0.0.3"), connect("127.0.0.4")
        wait_until(lambda: len(node.listener.associations) >= 12, WAIT_S, "the strangers have what they may have")
        assert connect("127.0.0.5").recv(1) == b""
        assert len(node.listener.associations) == 12
        connection = connect("127.0.0.2")
        connection.sendall(associate_request())
        assert connection.recv(1) == b"\x02"  # A-ASSOCIATE-AC


def test_drip_fed_association_request_is_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_scp.association._ACSE_TIMEOUT_S", 0.3)
    with serving(folder, config()) as node, socket.create_connection((LOCAL, node.port), WAIT_S) as connection:
        connection.sendall(b"\x01\x00" + (100_000).to_bytes(4, "big"))
        connection.settimeout(0.05)
        deadline = time.monotonic() + WAIT_S / 2
        assert not drip(connection, lambda: time.monotonic() < deadline)


def test_slow_sender_of_a_large_pdu_lives_on_in_an_association(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_scp.association._ACSE_TIMEOUT_S", 0.3)
    with serving(folder, config()) as node, socket.create_connection((LOCAL, node.port), WAIT_S) as connection:
        connection.sendall(associate_request())
        accepted = connection.recv(6)
        assert accepted[0] == 0x02
        connection.recv(int.from_bytes(accepted[2:], "big"), socket.MSG_WAITALL)
        connection.settimeout(0.05)
        connection.sendall(b"\x04\x00" + (100_000).to_bytes(4, "big"))
        bytes_sent = iter(range(20))
        assert drip(connection, lambda: next(bytes_sent, None) is not None)


def drip(connection: socket.socket, more: Callable[[], bool]) -> bool:
    """Send a byte after each socket timeout while there are ``more``; whether the connection is still open then."""
    while more():
        try:
            connection.sendall(b"\x00")
            connection.recv(1)
        except TimeoutError:
            continue
        except OSError:
            return False
        return False
    return True


def associate_request() -> bytes:
    """An encoded A-ASSOCIATE-RQ of the scanner for verification."""
    context = build_context(Verification)
    context.context_id = 1
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SCANNER", NODE
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation]
    return A_ASSOCIATE_RQ(request).encode()


def test_silence_beyond_the_network_timeout_ends_an_association(folder: Path, wait_until: Callable[..., None]) -> None:
    with serving(folder, config(network_timeout_s=0.2)) as node, associated(node.port, ECHO) as assoc:
        wait_until(lambda: assoc.is_aborted, WAIT_S, "the node aborts")


def test_defaults_let_a_scanner_be_silent_for_ten_minutes() -> None:
    assert config().network_timeout_s >= 600
    assert config().max_associations >= 100


def test_several_listeners_share_a_port_and_outlive_each_other(folder: Path, node: Node) -> None:
    shared = config(port=node.port)
    with serving(folder, shared) as second:
        for _ in range(40):
            with associated(node.port, ECHO) as assoc:
                assert assoc.send_c_echo().Status == 0x0000
                both = node.listener.associations, second.listener.associations
            if all(both):
                break
    for _ in range(5):
        with associated(node.port, ECHO) as assoc:
            assert assoc.send_c_echo().Status == 0x0000


def test_shutdown_ends_what_is_open(folder: Path, wait_until: Callable[..., None]) -> None:
    with serving(folder, config()) as node, associated(node.port, ECHO) as assoc:
        assert rejection(assoc) is None
        node.listener.shutdown()
        wait_until(lambda: not assoc.is_established, WAIT_S, "the client notices")
        assert not node.listener.associations


def test_roles_of_the_world() -> None:
    assert [peer.role for peer in (SCANNER, WORKSTATION, TRIAL)] == ["modality", "clinical", "research"]

"""The upper layer that is pumped does on the wire what pynetdicom's own does with its thread, in every state.

Each script is played by a plain socket, once against pynetdicom's AE and once against this node.
"""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP, A_RELEASE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification

from dicom_scp.association import application_entity
from dicom_scp.command import encode_command
from dicom_scp.pdu_socket import PduSocket
from dicom_scp.ports import ListenerConfig, Peer
from dicom_scp.route import NotAssociated, Requestor
from dicom_scp.server import Listener

from .client import WAIT_S, associated
from .test_associations import ECHO, associate_request
from .world import LOCAL, NODE, FolderArchive, FolderInbox, Node, config, serving

SHORT_S = 0.3
FLOOD = 5000  # PDUs in one write
NEVER_CLOSED = (0,)

RELEASE_RQ, RELEASE_RP = A_RELEASE_RQ().encode(), A_RELEASE_RP().encode()
UNKNOWN_TYPE = b"\x47\x00\x00\x00\x00\x00"
ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"

Seen = list[tuple[int, ...]]
Script = Callable[[socket.socket], Seen]


def p_data(value: bytes, length: int | None = None) -> bytes:
    """A P-DATA-TF PDU of one value on context 1; ``length`` of the value, where it lies."""
    item = (len(value) + 1 if length is None else length).to_bytes(4, "big") + b"\x01" + value
    return b"\x04\x00" + len(item).to_bytes(4, "big") + item


def echo(message_id: int) -> bytes:
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = message_id, Verification
    return p_data(b"\x03" + encode_command(request, data_set_follows=False))


def read_pdu(connection: socket.socket) -> bytes | None:
    """The next PDU, None when the connection is closed."""
    with suppress(ConnectionResetError):
        header = connection.recv(6, socket.MSG_WAITALL)
        if len(header) == 6:
            return header + connection.recv(int.from_bytes(header[2:], "big"), socket.MSG_WAITALL)
    return None


def read_all(connection: socket.socket) -> Seen:
    """What comes until the connection is closed: PDU types, with result, source and reason of what ends it."""
    seen: Seen = []
    while (pdu := read_pdu(connection)) is not None:
        seen.append((pdu[0], *pdu[7:10]) if pdu[0] in (0x03, 0x07) else (pdu[0],))
    return seen


def says(*pdus: bytes, after: bytes = b"") -> Script:
    """Send ``after`` and wait for the answer, then send the rest at once and see what comes."""

    def play(connection: socket.socket) -> Seen:
        if after:
            connection.sendall(after)
            assert (read_pdu(connection) or b"\0")[0] == 0x02
        connection.sendall(b"".join(pdus))
        return read_all(connection)

    return play


def closes(after: bytes = b"") -> Script:
    """End the connection without a word, having read what is there."""

    def play(connection: socket.socket) -> Seen:
        if after:
            connection.sendall(after)
            read_pdu(connection)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)

    return play


def floods(*pdus: bytes, after: bytes) -> Script:
    """Send ``after``, read the answer, then send the rest again and again, until the connection is closed."""

    def play(connection: socket.socket) -> Seen:
        connection.sendall(after)
        answer = read_pdu(connection) or b"\0"
        flood, until_s = b"".join(pdus) * FLOOD, time.monotonic() + WAIT_S
        with suppress(ConnectionError):
            while time.monotonic() < until_s:
                connection.sendall(flood)
            return [(answer[0],), NEVER_CLOSED]
        return [(answer[0],)]

    return play


RQ = associate_request()
REQUESTS = {
    "abort before associating": says(ABORT),
    "silence before associating": says(),
    "closed before associating": closes(),
    "unknown PDU before associating": says(UNKNOWN_TYPE),
    "data before associating": says(echo(1)),
    "data before associating, and no end of them": floods(p_data(b"\x03"), after=echo(1)),
    "unknown PDU before associating, and no end of them": floods(UNKNOWN_TYPE, after=UNKNOWN_TYPE),
    "release before associating": says(RELEASE_RQ),
    "a request that is none": says(b"\x01\x00\x00\x00\x00\x08" + bytes(8)),
    "release": says(RELEASE_RQ, after=RQ),
    "abort": says(ABORT, after=RQ),
    "closed": closes(after=RQ),
    "silence": says(after=RQ),
    "echo, then release at once": says(echo(1), RELEASE_RQ, after=RQ),
    "second request": says(RQ, after=RQ),
    "release response nobody asked for": says(RELEASE_RP, after=RQ),
    "unknown PDU": says(UNKNOWN_TYPE, after=RQ),
    "unknown PDU, more of them, then abort": says(UNKNOWN_TYPE, UNKNOWN_TYPE, RQ, ABORT, after=RQ),
    "value longer than its PDU": says(p_data(b"\x03rubbish", 99), after=RQ),
}


@contextmanager
def plain_acceptor(port: int) -> Iterator[None]:
    ae = AE(NODE)
    ae.acse_timeout = ae.network_timeout = SHORT_S
    server = ae.start_server((LOCAL, port), block=False, contexts=ECHO)
    try:
        yield
    finally:
        server.shutdown()


def play(port: int, script: Script) -> Seen:
    with socket.create_connection((LOCAL, port), WAIT_S) as connection:
        return script(connection)


@pytest.mark.parametrize("script", REQUESTS.values(), ids=REQUESTS.keys())
def test_peer_that_requests_sees_what_pynetdicom_shows(
    script: Script, folder: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_scp.association._ACSE_TIMEOUT_S", SHORT_S)
    port = free_port()
    with plain_acceptor(port):
        expected = play(port, script)
    with serving(folder, config(network_timeout_s=SHORT_S)) as node:
        assert play(node.port, script) == expected
    assert NEVER_CLOSED not in expected


def answers(*steps: bytes | None) -> Script:
    """Answer each PDU that comes with a step, with nothing where it is None; then see what comes."""

    def play(connection: socket.socket) -> Seen:
        seen: Seen = []
        for step in steps:
            pdu = read_pdu(connection)
            if pdu is None:
                break
            seen.append((pdu[0],))
            connection.sendall(step or b"")
        return seen + read_all(connection)

    return play


def proposed() -> list[PresentationContext]:
    context = build_context(Verification)
    context.context_id = 1
    return [context]


def accept() -> bytes:
    """An A-ASSOCIATE-AC for a request of verification on context 1."""
    request = A_ASSOCIATE_RQ()
    request.decode(RQ)
    answer: A_ASSOCIATE = request.to_primitive()
    context = build_context(Verification, "1.2.840.10008.1.2")
    context.context_id, context.result = 1, 0
    answer.result = 0
    answer.presentation_context_definition_results_list = [context]
    return bytes(A_ASSOCIATE_AC(answer).encode())


def reject() -> bytes:
    answer = A_ASSOCIATE()
    answer.result, answer.result_source, answer.diagnostic = 1, 1, 7
    return bytes(A_ASSOCIATE_RJ(answer).encode())


def hang_up(connection: socket.socket) -> Seen:
    read_pdu(connection)
    connection.shutdown(socket.SHUT_RDWR)
    return []


ACCEPTS = {
    "reject": answers(reject()),
    "abort instead of an answer": answers(ABORT),
    "closed instead of an answer": hang_up,
    "silence instead of an answer": answers(None),
    "unknown PDU instead of an answer": answers(UNKNOWN_TYPE),
    "data instead of an answer": answers(echo(1)),
    "release instead of an answer": answers(RELEASE_RQ),
    "accept, release": answers(accept(), RELEASE_RP),
    "accept, release collision": answers(accept(), RELEASE_RQ, RELEASE_RP),
    "accept, data while releasing": answers(accept(), echo(1) + RELEASE_RP),
    "accept, abort while releasing": answers(accept(), ABORT),
    "accept, silence while releasing": answers(accept(), None),
    "accept, unknown PDU while releasing": answers(accept(), UNKNOWN_TYPE),
}


@contextmanager
def peer_that_plays(script: Script) -> Iterator[tuple[int, list[Seen]]]:
    """A listening socket whose first connection gets the script; its port, and what it saw when the block has ended."""
    seen: list[Seen] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(WAIT_S)
            seen.append(script(connection))

    with socket.create_server((LOCAL, 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], seen
        finally:
            thread.join(WAIT_S)


def requestor(settings: ListenerConfig, monkeypatch: pytest.MonkeyPatch) -> Requestor:
    monkeypatch.setattr("dicom_scp.association._ACSE_TIMEOUT_S", SHORT_S)
    return Requestor(application_entity(settings.ae_title, settings.network_timeout_s, settings.dimse_timeout_s))


@pytest.mark.parametrize("script", ACCEPTS.values(), ids=ACCEPTS.keys())
def test_peer_that_is_asked_sees_what_pynetdicom_shows(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    with peer_that_plays(script) as (port, expected):
        ae = AE(NODE)
        ae.acse_timeout = SHORT_S
        assoc = ae.associate(LOCAL, port, contexts=ECHO)
        if assoc.is_established:
            assoc.release()
    with peer_that_plays(script) as (port, seen), suppress(NotAssociated):
        recipient = Peer("PEER", "clinical", "HOSPITAL", host=LOCAL, port=port)
        with requestor(config(), monkeypatch).associate(recipient, proposed()):
            pass
    assert seen == expected
    assert seen


def test_peer_that_does_not_listen_is_not_associated(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipient = Peer("PEER", "clinical", "HOSPITAL", host=LOCAL, port=free_port())
    with pytest.raises(NotAssociated), requestor(config(), monkeypatch).associate(recipient, proposed()):
        pass


def test_nagle_is_off_on_accepted_and_requested_connections(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    recipient = Peer(NODE, "clinical", "HOSPITAL", host=LOCAL, port=node.port)
    with Requestor(application_entity("SCANNER", WAIT_S, WAIT_S)).associate(recipient, proposed()) as requested:
        (accepted,) = node.listener.associations
        for assoc in (requested, accepted):
            sock = assoc.pdu_socket.socket
            assert sock is not None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_silent_association_sleeps_until_it_is_spoken_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    waits: list[float] = []
    poll = PduSocket._poll

    def recorded(sock: PduSocket, events: int, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return poll(sock, events, timeout_s)

    monkeypatch.setattr(PduSocket, "_poll", recorded)
    with serving(folder, config(network_timeout_s=900)) as node, associated(node.port, ECHO) as assoc:
        wait_until(lambda: waits and 800 < waits[-1] < math.inf, WAIT_S, "the node waits for the peer")
        asleep = len(waits)
        assert assoc.send_c_echo().Status == 0x0000
        wait_until(lambda: len(waits) > asleep, WAIT_S, "the node waits again")
        assert len(waits) <= asleep + 2


def test_association_has_one_thread(node: Node) -> None:
    before = threading.active_count()
    with socket.create_connection((LOCAL, node.port), WAIT_S) as connection:
        connection.sendall(RQ)
        assert (read_pdu(connection) or b"\0")[0] == 0x02
        assert threading.active_count() == before + 1


def test_hanging_up_wakes_who_waits(folder: Path, wait_until: Callable[..., None]) -> None:
    inbox = FolderInbox(folder)
    listener = Listener(config(), inbox, FolderArchive(inbox))
    listener.start()
    with socket.create_connection((LOCAL, listener.port), WAIT_S) as connection:
        connection.sendall(RQ)
        read_pdu(connection)
        (assoc,) = listener.associations
        assoc.pdu_socket.hang_up()
        assert read_pdu(connection) is None
        wait_until(lambda: not listener.associations, WAIT_S, "the association is forgotten")
    listener.shutdown()


def test_what_comes_behind_a_request_at_once_is_served(node: Node) -> None:
    """pynetdicom reads it before it has answered the request, and aborts (AA-8); here it is read after the answer."""
    assert play(node.port, says(RQ, echo(1), echo(2), RELEASE_RQ)) == [(0x02,), (0x04,), (0x04,), (0x06,)]


def test_request_that_pynetdicom_cannot_turn_into_a_primitive_is_aborted(node: Node) -> None:
    """A context ID must be odd. pynetdicom's state machine raises, its thread dies, and the peer is left waiting."""
    at = RQ.rindex(b"\x20\x00\x00") + 4  # in the one presentation context item
    assert RQ[at] == 1
    assert play(node.port, says(RQ[:at] + b"\x02" + RQ[at + 1 :])) == [(0x07, 0, 0, 0)]


def test_abort_where_the_peer_has_broken_the_protocol_already_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """In Sta13 there is no A-ABORT of this side any more (PS3.8 9.2.2); pynetdicom's thread would die of it."""
    with peer_that_plays(answers(accept() + UNKNOWN_TYPE)) as (port, seen):
        recipient = Peer("PEER", "clinical", "HOSPITAL", host=LOCAL, port=port)
        with requestor(config(), monkeypatch).associate(recipient, proposed()) as assoc:
            wait_until(lambda: assoc.is_lost, WAIT_S, "the unknown PDU is here")
            assert assoc.dul.state_machine.current_state == "Sta13"
            assoc.abort()
    assert seen == [[(0x01,), (0x07, 0, 2, 0)]]

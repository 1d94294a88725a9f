"""The upper layer below an association, without a thread of its own (PS3.8 9).

pynetdicom polls the socket in a second thread and hands everything over by queues; between two threads of Python each
hand-over costs more than a slice. Here whoever waits for something pumps: waits for the socket, takes one PDU, and lets
pynetdicom's state machine act upon it. What is sent is written by the calling thread, so that a slow peer slows the
reader of a 2 GB object down instead of filling memory.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE

from dicom_scp.pdu_socket import PDU_HEADER, PduSocket, UnrecognisedPdu

_LINGER_S = 0.001  # what pynetdicom gives a peer in Sta13 to say more before the connection is closed

# States of the upper layer (PS3.8 9.2.1)
_IDLE, _AWAITING_REQUEST, _DATA_TRANSFER, _AWAITING_CLOSE = "Sta1", "Sta2", "Sta6", "Sta13"
_ARTIM_RUNS = (_AWAITING_REQUEST, _AWAITING_CLOSE)

# Events (PS3.8 9.2.2)
_CONNECTION_CLOSED, _ARTIM_EXPIRED, _INVALID_PDU = "Evt17", "Evt18", "Evt19"

_P_DATA_TYPE = 0x04


class UpperLayer(DULServiceProvider):
    """pynetdicom's upper layer, pumped by the association's thread; its state machine and its negotiation are as they
    were. P-DATA is written and read past them while data are transferred (DT-1 and DT-2 only pass them on).
    """

    _begun = False

    def start(self) -> None:
        """Begin; there is no thread."""
        self._begun = True
        self._idle_timer.start()
        self.assoc._dul_ready.set()

    def is_alive(self) -> bool:
        return self._begun and not self._kill_thread

    def stop_dul(self) -> bool:
        """Called by pynetdicom to end the association: pump until the connection is closed."""
        while self.is_alive() and self.state_machine.current_state != _IDLE:
            self.pump(math.inf)
        self.kill_dul()
        return True

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        if wait:
            self.wait_for(lambda: bool(self.to_user_queue.queue), math.inf if timeout is None else timeout)
        return super().receive_pdu(wait=False)

    def send_pdu(self, primitive: Any) -> None:
        """Send at once what this side asks for, unless the association's state has gone past it."""
        super().send_pdu(primitive)
        self._act()

    def wait_for(self, came: Callable[[], bool], timeout_s: float) -> None:
        """Pump until ``came()``, the end of the association, or ``timeout_s``; without time, look at one PDU."""
        until_s = time.monotonic() + timeout_s
        while not came() and self.is_alive():
            self.pump(until_s - time.monotonic())
            if time.monotonic() >= until_s:
                return

    def pump(self, timeout_s: float) -> None:
        """Wait for one PDU or one timer, ``timeout_s`` at most, and act upon it."""
        self._act()
        if not self.is_alive():
            return
        sock = cast(PduSocket, self.socket)
        try:
            if self.state_machine.current_state in _ARTIM_RUNS and self.artim_timer.expired:
                self.event_queue.put(_ARTIM_EXPIRED)  # looked at first: PDUs may come without end
            elif not self._take_pdu(sock):
                sock.receive(min(timeout_s, self._patience_s(sock)))
                if not self._take_pdu(sock):
                    self._check_silence(sock)
        except UnrecognisedPdu:
            self.event_queue.put(_INVALID_PDU)
        except OSError:
            self.event_queue.put(_CONNECTION_CLOSED)
        self._act()

    def _patience_s(self, sock: PduSocket) -> float:
        """Seconds until something has to happen although nothing arrives."""
        state, due_s = self.state_machine.current_state, sock.pdu_due_s
        if state == _AWAITING_CLOSE and due_s == math.inf:
            return _LINGER_S
        return min(due_s, self.artim_timer.remaining) if state in _ARTIM_RUNS else due_s

    def _check_silence(self, sock: PduSocket) -> None:
        due_s = sock.pdu_due_s
        if due_s <= 0:
            raise TimeoutError("the peer stopped in the middle of a PDU, or was too slow")
        if self.state_machine.current_state == _AWAITING_CLOSE and due_s == math.inf:
            sock.close()  # Evt17

    def _take_pdu(self, sock: PduSocket) -> bool:
        if sock.hung_up:
            raise ConnectionAbortedError("the connection was closed by this side")
        pdu = sock.next_pdu()
        if pdu is None:
            return False
        self._idle_timer.restart()
        if pdu[0] == _P_DATA_TYPE and self.state_machine.current_state == _DATA_TRANSFER:
            cast(Any, self.assoc.dimse).receive_values(_data_values(pdu))
        else:
            self._take_control(bytearray(pdu))
        return True

    def _take_control(self, encoded: bytearray) -> None:
        try:
            pdu, event = self._decode_pdu(encoded)
            pdu.to_primitive()
        except Exception:  # anything, on bytes that are no PDU: where pynetdicom's thread would end, they get an abort
            self.event_queue.put(_INVALID_PDU)
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _act(self) -> None:
        """Let the state machine do what has happened, then what this side asks for."""
        while self.is_alive() and (self.event_queue.queue or self._asked()):
            self.state_machine.do_action(self.event_queue.get_nowait())

    def _asked(self) -> bool:
        """Turn the first primitive of this side into its event; drop those that come too late for the state."""
        while self._process_recv_primitive():
            event = self.event_queue.queue[-1]
            if (event, self.state_machine.current_state) in TRANSITION_TABLE:
                return True
            self.event_queue.get_nowait()
            self.to_provider_queue.get_nowait()
        return False


def _data_values(pdu: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The presentation data values of a P-DATA-TF PDU: context ID, then control header and fragment (PS3.8 9.3.5).

    Raises ValueError when they do not fill it.
    """
    at = PDU_HEADER
    while at < len(pdu):
        end = at + 4 + int.from_bytes(pdu[at : at + 4], "big")
        if end < at + 6 or end > len(pdu):
            raise ValueError("presentation data values do not fit their PDU")
        yield pdu[at + 4], pdu[at + 5 : end]
        at = end

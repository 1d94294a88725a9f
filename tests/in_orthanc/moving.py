"""C-MOVE as it is seen on the wire: what the asker is answered, and what arrives where it goes."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from tests.in_orthanc.live import AE_TITLE, LiveOrthanc
from tests.live_node import MR_IMAGE, NATIVE, STUDY_ROOT_MOVE, data_set

PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
WAIT_S = 30.0

Response = tuple[int, int | None, int | None, int | None, int | None]
"""Status; remaining, completed, failed, warning."""


@dataclass
class Destination:
    """A storage SCP, and what it has seen since `fresh`.

    ``answers``: the status of the n-th object, Success without one; ``breaks_at``: the object at which it aborts;
    ``each`` is called before the n-th object is answered.
    """

    title: str
    port: int
    answers: Mapping[int, int] = field(default_factory=dict)
    breaks_at: int | None = None
    each: Callable[[int], object] = lambda number: None
    arrived: list[str] = field(default_factory=list)
    originators: list[tuple[str | None, int | None]] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)

    def fresh(
        self,
        answers: Mapping[int, int] | None = None,
        breaks_at: int | None = None,
        each: Callable[[int], object] = lambda number: None,
    ) -> None:
        """Forget what was seen, and behave so from now on."""
        self.answers, self.breaks_at, self.each = answers or {}, breaks_at, each
        for seen in (self.arrived, self.originators, self.callers):
            seen.clear()

    @contextmanager
    def listening(self) -> Iterator["Destination"]:
        """Listen until the end of the block."""
        ae = AE(self.title)
        ae.add_supported_context(MR_IMAGE, NATIVE)
        ae.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self._take), (evt.EVT_ACCEPTED, self._accepted)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()

    def _accepted(self, event: Any) -> None:
        self.callers.append(str(event.assoc.requestor.ae_title))

    def _take(self, event: Any) -> int:
        number, request = len(self.originators), event.request
        self.originators.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        self.each(number)
        if number == self.breaks_at:
            event.assoc.abort()
            return 0
        status = self.answers.get(number, 0)
        if status & 0xF000 in (0x0000, 0xB000):
            self.arrived.append(str(request.AffectedSOPInstanceUID))
        return status


def move(
    orthanc: LiveOrthanc,
    caller: str,
    destination: str,
    keys: Mapping[str, Any],
    model: str = STUDY_ROOT_MOVE,
    cancelled: threading.Event | None = None,
) -> list[Response]:
    """C-MOVE; all responses, none where the association was aborted. With ``cancelled`` it is cancelled after the
    first, and says so by setting it.
    """
    ae = AE(caller)
    ae.add_requested_context(model, NATIVE)
    ae.dimse_timeout = WAIT_S
    assoc = ae.associate("127.0.0.1", orthanc.dicom_port, ae_title=AE_TITLE)
    assert assoc.is_established
    responses = []
    for status, _ in assoc.send_c_move(data_set(**keys), destination, model, msg_id=7):
        if "Status" in status:
            responses.append(response_of(status))
        if cancelled is not None and not cancelled.is_set():
            assoc.send_c_cancel(7, context_id=1)
            cancelled.set()
    if assoc.is_established:
        assoc.release()
    return responses


def response_of(status: Dataset) -> Response:
    counts = (f"NumberOf{kind}Suboperations" for kind in ("Remaining", "Completed", "Failed", "Warning"))
    remaining, completed, failed, warning = (status.get(name) for name in counts)
    return int(status.Status), remaining, completed, failed, warning

"""Every DIMSE service that an application may ask of Orthanc, asked as one that is in no list of Orthanc's: what it is
answered, and what it gets.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.presentation import build_context

from tests.in_orthanc.live import AE_TITLE, STAFF, USERS, LiveOrthanc
from tests.live_node import MR_IMAGE, NATIVE, data_set

VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
WORKLIST = "1.2.840.10008.5.1.4.31"
MODELS = {"Patient Root": "1.2.840.10008.5.1.4.1.2.1", "Study Root": "1.2.840.10008.5.1.4.1.2.2"}
MODELS["Patient/Study Only"] = "1.2.840.10008.5.1.4.1.2.3"
FIND, MOVE, GET = ".1", ".2", ".3"  # behind a model's UID
LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
PERFORMED_STEP, PRIVATE = "1.2.840.10008.3.1.2.3.3", "1.2.826.0.1.3680043.8.498.1"
WAIT_S = 20.0

Answers = Iterable[tuple[Dataset, Dataset | None]]


class Scu:
    """An application that calls Orthanc, from 127.0.0.1 under any AE title."""

    def __init__(self, orthanc: LiveOrthanc, caller: str, study: Dataset, image: Any) -> None:
        """``study``: the identifiers of what Orthanc holds; ``image``: a Part 10 file that it does not hold."""
        self._port = orthanc.dicom_port
        self._caller = caller
        self._study = study
        self._image = image

    def services(self, destinations: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Every service with what became of it. ``destinations``: where C-MOVE is asked to send."""
        yield "C-ECHO", self.asked(VERIFICATION, lambda assoc: [(assoc.send_c_echo(), None)])
        yield "C-STORE", self._stored(MR_IMAGE)
        yield "C-STORE of a private class", self._stored(PRIVATE)
        for name, model in MODELS.items():
            for level in LEVELS:
                yield f"C-FIND {name}, {level}", self._found(model + FIND, level)
        yield "C-FIND of a worklist", self._found(WORKLIST, None)
        for name, model in MODELS.items():
            yield f"C-GET {name}", self._got(model + GET)
            for destination in destinations:
                yield f"C-MOVE {name} to {destination}", self._moved(model + MOVE, destination)
        yield "N-ACTION of storage commitment", self._committed()
        yield "N-CREATE of a procedure step", self._created()
        yield "C-FIND as a user of the staff", self._found(MODELS["Study Root"] + FIND, "STUDY", as_staff=True)

    def asked(
        self, sop_class: str, ask: Callable[[Any], Answers], roles: Iterable[str] = (), as_staff: bool = False
    ) -> str:
        """What one service is answered, in words."""
        ae, received, sockets = AE(self._caller), [], ExitStack()
        ae.dimse_timeout = ae.acse_timeout = WAIT_S
        ae.requested_contexts = [build_context(uid, NATIVE) for uid in (sop_class, *roles)]
        negotiated: list[Any] = [build_role(uid, scp_role=True) for uid in roles]
        if as_staff:
            identity = UserIdentityNegotiation()
            identity.user_identity_type = 2
            identity.primary_field, identity.secondary_field = STAFF.encode(), USERS[STAFF].encode()
            negotiated.append(identity)

        def keep(event: Any) -> int:
            received.append(event.request.AffectedSOPInstanceUID)
            return 0

        def opened(event: Any) -> None:  # pynetdicom leaves the socket of an aborted association unclosed
            sockets.enter_context(event.assoc.dul.socket.socket)

        handlers = [(evt.EVT_C_STORE, keep), (evt.EVT_CONN_OPEN, opened)]
        with sockets:
            assoc = ae.associate("127.0.0.1", self._port, ae_title=AE_TITLE, ext_neg=negotiated, evt_handlers=handlers)
            if sop_class in {context.abstract_syntax for context in assoc.rejected_contexts}:
                assoc.release()
                return "presentation context refused"
            if not assoc.is_established:
                return "association rejected" if assoc.is_rejected else "association aborted"
            answers = list(ask(assoc))
            if assoc.is_established:
                assoc.release()
        got = len(received) + sum(found is not None for _, found in answers)
        last = answers[-1][0]
        told = f"0x{last.Status:04X}" if "Status" in last else "association aborted"
        return f"{told}, {got} data sets" if got else told

    def _stored(self, sop_class: str) -> str:
        image = dcmread(self._image)
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID(sop_class)
        return self.asked(sop_class, lambda assoc: [(assoc.send_c_store(image), None)])

    def _found(self, model: str, level: str | None, as_staff: bool = False) -> str:
        keys = data_set(PatientName="", PatientID="", StudyInstanceUID="", SeriesInstanceUID="", SOPInstanceUID="")
        if level:
            keys.QueryRetrieveLevel = level
        return self.asked(model, lambda assoc: assoc.send_c_find(keys, model), as_staff=as_staff)

    def _got(self, model: str) -> str:
        return self.asked(model, lambda assoc: assoc.send_c_get(self._study, model), roles=[MR_IMAGE])

    def _moved(self, model: str, destination: str) -> str:
        return self.asked(model, lambda assoc: assoc.send_c_move(self._study, destination, model))

    def _committed(self) -> str:
        asked = data_set(TransactionUID="1.2.826.0.1.3680043.8.498.2")
        held = data_set(ReferencedSOPClassUID=MR_IMAGE, ReferencedSOPInstanceUID=self._study.SOPInstanceUID)
        asked.ReferencedSOPSequence = [held]
        return self.asked(COMMITMENT, lambda assoc: [assoc.send_n_action(asked, 1, COMMITMENT, COMMITMENT_INSTANCE)])

    def _created(self) -> str:
        return self.asked(PERFORMED_STEP, lambda assoc: [assoc.send_n_create(Dataset(), PERFORMED_STEP, PRIVATE)])

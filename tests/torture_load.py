"""What tortures a node: slices by the thousand, senders and getters that never give up, and a book of what was said."""

import contextlib
import random
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

from node_make import real_file
from plain_scu import STUDY_ROOT_GET, SUCCESS, PlainScu
from pydicom import dcmread
from pynetdicom.dsutils import encode

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
CONFLICT = 0x0111
NO_APPROVAL = 0x0124

_ROOT = "1.2.826.0.1.3680043.10"
_DIGITS = 9  # of every number in a UID, so that all objects have one layout
_GE = Path(__file__).parent.parent / "orthanc_ledger" / "samples" / "ge-discovery-mr750" / "mr_0004"
_GE_SLICE = _GE / "axial_epi_fmri_interleaved_i_to_s-00001.dcm"
_RECONNECT_S = 0.05
_TIMEOUT_S = 60.0

Form = Literal["whole", "changed", "broken"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A real MR slice under other UIDs. ``form``: as it is, with another pixel, or cut off in the pixels."""

    number: int
    study: int
    form: Form = "whole"
    small: bool = False

    @property
    def sop_uid(self) -> str:
        return _uid(1, self.number)

    @property
    def study_uid(self) -> str:
        return _uid(2, self.study)

    def encoded(self) -> bytes:
        """The data set, Explicit VR Little Endian."""
        pieces = _template(real_file() if self.small else _GE_SLICE, self.form)
        uids = {_uid(kind, 0).encode(): _uid(kind, n).encode() for kind, n in ((1, self.number), (2, self.study))}
        return b"".join(uids.get(piece, piece) for piece in pieces)


def _uid(kind: int, number: int) -> str:
    return f"{_ROOT}.{kind}.{10**_DIGITS + number}"


@cache
def _template(path: Path, form: Form) -> list[bytes]:
    """A real file's data set, cut before and behind each UID that a slice has of its own."""
    ds = dcmread(path)
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(1, 0), _uid(2, 0), _uid(2, 0)
    if form == "changed":
        ds.PixelData = bytes([ds.PixelData[0] ^ 1]) + ds.PixelData[1:]
    data_set = encode(ds, False, True)
    assert data_set is not None
    pieces = [data_set[: -len(ds.PixelData) // 2] if form == "broken" else data_set]
    for uid in (_uid(1, 0).encode(), _uid(2, 0).encode()):
        pieces = [part for piece in pieces for part in _split(piece, uid)]
    return pieces


def _split(piece: bytes, uid: bytes) -> list[bytes]:
    first, *others = piece.split(uid)
    return [first, *(part for other in others for part in (uid, other))]


class Book:
    """What was sent and what the node said of it; also what no node should have done. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = iter(range(10**_DIGITS))
        self._studies = iter(range(10**_DIGITS))
        self.sent: dict[str, Slice] = {}  # SOP Instance UID → the first content sent under it
        self.acknowledged: dict[Slice, None] = {}  # durable, by the node's word; in the order of its answers
        self.repeats = 0
        self.retrieved = 0
        self.wrong: list[str] = []

    def new_study(self) -> int:
        with self._lock:
            return next(self._studies)

    def new_slice(self, study: int, form: Form = "whole", small: bool = False) -> Slice:
        with self._lock:
            made = Slice(next(self._numbers), study, form, small)
            self.sent[made.sop_uid] = made
            return made

    def answered(self, sent: Slice, expected: int, status: int) -> None:
        """Enter what a C-STORE was answered."""
        with self._lock:
            if status != expected:
                self.wrong.append(f"C-STORE of {sent}: expected 0x{expected:04X}, got 0x{status:04X}")
            else:
                self.repeats += sent in self.acknowledged
                self.acknowledged[sent] = None

    def blame(self, what: str) -> None:
        """Enter what must not happen."""
        with self._lock:
            self.wrong.append(what)

    def since(self, count: int) -> list[Slice]:
        """What was acknowledged after the first so many."""
        with self._lock:
            return list(islice(self.acknowledged, count, None))

    def held(self) -> list[Slice]:
        """What was acknowledged and is the first content under its UID, oldest first."""
        with self._lock:
            return [each for each in self.acknowledged if each.form != "changed"]

    def check_received(self, received: Mapping[str, bytes]) -> None:
        """Enter whatever differs from what was sent."""
        for sop_uid, data_set in received.items():
            if sop_uid not in self.sent or data_set != self.sent[sop_uid].encoded():
                self.blame(f"received {sop_uid}, and it is not what was sent")
        with self._lock:
            self.retrieved += len(received)


def retrieve(port: int, caller: str, study_uids: str | list[str]) -> tuple[int, dict[str, bytes]]:
    """C-GET of studies; the final status, and the data sets by SOP Instance UID. Raises OSError."""
    received: dict[str, bytes] = {}
    with PlainScu(port, caller, [STUDY_ROOT_GET], MR_IMAGE, _TIMEOUT_S) as scu:
        answer = scu.get(received.__setitem__, QueryRetrieveLevel="STUDY", StudyInstanceUID=study_uids)
    return answer.status, received


@dataclass
class Sender:
    """A modality: one association an exam, and what was not answered is sent again on the next one, mostly.

    ``conflict``: how this modality is answered when it sends other content under a known UID.
    """

    port: int
    ae_title: str
    conflict: int
    book: Book
    rng: random.Random
    pause_s: float
    shared_study: int  # one that was approved before these come
    exams: int = 0
    own: list[Slice] = field(default_factory=list)
    unanswered: Slice | None = None

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with PlainScu(self.port, self.ae_title, [MR_IMAGE], timeout_s=_TIMEOUT_S) as scu:
                    self._examine(scu, stop)
            except OSError:  # killed: the receiver, or the whole node
                if self.rng.random() < 0.1:
                    self.unanswered = None
                stop.wait(_RECONNECT_S)

    def _examine(self, scu: PlainScu, stop: threading.Event) -> None:
        late = self.rng.random() < 1 / (1 + self.exams)  # the first time, then ever more seldom
        study = self.shared_study if late else self.book.new_study()
        self.exams += 1
        for _ in range(self.rng.randint(1, 30)):
            sent = self.unanswered = self.unanswered or self._next(study)
            status = scu.store(MR_IMAGE, sent.sop_uid, sent.encoded())
            self.unanswered = None
            self.book.answered(sent, self.conflict if sent.form == "changed" else SUCCESS, status)
            if sent.form == "whole":
                self.own.append(sent)
            if stop.wait(self.rng.uniform(0, 2 * self.pause_s)):
                return

    def _next(self, study: int) -> Slice:
        kind = self.rng.random()
        if self.own and kind < 0.05:
            return self.rng.choice(self.own)
        if self.own and kind < 0.055:
            return replace(self.rng.choice(self.own), form="changed")
        form: Form = "broken" if kind > 0.995 else "whole"
        return self.book.new_slice(study, form, small=self.rng.random() < 0.5)


@dataclass
class Viewer:
    """A clinical workstation that gets studies at random: whole, unchanged, or not answered at all."""

    port: int
    book: Book
    rng: random.Random

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self.rng.uniform(0, 0.5)):
            held = self.book.held()
            if held:
                self._get(self.rng.choice(held).study_uid)

    def _get(self, study_uid: str) -> None:
        try:
            status, received = retrieve(self.port, "VIEWER", study_uid)
        except OSError:
            return
        self.book.check_received(received)
        if status != SUCCESS:
            self.book.blame(f"clinical C-GET of {study_uid}: 0x{status:04X}")


@dataclass
class Researcher:
    """A research node that asks for what it is approved for, among much else."""

    port: int
    book: Book
    rng: random.Random
    approved: Collection[Slice]

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self.rng.uniform(0, 1.0)):
            with contextlib.suppress(OSError):
                self.ask(for_approved=self.rng.random() < 0.7)

    def ask(self, for_approved: bool) -> None:
        """Ask for studies at random, and for the approved one or not: exactly that comes. Raises OSError."""
        approved = {each.sop_uid for each in self.approved} if for_approved else set()
        own, held = {each.study_uid for each in self.approved}, self.book.held()
        asked = list({self.rng.choice(held).study_uid for _ in range(3)} - own | (own if for_approved else set()))
        if not asked:
            return
        status, received = retrieve(self.port, "RESEARCH1", asked)
        self.book.check_received(received)
        if (set(received), status) != (approved, SUCCESS if approved else NO_APPROVAL):
            more, less = received.keys() - approved, approved - received.keys()
            self.book.blame(f"research C-GET: 0x{status:04X}, {len(more)} not approved, {len(less)} not given")


class Traffic:
    """Senders and getters at work, each in a thread of its own."""

    def __init__(self, book: Book, users: Iterable[Sender | Viewer | Researcher]) -> None:
        self._book = book
        self._users = list(users)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watched(user.run), daemon=True) for user in self._users]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when nothing is sent or asked any more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    def _watched(self, run: Callable[[threading.Event], None]) -> Callable[[], None]:
        def watched() -> None:
            try:
                run(self._stop)
            except Exception as error:  # a test's own fault must not look like silence
                self._book.blame(f"{type(error).__name__}: {error}")
                raise

        return watched

"""A research centre fetches what was released to it from its own content store (docs/keyfile.md, "What is checked").

All of a study's objects or none. Each step is kept before the next (`holdings.py`): key file → what will be fetched →
files in a staging folder → their place → the ledger's word. Whoever is killed in between starts again and comes to the
same end; a key file is asked for again only when the one that is here may not be used any more.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from orthanc_ledger.arrival import read_arrival
from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.content import ContentStore
from orthanc_ledger.content.cid import LARGEST
from orthanc_ledger.custody import Anchor, records_that_count
from orthanc_ledger.durable import sync
from orthanc_ledger.errors import ContentAway, ContractError, IntegrityError, NotHeld, ServiceAway, Unreadable
from orthanc_ledger.holdings import Holding, Holdings, Outcome
from orthanc_ledger.key_check import Grant, Outdated, Unseen, check
from orthanc_ledger.key_file import InstanceKeys, KeyFile
from orthanc_ledger.ledger import OpenLedger, all_rows, is_erased, refused_for_now
from orthanc_ledger.manifest import Record, check_anchored
from orthanc_ledger.manifest import read as read_manifest
from orthanc_ledger.recipient_key import PrivateKey
from orthanc_ledger.tokens import seen
from orthanc_ledger.verify import observed, open_released

T = TypeVar("T")

_TRIES = 3
_POLL_S = 0.5
_PIECE = 1 << 20
_AT_ONCE = 8  # of what others hold, the most time goes by waiting for their answers

SEEN_WITHIN_S = 60.0
"""A peer of one's own has what the hospital's has seconds later."""


class Hospital(Protocol):
    """Who gives keys: `key_client.KeyClient`."""

    def studies(self, request: bytes) -> list[bytes]: ...

    def keys(self, request: bytes, study: bytes, public_key: bytes) -> bytes: ...


class Pull:
    """Pulls studies, and forgets them. Only one process of a data_dir may.

    ``quarantine``: where sealed objects go that are not what was anchored; ``seen_within_s``: how long a release may
    take to come to the ledger as it is seen here.
    """

    def __init__(
        self,
        ledger: OpenLedger,
        content: ContentStore,
        holdings: Holdings,
        quarantine: Path,
        clock: Clock = system_clock,
        seen_within_s: float = SEEN_WITHIN_S,
    ) -> None:
        self._ledger = ledger
        self._content = content
        self._holdings = holdings
        self._quarantine = quarantine
        self._clock = clock
        self._seen_within_s = seen_within_s

    def check(self) -> None:
        """Raises ContentAway when the own content store cannot be used now, ConfigError when it must never be."""
        self._content.check()

    def study(
        self, hospital: Hospital, private: PrivateKey, request_id: bytes, study: bytes, out: Path, again: bool = False
    ) -> Holding:
        """Have a study's released objects in a folder of their own under ``out``; what ended before, and was not told,
        is told first. What is there already stays, unless ``again`` asks for a new release.

        The result's outcome is `failed` when an object, a manifest or a key file was not what the ledger says; nothing
        is written then. Raises IntegrityError: the key file is none that counts; what the hospital's client raises;
        LedgerAway, ContentAway: the same call goes on later.
        """
        self.tell()
        self.check()
        latest = self._holdings.latest(request_id, study)
        if latest is not None and latest.outcome == "complete" and latest.folder.is_dir() and not again:
            return latest
        kept = latest if latest is not None and latest.outcome is None else None
        for _ in range(_TRIES):
            request = self._ledger.query("GetRequest", {"id": request_id})
            holding = kept or self._ask(hospital, private, request, study, out)
            try:
                grant = self._check(KeyFile.decode(holding.key_file or b""), private, request, study)
            except (IntegrityError, Unreadable) as error:  # of a new one only that it is outdated by now
                why: IntegrityError | Unreadable = error
                self._end(holding, "failed")
                kept = None
            else:
                return self._get(holding, grant)
        raise why

    def tell(self) -> None:
        """Bring to the ledger what ended. Raises LedgerAway."""
        for holding in self._holdings.untold():
            for instance, what in self._holdings.tampered(holding):
                self._report("ReportTamper", {"release": holding.release, "instance": instance, "observed": what})
            self._report("LogRetrieval", {"release": holding.release, "outcome": holding.outcome})
            self._holdings.told(holding)

    def forget_erased(self) -> list[bytes]:
        """Delete what was pulled of studies that the ledger calls erased, and say so there; their tokens.

        Raises LedgerAway, ContentAway, ServiceAway when a folder cannot be deleted: a repeat goes on.
        """
        studies = {holding.study: None for holding in self._holdings.all()}
        erased = [each for each in studies if is_erased(self._ledger, each)]
        for study in erased:
            for holding in self._holdings.of_study(study):
                for folder in (holding.folder, _staging(holding), self._quarantine / holding.release.hex()):
                    try:
                        _delete(folder)
                    except OSError as error:
                        raise ServiceAway(f"{folder}: cannot be deleted: {error.strerror}") from error
            self._content.forget(self._holdings.fetched(study, root=True), self._holdings.fetched(study, root=False))
            self._ledger.submit("ErasureDone", {"study": study})
            self._holdings.forget(study)
        return erased

    def _ask(
        self, hospital: Hospital, private: PrivateKey, request: Mapping[str, Any], study: bytes, out: Path
    ) -> Holding:
        """A new release, whose key file is checked and kept."""
        data = hospital.keys(request["id"], study, private.public.raw)
        file = KeyFile.decode(data)
        with contextlib.suppress(Outdated):  # found again, and dealt with, where it is used
            self._check(file, private, request, study)
        folder = out.resolve() / study.hex() / file.release.hex()
        holding = Holding(file.release, request["id"], study, data, folder, self._clock(), 0, None, False)
        self._holdings.keep(holding)
        return holding

    def _check(self, file: KeyFile, private: PrivateKey, request: Mapping[str, Any], study: bytes) -> Grant:
        """As `check`, once the ledger here has the release."""
        deadline = time.monotonic() + self._seen_within_s
        while True:
            try:
                return check(file, private, request, study, self._ledger, self._clock())
            except Unseen:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def _report(self, function: str, args: Mapping[str, Any]) -> None:
        with refused_for_now():
            try:
                self._ledger.submit(function, args)
            except ContractError as error:
                if error.code != "CONFLICT":  # told otherwise before, from another folder: the first word stands
                    raise

    def _get(self, holding: Holding, grant: Grant) -> Holding:
        if holding.folder.is_dir():  # killed right after it was put there
            return self._end(holding, "complete", len(grant.keys.instances))
        try:
            records = self._records(grant)
        except IntegrityError:
            self._end(holding, "failed")
            raise
        self._holdings.fetching(holding.study, [record.object for record, _ in records])
        staging = _staging(holding)
        try:
            _delete(staging)
            staging.mkdir(parents=True, mode=0o700)
            with ThreadPoolExecutor(_AT_ONCE, "pull") as pool:
                others = list(pool.map(lambda each: self._fetch(staging, holding, *each), records))
            found = zip(records, others, strict=True)
            tampered = [(record.instance, other) for (record, _), other in found if other is not None]
            if tampered:
                return self._end(holding, "failed", tampered=tampered)
            _place(staging, holding.folder)
        except OSError as error:
            raise ServiceAway(f"{holding.folder}: cannot be written: {error.strerror}") from error
        return self._end(holding, "complete", len(records))

    def _records(self, grant: Grant) -> list[tuple[Record, InstanceKeys]]:
        """The records of what was released, by the ledger and all manifests that could name an earlier one."""
        anchors = self._anchors(grant)
        counting = records_that_count(anchors, grant.standing["superseded"], self._manifest)
        found = []
        for keys in grant.keys.instances:
            anchor, record = counting.current.get(keys.instance, (None, None))
            if (
                anchor is None
                or record is None
                or (anchor["manifestCid"], record.object) != (keys.manifest, keys.object)
            ):
                raise IntegrityError("key file: names an object that is not the one that counts on the ledger")
            found.append((record, keys))
        return found

    def _anchors(self, grant: Grant) -> list[Anchor]:
        """A study's anchors up to the last released one: what comes behind it takes no record's place."""
        anchors = list(all_rows(self._ledger, "AnchorsOfStudy", {"study": grant.keys.study}))
        released = {*grant.release["anchors"]}
        last = max((n for n, anchor in enumerate(anchors) if anchor["manifestCid"] in released), default=-1)
        return anchors[: last + 1]

    def _manifest(self, anchor: Anchor) -> Sequence[Record]:
        cid, study = anchor["manifestCid"], anchor["study"]

        def block(each: str) -> bytes:
            self._holdings.fetching(study, [each], root=each == cid)
            return self._mended(each, cid, lambda: self._content.get_block(each))

        manifest = read_manifest(cid, block, study)
        check_anchored(manifest, anchor)
        return manifest.records

    def _fetch(self, staging: Path, holding: Holding, record: Record, keys: InstanceKeys) -> bytes | None:
        """Write an object's Part 10 file. What was observed instead when it is not the anchored one; that is put into
        quarantine.
        """

        def write() -> None:
            with (
                open_released(record, holding.study, keys.keys, self._content) as unit,
                open(staging / f"{record.instance.hex()}.dcm", "wb") as file,
            ):
                read_arrival(unit)  # the rest is the Part 10 file
                shutil.copyfileobj(unit, file, _PIECE)
                file.flush()
                os.fsync(file.fileno())

        try:
            self._mended(record.object, keys.manifest, write, record.sealed_size)
        except IntegrityError:
            return self._put_aside(holding, record, keys)
        return None

    def _mended(self, cid: str, manifest: str, get: Callable[[], T], size: int = LARGEST) -> T:
        """What is got of an object or block, whose copies here are mended first when it is not to be had.

        Raises IntegrityError: there are only bad copies; ContentAway: none, or that cannot be said now.
        """
        with contextlib.suppress(IntegrityError, NotHeld):
            return get()
        try:
            self._content.repair(cid, manifest, size)
            return get()
        except NotHeld as error:
            raise ContentAway(f"{cid}: not in the own content store, nor where that looks for it") from error

    def _put_aside(self, holding: Holding, record: Record, keys: InstanceKeys) -> bytes:
        folder = self._quarantine / holding.release.hex()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256(b"").digest()
        with contextlib.suppress(IntegrityError, NotHeld):
            digest = observed(record, holding.study, keys.keys, self._content)
            with (
                self._content.open(record.object, record.sealed_size) as sealed,
                open(folder / f"{record.instance.hex()}.sealed", "wb") as file,
            ):
                shutil.copyfileobj(sealed, file, _PIECE)
                file.flush()
                os.fsync(file.fileno())
        return seen(keys.keys.salt, digest)

    def _end(
        self, holding: Holding, outcome: Outcome, objects: int = 0, tampered: Sequence[tuple[bytes, bytes]] = ()
    ) -> Holding:
        if outcome == "failed":
            _delete(_staging(holding))  # of what was begun, nothing stays
        self._holdings.end(holding, outcome, objects, tampered)
        self.tell()
        return replace(holding, outcome=outcome, objects=objects, key_file=None, told=True)


def _staging(holding: Holding) -> Path:
    """Where its files are before all are there: on the same disk."""
    return holding.folder.parent / f".{holding.folder.name}.part"


def _place(staging: Path, folder: Path) -> None:
    """Give a folder its name; durable. Its files are already."""
    sync(staging)
    staging.rename(folder)
    sync(folder.parent)
    sync(folder.parent.parent)


def _delete(folder: Path) -> None:
    """Delete a folder, durable; one that is not there is."""
    if folder.is_dir():
        shutil.rmtree(folder)
        sync(folder.parent)

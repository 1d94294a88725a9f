"""Making the index anew from ledger, content store and keyring, when it is lost or not to be trusted.

Anchors are entered in the ledger's order and a batch's objects in the order they arrived, so that the first record of
a UID is the current one again, until a confirmed supersession names another. What waits in the spool is taken in by the
next anchorer as if it had just come. Lost is what is nowhere else: decisions to supersede that the ledger has not yet.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from orthanc_ledger import tokens
from orthanc_ledger.anchors import Anchors, in_order
from orthanc_ledger.arrival import read_head
from orthanc_ledger.attributes import Attributes
from orthanc_ledger.batch import describe
from orthanc_ledger.custody import Anchor
from orthanc_ledger.durable import sync
from orthanc_ledger.errors import IntegrityError, NotHeld, Unreadable
from orthanc_ledger.incoming import aside_name
from orthanc_ledger.index import Index, Instance, Supersession
from orthanc_ledger.keyring import Keyring, StudyKeys
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.library import Manifests
from orthanc_ledger.manifest import Manifest, Record
from orthanc_ledger.repair import Repairs, Sealed
from orthanc_ledger.verify import IN_MEMORY, open_unit


@dataclass(frozen=True)
class Loss:
    """What could not be restored: an object's or a manifest's CID, how many objects that are, and why."""

    cid: str
    objects: int
    detail: str


@dataclass(frozen=True)
class Rebuilt:
    """How far it came: anchors seen, those of other nodes and of erased studies, objects restored and lost."""

    anchors: int = 0
    elsewhere: int = 0
    erased: int = 0
    objects: int = 0
    lost: int = 0


@dataclass(frozen=True)
class _Found:
    record: Record
    instance: Instance
    attributes: Attributes


class Reindex:
    """Fills an empty index. Only while no other process of the node works."""

    def __init__(
        self,
        ledger: Ledger,
        anchors: Anchors,
        keyring: Keyring,
        content: Sealed,
        manifests: Manifests,
        repairs: Repairs,
        fresh: Index,
        temporary: Path,
        tell: Callable[[Loss], object],
    ) -> None:
        """``temporary``: a folder for unnamed files with the clear bytes of large objects."""
        self._ledger = ledger
        self._anchors = anchors
        self._keyring = keyring
        self._content = content
        self._manifests = manifests
        self._repairs = repairs
        self._fresh = fresh
        self._temporary = temporary
        self._tell = tell
        self._lost: set[bytes] = set()  # instance tokens
        self._proposed: defaultdict[tuple[bytes, str], list[Mapping[str, Any]]] = defaultdict(list)

    def run(self, progress: Callable[[Rebuilt], object] = lambda _: None) -> Rebuilt:
        """Enter everything. Raises LedgerAway, ContentAway: begin again with an empty index then."""
        for waiting in all_rows(self._ledger, "Pending", {}):
            if waiting["kind"] == "supersession":
                self._proposed[waiting["record"]["instance"], waiting["record"]["newManifest"]].append(waiting)
        rebuilt = Rebuilt()
        for anchor in in_order(self._anchors.behind()):
            rebuilt = replace(self._enter(anchor, rebuilt), anchors=rebuilt.anchors + 1)
            progress(rebuilt)
        return rebuilt

    def _enter(self, anchor: Anchor, rebuilt: Rebuilt) -> Rebuilt:
        standing = self._ledger.query("StandingOf", {"study": anchor["study"]})
        if standing["erased"] == "erased":
            return replace(rebuilt, erased=rebuilt.erased + 1)
        try:
            manifest = self._manifests.anchored(anchor)
            study, key = self._keyring.batch(manifest.key_id)
        except (IntegrityError, NotHeld) as fault:
            if not self._anchors.is_own(anchor):
                return replace(rebuilt, elsewhere=rebuilt.elsewhere + 1)
            self._tell(Loss(anchor["manifestCid"], anchor["count"], str(fault)))
            return replace(rebuilt, lost=rebuilt.lost + anchor["count"])
        found = self._read(manifest, study, key)
        if found:
            self._keep(manifest, anchor["sequence"], found)
            self._supersede(manifest.cid, standing["superseded"], found)
        lost = rebuilt.lost + manifest.count - len(found)
        return replace(rebuilt, objects=rebuilt.objects + len(found), lost=lost)

    def _read(self, manifest: Manifest, study: StudyKeys, key: bytes) -> list[_Found]:
        """A manifest's objects in the order they arrived; what cannot be read is told."""
        found = []
        for record in manifest.records:
            try:
                found.append(_Found(record, *self._describe(record, manifest.cid, study, key)))
            except (IntegrityError, NotHeld, Unreadable) as fault:
                self._lost.add(record.instance)
                self._tell(Loss(record.object, 1, str(fault)))
        return sorted(found, key=lambda each: (each.instance.received_us, each.instance.sop_uid))

    def _describe(self, record: Record, manifest: str, study: StudyKeys, key: bytes) -> tuple[Instance, Attributes]:
        opened = partial(open_unit, record, study, key, self._content)
        with (
            self._repairs.opened(record, manifest, study.token, opened) as sealed,
            tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._temporary)) as file,
        ):
            unit = cast(BinaryIO, file)
            shutil.copyfileobj(sealed, unit)
            unit.seek(0)
            sop_uid = read_head(unit).arrival.sop_instance
            unit.seek(0)
            instance, attributes = describe(unit, tokens.claim_name(self._keyring.k_lookup, sop_uid))
        if self._keyring.study(instance.study_uid) != study:
            raise IntegrityError(f"object {record.object}: it is of another study than the one it is anchored for")
        return instance, attributes

    def _keep(self, manifest: Manifest, position: int, found: Sequence[_Found]) -> None:
        """Enter a batch and those of its objects whose UIDs no earlier one has, though it be lost."""
        first = [each for each in found if self._is_first(each, manifest.cid)]
        self._fresh.enter((each.instance, each.attributes) for each in first)
        objects = {each.instance.claim: each.record.object for each in first}
        self._fresh.keep_prepared(found[0].instance.study_uid, manifest, objects)
        [batch] = self._fresh.unanchored()
        self._fresh.keep_anchored(batch, position)

    def _is_first(self, each: _Found, cid: str) -> bool:
        token = each.record.instance
        taken = token in self._lost or (token, cid) in self._proposed
        return not taken and self._fresh.instance(each.instance.claim) is None

    def _supersede(self, cid: str, superseded: Sequence[Mapping[str, Any]], found: Sequence[_Found]) -> None:
        """Serve what a confirmed supersession names; keep those that wait for the custodian."""
        confirmed = {row["instance"] for row in superseded if row["newManifest"] == cid}
        for each in found:
            instance, record = each.instance, each.record
            if record.instance in confirmed:
                batch = self._fresh.anchored_batch(cid)
                current = replace(
                    instance, state="anchored", spool_name="", batch=batch, manifest=cid, object=record.object
                )
                self._fresh.replace_current(current, each.attributes)
            for waiting in self._proposed.get((record.instance, cid), ()):
                conflict = aside_name(instance.claim, instance.sha256)
                proposal = waiting["record"]
                self._fresh.keep_supersession(
                    Supersession(
                        conflict=conflict,
                        claim=instance.claim,
                        reason=proposal["reason"],
                        state="proposed",
                        old_manifest=proposal["oldManifest"],
                        new_manifest=cid,
                        object=record.object,
                        ledger_id=waiting["id"],
                    )
                )


def put_in_place(fresh: Path, place: Path) -> None:
    """Put a closed index where the node looks for it; whatever was there is gone, its log first, as SQLite would
    write that into the new file. Durable when it returns.
    """
    for name in (f"{place.name}-wal", f"{place.name}-shm"):
        place.with_name(name).unlink(missing_ok=True)
    fresh.replace(place)
    sync(place.parent)

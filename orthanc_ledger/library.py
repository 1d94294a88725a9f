"""The objects this node holds, opened verified; what differs is withheld, alarmed and reported to the ledger."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, BinaryIO

from orthanc_ledger import tokens
from orthanc_ledger.arrival import Arrival, read_head
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.keyring import Keyring, StudyKeys
from orthanc_ledger.manifest import Manifest, Record, check_anchored
from orthanc_ledger.manifest import read as read_manifest
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.repair import DAMAGED, Repairs, Sealed
from orthanc_ledger.spool import INBOX, QUARANTINE, Spool
from orthanc_ledger.verify import hash_data_set, observed, open_verified


@dataclass(frozen=True, slots=True)
class Checked:
    """An object that was verified; ``fault`` says in which way it differs from its anchor, or that it is missing;
    ContentAway: that nobody can say now whether there is a healthy copy.
    """

    record: Record
    fault: IntegrityError | NotHeld | ContentAway | None


def flag_name(instance: bytes) -> str:
    """Under which an instance's flag waits in the outbox for the ledger."""
    return f"tampered/{instance.hex()}"


class Manifests:
    """Manifests by CID, each verified when first read; immutable, so a few are kept."""

    def __init__(self, content: Sealed, repairs: Repairs) -> None:
        self._content = content
        self._repairs = repairs
        self.read = lru_cache(maxsize=16)(self._read)

    def _read(self, cid: str, study_token: bytes, every_copy: bool = False) -> Manifest:
        """Raises IntegrityError when any block or record differs, NotHeld, ContentAway; bad copies are mended first."""
        replaced = {}

        def block(each: str) -> bytes:
            if not every_copy:
                with contextlib.suppress(IntegrityError, NotHeld):
                    return self._content.get_block(each)
            replaced[each] = self._repairs.mend(each, cid, study_token)
            return self._content.get_block(each)

        manifest = read_manifest(cid, block, study_token)
        for record in manifest.records[:1]:
            for each, copies in replaced.items():
                self._repairs.tell(study_token, record.instance, each, copies)
        return manifest

    def anchored(self, anchor: Mapping[str, Any], anew: bool = False, every_copy: bool = False) -> Manifest:
        """The manifest of an anchor (a row of the queries GetAnchor and Anchors); ``anew``: from the store in any case;
        ``every_copy``: with each of its copies verified.

        Raises IntegrityError also when root or count are not the anchor's; NotHeld, ContentAway.
        """
        cid, study_token = anchor["manifestCid"], anchor["study"]
        manifest = self._read(cid, study_token, every_copy) if anew or every_copy else self.read(cid, study_token)
        check_anchored(manifest, anchor)
        return manifest

    def record(self, cid: str, study_token: bytes, instance: bytes) -> tuple[Record, bytes]:
        """An instance's record and its batch's key_id. Raises as ``read``."""
        manifest = self.read(cid, study_token)
        record = manifest.record(instance)
        if record is None:
            raise IntegrityError(f"manifest {cid}: has no record of an instance the index places there")
        return record, manifest.key_id


class Library:
    """Opens objects for retrieval."""

    def __init__(
        self,
        spool: Spool,
        index: Index,
        keyring: Keyring,
        content: Sealed,
        manifests: Manifests,
        outbox: Outbox,
        repairs: Repairs,
    ) -> None:
        self._spool = spool
        self._index = index
        self._keyring = keyring
        self._content = content
        self._manifests = manifests
        self._outbox = outbox
        self._repairs = repairs

    @contextlib.contextmanager
    def open(self, instance: Instance) -> Iterator[BinaryIO]:
        """An object's data set, standing at its first byte, verified whole: from the spool against its arrival digest,
        else against its manifest; and its class and transfer syntax against its sealed arrival.

        A bad copy is replaced first. Raises IntegrityError after alarm and report when none is healthy; NotHeld;
        ContentAway, also while nobody can say whether one is.
        """
        with contextlib.ExitStack() as stack:
            try:
                arrival, unit = stack.enter_context(self._open(instance))
            except NotHeld:
                fresh = self._index.instance(instance.claim)  # anchored or put aside since
                if fresh is None or fresh.state == instance.state:
                    raise
                arrival, unit = stack.enter_context(self._open(fresh))
            self._compare(instance, arrival)
            yield unit

    def check_manifest(self, study_uid: str, anchor: Mapping[str, Any], every_copy: bool = False) -> Iterator[Checked]:
        """Verify all that an anchor (a row of the queries GetAnchor and Anchors) stands for: its manifest now, then
        each object when the iterator comes to it; in one healthy copy, or with ``every_copy`` in all that there are.

        Raises IntegrityError and NotHeld when the manifest cannot be used, as its keys are not here, it is missing, or
        it is not the anchored one; ContentAway, then, and from the iterator when no object can be verified.
        """
        study = self._keys(study_uid)
        if every_copy:
            self._repairs.check()
        manifest = self._manifests.anchored(anchor, anew=True, every_copy=every_copy)
        key = self._keyring.batch_key(manifest.key_id)
        return (
            Checked(record, self._fault(study_uid, record, manifest.cid, study, key, every_copy))
            for record in manifest.records
        )

    def check(self) -> None:
        """Raises ContentAway when no object can be verified in all its copies."""
        self._repairs.check()

    def tend(self, manifest: str, objects: Collection[str], now_us: int, is_erased: Callable[[], bool]) -> None:
        """Once all objects of a manifest are verified: what else is due for its copies, unless its study is erased."""
        self._repairs.tend(manifest, objects, now_us, is_erased)

    def report(self, instance: Instance) -> None:
        """Alarm, and queue FlagTampered with what was found instead; the anchorer numbers it, and drops it where a flag
        of the instance stands. Raises NotHeld when its study's keys are gone.
        """
        study = self._keys(instance.study_uid)
        token = tokens.instance_token(study.k_study, instance.sop_uid)
        args: dict[str, Any] = {
            "study": study.token,
            "instance": token,
            "manifestCid": instance.manifest,
            "observed": self._observed(instance, study, token),
            "what": [],
        }
        text = f"object {instance.object} differs from its anchor and has no healthy copy: it is withheld"
        self._outbox.alarm(DAMAGED, instance.claim, text)
        self._outbox.post("FlagTampered", args, unanswered=flag_name(token))

    def _open(self, instance: Instance) -> AbstractContextManager[tuple[Arrival, BinaryIO]]:
        if instance.state == "anchored":
            return self._open_anchored(instance)
        return self._open_spooled(instance, INBOX if instance.state == "spooled" else QUARANTINE)

    @contextlib.contextmanager
    def _open_spooled(self, instance: Instance, queue: str) -> Iterator[tuple[Arrival, BinaryIO]]:
        with contextlib.ExitStack() as stack:
            try:
                unit = stack.enter_context(self._spool.open(instance.spool_name, queue))
                sha256 = hash_data_set(unit)
                unit.seek(0)
                arrival = read_head(unit).arrival
            except OSError as error:  # of one file: the anchorer, which needs it too, alarms until it can be read
                raise ContentAway(f"spool: a waiting object cannot be read: {error.strerror}") from error
            if sha256 != instance.sha256:
                text = "a waiting object differs from what arrived: restore the disk or resend it"
                self._outbox.alarm(DAMAGED, instance.claim, text)
                raise IntegrityError("spool: the data set differs from what arrived")
            yield arrival, unit

    @contextlib.contextmanager
    def _open_anchored(self, instance: Instance) -> Iterator[tuple[Arrival, BinaryIO]]:
        study = self._keys(instance.study_uid)
        token = tokens.instance_token(study.k_study, instance.sop_uid)
        with contextlib.ExitStack() as stack:
            try:
                record, key_id = self._manifests.record(str(instance.manifest), study.token, token)
                key = self._keyring.batch_key(key_id)
                opened = stack.enter_context(self._mended(record, str(instance.manifest), study, key))
            except (IntegrityError, NotHeld) as error:
                self.report(instance)
                raise IntegrityError(f"withheld: {error}") from error
            yield opened

    def _compare(self, instance: Instance, arrival: Arrival) -> None:
        """Raises IntegrityError when the index calls an object something else than what was sealed as it arrived."""
        said = (instance.sop_class, instance.sop_uid, instance.transfer_syntax)
        if said != (arrival.sop_class, arrival.sop_instance, arrival.transfer_syntax):
            self._outbox.alarm("index", instance.claim, "the index does not fit the object: somebody changed it")
            raise IntegrityError("withheld: index and object differ in class, instance or transfer syntax")

    def _fault(
        self, study_uid: str, record: Record, manifest: str, study: StudyKeys, batch_key: bytes, every_copy: bool
    ) -> IntegrityError | NotHeld | ContentAway | None:
        try:
            self._keys(study_uid)  # erased since the manifest was read
            with self._mended(record, manifest, study, batch_key, every_copy):
                return None
        except (IntegrityError, NotHeld) as fault:
            return fault
        except ContentAway as fault:
            self._repairs.check()  # raises when it is not this object's
            return fault

    def _mended(
        self, record: Record, manifest: str, study: StudyKeys, batch_key: bytes, every_copy: bool = False
    ) -> AbstractContextManager[tuple[Arrival, BinaryIO]]:
        opened = partial(open_verified, record, study, batch_key, self._content)
        return self._repairs.opened(record, manifest, study.token, opened, every_copy)

    def _keys(self, study_uid: str) -> StudyKeys:
        study = self._keyring.study(study_uid)
        if study is None:
            raise NotHeld("the keyring has no keys of this study: restore it from its backup")
        return study

    def _observed(self, instance: Instance, study: StudyKeys, token: bytes) -> bytes | None:
        """What is there instead, as the ledger may know it; None when nothing can be read."""
        try:
            record, key_id = self._manifests.record(str(instance.manifest), study.token, token)
            keys = tokens.object_keys(self._keyring.batch_key(key_id), token)
            return tokens.seen(study.k_study, observed(record, study.token, keys, self._content))
        except (IntegrityError, NotHeld):
            return None

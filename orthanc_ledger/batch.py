"""Preparing a batch: fingerprint, seal, store and verify every object, build the manifest, without the ledger."""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orthanc_ledger import manifest, tokens
from orthanc_ledger.arrival import Arrival, read_head, section
from orthanc_ledger.attributes import WANTED, Attributes, read_attributes
from orthanc_ledger.content import Batch as ContentBatch
from orthanc_ledger.content import ContentStore
from orthanc_ledger.errors import ConfigError, IntegrityError, NotHeld, Unreadable
from orthanc_ledger.fingerprint import Fingerprint, fingerprints
from orthanc_ledger.index import Instance
from orthanc_ledger.instance import open_instance
from orthanc_ledger.keyring import BatchKey, Keyring, StudyKeys
from orthanc_ledger.manifest import Manifest, Record
from orthanc_ledger.seal import seal
from orthanc_ledger.spool import Spool, claim_of
from orthanc_ledger.verify import IN_MEMORY, hash_rest, verify

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchLimits:
    """A study's batch closes when its last object is ``idle_s`` old, or at ``max_instances``, or at ``max_age_s``."""

    idle_s: float = 0.75
    max_instances: int = 1000
    max_age_s: float = 30.0


@dataclass(frozen=True)
class Prepared:
    """A batch that only the ledger has not seen yet: durable in the content store, verified by reading it back."""

    manifest: Manifest
    objects: dict[str, str]  # claim → object CID


@dataclass(frozen=True)
class Rejected:
    """An object that is not in the batch: it cannot be fingerprinted, was damaged in the spool, or is gone from it."""

    instance: Instance
    reason: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit to be fingerprinted: its file, the SHA-256 its data set arrived with, and the salt key."""

    path: Path
    sha256: bytes
    salt: bytes


Fingerprints = tuple[Fingerprint, Fingerprint]
"""The unsalted and the salted fingerprint of an object."""

FingerprintAll = Callable[[Iterable[Unit]], Iterator[Fingerprints | Exception]]


class Preparer:
    """Turns units of the spool into batches; calls ``between`` after each object, so that others need not wait.

    ``fingerprint_all`` gives for each unit what ``fingerprint_unit`` returns, in order; it may take units ahead and be
    another process (``Workers.map``).
    """

    def __init__(
        self,
        spool: Spool,
        keyring: Keyring,
        content: ContentStore,
        between: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._keyring = keyring
        self._content = content
        self._between = between
        self.fingerprint_all: FingerprintAll = lambda units: map(fingerprint_unit, units)

    def open(self, study_uid: str, queue: str) -> "OpenBatch":
        """Begin a batch of a study from units in ``queue`` of the spool. Raises ContentAway, StudyErased."""
        study = self._keyring.ensure_study(study_uid)
        writer = self._content.begin()
        try:
            key = self._keyring.new_batch(study_uid)
        except BaseException:
            writer.__exit__(None, None, None)
            raise
        return OpenBatch(study, key, writer, queue, self._spool, self.fingerprint_all, self._between)

    def prepare(
        self, study_uid: str, seq: int, instances: Sequence[Instance], queue: str
    ) -> tuple[Prepared | None, list[Rejected]]:
        """Prepare a whole batch: what is in it (None when no object was left), and what is not. Raises as OpenBatch."""
        with contextlib.closing(self.open(study_uid, queue)) as batch:
            rejected = list(batch.add(instances))
            return batch.finish(seq), rejected


class OpenBatch:
    """A study's batch while its scan still arrives: each object is fingerprinted and sealed when it is added, so that
    little is left to do when the last one came.

    Raises ContentAway; and IntegrityError when an object read back from the store is not what was written. Nothing was
    anchored then and the batch may be made again: under a new key, so with new CIDs. What the store already held of the
    failed attempt stays there: ciphertext that no manifest on the ledger names.
    """

    def __init__(
        self,
        study: StudyKeys,
        key: BatchKey,
        writer: ContentBatch,
        queue: str,
        spool: Spool,
        fingerprint_all: FingerprintAll,
        between: Callable[[], None],
    ) -> None:
        self._study = study
        self._key = key
        self._writer = writer
        self._queue = queue
        self._spool = spool
        self._fingerprint_all = fingerprint_all
        self._between = between
        self._records: dict[str, Record] = {}

    @property
    def claims(self) -> Set[str]:
        """The claims of what is in it."""
        return self._records.keys()

    def add(self, instances: Sequence[Instance]) -> Iterator[Rejected]:
        """Fingerprint, seal and read back objects; gives what cannot be, which is not in the batch."""
        units = (
            Unit(self._spool.folder / self._queue / instance.spool_name, instance.sha256, self._salt(instance))
            for instance in instances
        )
        for instance, found in zip(instances, self._fingerprint_all(units), strict=True):
            try:
                record = self._seal(instance, *_given(found))
            except (Unreadable, NotHeld) as error:
                yield Rejected(instance, str(error))
            else:
                verify(record, self._study, self._key.key, self._writer)  # only what can be read back is published
                self._records[instance.claim] = record
            self._between()

    def finish(self, seq: int) -> Prepared | None:
        """Commit the batch to the content store; None when it is empty."""
        if not self._records:
            return None
        built = manifest.build(self._study.token, seq, self._key.key_id, self._records.values())
        for block in built.blocks.values():
            self._writer.add_block(block)
        self._writer.commit()
        return Prepared(built, {claim: record.object for claim, record in self._records.items()})

    def close(self) -> None:
        """Discard what was not committed."""
        self._writer.__exit__(None, None, None)

    def _salt(self, instance: Instance) -> bytes:
        return tokens.salt_key(self._key.key, tokens.instance_token(self._study.k_study, instance.sop_uid))

    def _seal(self, instance: Instance, plain: Fingerprint, salted: Fingerprint) -> Record:
        study = self._study
        token = tokens.instance_token(study.k_study, instance.sop_uid)
        key = tokens.seal_key(self._key.key, token)
        with self._spool.open(instance.spool_name, self._queue) as unit:
            size = os.fstat(unit.fileno()).st_size
            stored = self._writer.add_object(lambda sink: seal(unit, sink, key, study.token, token, size))
        return Record(
            instance=token,
            content_id=tokens.content_id(study.k_study, plain.fingerprint),
            object=stored.cid,
            sealed_size=stored.size,
            plain_size=size,
            digest=tokens.keyed_digest(self._salt(instance), instance.sha256),
            fingerprint=salted.fingerprint,
            pixel_root=salted.pixel_root,
            pixel_leaves=salted.pixel_leaves,
            metadata_root=salted.metadata_root,
            metadata_leaves=salted.metadata_leaves,
            pixel_form=salted.pixel_form,
            decoder=salted.decoder,
            decode_error=salted.decode_error,
            origin=instance.origin,
        )


def fingerprint_unit(unit: Unit) -> Fingerprints | Exception:
    """The fingerprints of a unit that is still what arrived.

    Returns instead of raising, as it may run in another process: Unreadable and NotHeld are the object's, OSError and
    ConfigError say that a full disk or a missing decoder kept it from being read.
    """
    try:
        with open(unit.path, "rb") as file:
            small = os.fstat(file.fileno()).st_size <= IN_MEMORY
            source: BinaryIO = io.BytesIO(file.read()) if small else file
            head = read_head(source)
            found = hash_rest(source)
            if found != unit.sha256:
                raise IntegrityError(f"the data set's SHA-256 was {unit.sha256.hex()}, is {found.hex()}")
            plain, salted = fingerprints(open_instance(section(source, head.part10_offset)), (None, unit.salt))
    except FileNotFoundError:
        return NotHeld(f"spool: no unit {unit.path.name}")
    except IntegrityError as error:
        return Unreadable(f"damaged in the spool: {error}")
    except (Unreadable, OSError, ConfigError) as error:
        return error
    except Exception as error:  # a fault of ours in one object must not keep all others from being anchored
        LOGGER.error("a fault while fingerprinting an object, which goes to quarantine: %s", type(error).__name__)
        LOGGER.debug("the fault", exc_info=True)
        return Unreadable(f"a fault while fingerprinting: {type(error).__name__}")
    return plain, salted


def fingerprint_limit_s(unit: Unit) -> int:
    """Seconds after which `fingerprint_unit` counts as hanging: many times what it takes on a busy machine."""
    with contextlib.suppress(OSError):  # which it tells itself
        return 60 + (unit.path.stat().st_size >> 20)
    return 60


def _given(found: Fingerprints | Exception) -> Fingerprints:
    if isinstance(found, Exception):
        raise found
    return found


def describe(unit: BinaryIO, name: str) -> tuple[Instance, Attributes]:
    """What the index keeps of a unit that waits under ``name``. Raises Unreadable."""
    head = read_head(unit)
    if not head.arrival.sop_instance:
        raise Unreadable("its UIDs of class, instance or study cannot be read")
    size = unit.seek(0, 2) - head.data_set_offset
    parsed = open_instance(section(unit, head.part10_offset), WANTED)
    instance = waiting_row(head.arrival, name, size, parsed.study_instance_uid, parsed.series_instance_uid)
    return instance, read_attributes(parsed)


def waiting_row(arrival: Arrival, name: str, size: int, study_uid: str, series_uid: str) -> Instance:
    """The index row of a unit that waits under ``name`` in the spool; ``size`` in bytes of its data set."""
    return Instance(
        claim=claim_of(name),
        sop_uid=arrival.sop_instance,
        series_uid=series_uid,
        study_uid=study_uid,
        sop_class=arrival.sop_class,
        transfer_syntax=arrival.transfer_syntax,
        size=size,
        sha256=arrival.sha256,
        received_us=arrival.received_us,
        origin=arrival.origin,
        sender=arrival.sender,
        state="spooled",
        spool_name=name,
    )

"""Preparing a batch: fingerprint, seal, store and verify every object, build the manifest, without the ledger."""

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
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
from orthanc_ledger.last_words import LastWords
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


class Preparer:
    """Turns units of the spool into batches; calls ``between`` after each object, so that others need not wait."""

    def __init__(
        self,
        spool: Spool,
        keyring: Keyring,
        content: ContentStore,
        last_words: LastWords,
        between: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._keyring = keyring
        self._content = content
        self._last_words = last_words
        self._between = between

    def open(self, study_uid: str, queue: str) -> "OpenBatch":
        """Begin a batch of a study from units in ``queue`` of the spool. Raises ContentAway, StudyErased."""
        study = self._keyring.ensure_study(study_uid)
        writer = self._content.begin()
        try:
            key = self._keyring.new_batch(study_uid)
        except BaseException:
            writer.__exit__(None, None, None)
            raise
        return OpenBatch(study, key, writer, queue, self._spool, self._last_words, self._between)

    def prepare(
        self, study_uid: str, seq: int, instances: Iterable[Instance], queue: str
    ) -> tuple[Prepared | None, list[Rejected]]:
        """Prepare a whole batch: what is in it (None when no object was left), and what is not. Raises as OpenBatch."""
        with contextlib.closing(self.open(study_uid, queue)) as batch:
            rejected = [item for instance in instances if (item := batch.add(instance)) is not None]
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
        last_words: LastWords,
        between: Callable[[], None],
    ) -> None:
        self._study = study
        self._key = key
        self._writer = writer
        self._queue = queue
        self._spool = spool
        self._last_words = last_words
        self._between = between
        self._records: dict[str, Record] = {}

    @property
    def claims(self) -> Set[str]:
        """The claims of what is in it."""
        return self._records.keys()

    def add(self, instance: Instance) -> Rejected | None:
        """Fingerprint, seal and read back one object; what cannot be is returned, and is not in the batch."""
        rejected = None
        try:
            with self._spool.open(instance.spool_name, self._queue) as unit:
                record = self._add(instance, unit)
        except (Unreadable, NotHeld) as error:
            rejected = Rejected(instance, str(error))
        else:
            verify(record, self._study, self._key.key, self._writer)  # only what can be read back is published
            self._records[instance.claim] = record
        self._between()
        return rejected

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

    def _add(self, instance: Instance, unit: BinaryIO) -> Record:
        study, key = self._study, self._key
        size = unit.seek(0, io.SEEK_END)
        unit.seek(0)
        if size <= IN_MEMORY:
            unit = io.BytesIO(unit.read())  # read once: what is fingerprinted is what is sealed
        token = tokens.instance_token(study.k_study, instance.sop_uid)
        salt = tokens.salt_key(key.key, token)
        with self._last_words.decoding(instance.claim):
            plain, salted = _fingerprints(instance, unit, salt)

        def write(sink: BinaryIO) -> None:
            unit.seek(0)
            seal(unit, sink, tokens.seal_key(key.key, token), study.token, token, size)

        stored = self._writer.add_object(write)
        return Record(
            instance=token,
            content_id=tokens.content_id(study.k_study, plain.fingerprint),
            object=stored.cid,
            sealed_size=stored.size,
            plain_size=size,
            digest=tokens.keyed_digest(salt, instance.sha256),
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


def _fingerprints(instance: Instance, unit: BinaryIO, salt: bytes) -> tuple[Fingerprint, Fingerprint]:
    """The unsalted and the salted fingerprint of a unit that is still what arrived. Raises Unreadable."""
    try:
        head = read_head(unit)
        found = hash_rest(unit)
        if found != instance.sha256:
            raise IntegrityError(f"the data set's SHA-256 was {instance.sha256.hex()}, is {found.hex()}")
        plain, salted = fingerprints(open_instance(section(unit, head.part10_offset)), (None, salt))
    except IntegrityError as error:
        raise Unreadable(f"damaged in the spool: {error}") from error
    except (Unreadable, OSError, ConfigError):  # a full disk or a missing decoder says nothing of the object
        raise
    except Exception as error:  # a fault of ours in one object must not keep all others from being anchored
        LOGGER.error("a fault while fingerprinting an object, which goes to quarantine: %s", type(error).__name__)
        LOGGER.debug("the fault", exc_info=True)
        raise Unreadable(f"a fault while fingerprinting: {type(error).__name__}") from error
    return plain, salted


def describe(unit: BinaryIO, name: str) -> tuple[Instance, Attributes]:
    """What the index keeps of a unit that waits under ``name``. Raises Unreadable."""
    head = read_head(unit)
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
        state="spooled",
        spool_name=name,
    )

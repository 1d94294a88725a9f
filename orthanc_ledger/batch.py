"""Preparing a batch: fingerprint, seal, store and verify every object, build the manifest, without the ledger."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from orthanc_ledger import manifest, tokens
from orthanc_ledger.arrival import read_head, section
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
from orthanc_ledger.verify import hash_data_set, verify

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchLimits:
    """A study's batch closes when its last object is ``idle_s`` old, or at ``max_instances``, or at ``max_age_s``."""

    idle_s: float = 1.0
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

    def prepare(
        self, study_uid: str, seq: int, instances: Iterable[Instance], queue: str
    ) -> tuple[Prepared | None, list[Rejected]]:
        """Prepare one batch of a study from its units in ``queue`` of the spool.

        Returns the batch (None when no object was left) and what is not in it. Raises ContentAway; StudyErased;
        IntegrityError when an object read back from the store is not what was written. Nothing was anchored then and
        the same call may be made again: under a new key, so with new CIDs. What the store already held of the failed
        attempt stays there: ciphertext that no manifest on the ledger names.
        """
        study = self._keyring.ensure_study(study_uid)
        records: dict[str, Record] = {}
        rejected: list[Rejected] = []
        with self._content.begin() as writer:
            key = self._keyring.new_batch(study_uid)
            for instance in instances:
                try:
                    with self._spool.open(instance.spool_name, queue) as unit:
                        records[instance.claim] = self._add(instance, unit, study, key, writer)
                except (Unreadable, NotHeld) as error:
                    rejected.append(Rejected(instance, str(error)))
                self._between()
            if not records:
                return None, rejected
            built = manifest.build(study.token, seq, key.key_id, records.values())
            for block in built.blocks.values():
                writer.add_block(block)
            writer.commit()
        for record in records.values():
            verify(record, study, key.key, self._content)
            self._between()
        return Prepared(built, {claim: record.object for claim, record in records.items()}), rejected

    def _add(self, instance: Instance, unit: BinaryIO, study: StudyKeys, key: BatchKey, writer: ContentBatch) -> Record:
        token = tokens.instance_token(study.k_study, instance.sop_uid)
        salt = tokens.salt_key(key.key, token)
        with self._last_words.decoding(instance.claim):
            plain, salted = _fingerprints(instance, unit, salt)
        size = unit.seek(0, 2)

        def write(sink: BinaryIO) -> None:
            unit.seek(0)
            seal(unit, sink, tokens.seal_key(key.key, token), study.token, token, size)

        stored = writer.add_object(write)
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
        found = hash_data_set(unit)
        if found != instance.sha256:
            raise IntegrityError(f"the data set's SHA-256 was {instance.sha256.hex()}, is {found.hex()}")
        unit.seek(0)
        plain, salted = fingerprints(open_instance(section(unit, read_head(unit).part10_offset)), (None, salt))
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
    arrival = head.arrival
    instance = Instance(
        claim=claim_of(name),
        sop_uid=arrival.sop_instance,
        series_uid=parsed.series_instance_uid,
        study_uid=parsed.study_instance_uid,
        sop_class=arrival.sop_class,
        transfer_syntax=arrival.transfer_syntax,
        size=size,
        sha256=arrival.sha256,
        received_us=arrival.received_us,
        origin=arrival.origin,
        state="spooled",
        spool_name=name,
    )
    return instance, read_attributes(parsed)

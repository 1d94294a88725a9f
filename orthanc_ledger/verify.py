"""Opening one anchored object so that nothing of it is used before all of it was verified: CID, then seal, then
keyed digest.

An object of at most ``IN_MEMORY`` sealed bytes is read once and kept; a larger one is decrypted twice through one
open file, first to check, then to use:
no clear bytes touch a disk, and what changes between the passes fails its segment's seal.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO

from orthanc_ledger.arrival import Arrival, read_head
from orthanc_ledger.content import Objects, verify_cid
from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.keyring import StudyKeys
from orthanc_ledger.manifest import Record
from orthanc_ledger.seal import open_sealed
from orthanc_ledger.tokens import ObjectKeys, keyed_digest, object_keys

IN_MEMORY = 16 << 20
_CHUNK = 1 << 20


@contextlib.contextmanager
def open_verified(
    record: Record, study: StudyKeys, batch_key: bytes, content: Objects
) -> Iterator[tuple[Arrival, BinaryIO]]:
    """The arrival record of an anchored object, and its unit standing at the first byte of the data set; verified whole
    before this returns.

    Raises IntegrityError, NotHeld, ContentAway.
    """
    with open_unit(record, study, batch_key, content) as unit:
        yield read_head(unit).arrival, unit


def open_unit(
    record: Record, study: StudyKeys, batch_key: bytes, content: Objects
) -> contextlib.AbstractContextManager[BinaryIO]:
    """As ``open_verified``, but the whole unit, standing at its first byte."""
    return open_released(record, study.token, object_keys(batch_key, record.instance), content)


@contextlib.contextmanager
def open_released(record: Record, study_token: bytes, keys: ObjectKeys, content: Objects) -> Iterator[BinaryIO]:
    """As ``open_unit``, by the keys of this object alone."""
    with content.open(record.object, record.sealed_size) as stored:
        small = record.sealed_size <= IN_MEMORY
        # No more than the record says, however much there is: then the CID is another.
        sealed: BinaryIO = io.BytesIO(stored.read(record.sealed_size + 1)) if small else stored
        verify_cid(sealed, record.object)
        sealed.seek(0)
        unit = open_sealed(sealed, keys.seal, study_token, record.instance)
        if small:
            unit = io.BytesIO(unit.read())
        _check_data_set(record, keys, unit)
        if small:
            unit.seek(0)
        else:
            sealed.seek(0)
            unit = open_sealed(sealed, keys.seal, study_token, record.instance)
        yield unit


def verify(record: Record, study: StudyKeys, batch_key: bytes, content: Objects) -> None:
    """Raises as ``open_verified`` when the object differs from its record; else returns."""
    with open_verified(record, study, batch_key, content):
        pass


def hash_data_set(unit: BinaryIO) -> bytes:
    """SHA-256 of the data set of a unit standing at its first byte, read to its end."""
    read_head(unit)
    return hash_rest(unit)


def hash_rest(stream: BinaryIO) -> bytes:
    """SHA-256 of what is left in a stream, as after ``read_head`` a data set is."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.digest()


def observed(record: Record, study_token: bytes, keys: ObjectKeys, content: Objects) -> bytes:
    """SHA-256 of what is there instead of the recorded object: of its data set, or of the sealed bytes when they
    cannot be opened.
    """
    with content.open(record.object, record.sealed_size) as sealed:
        try:
            return hash_data_set(open_sealed(sealed, keys.seal, study_token, record.instance))
        except IntegrityError:
            sealed.seek(0)
            return hash_rest(sealed)


def _check_data_set(record: Record, keys: ObjectKeys, unit: BinaryIO) -> None:
    """Read a unit to its end. Raises IntegrityError when its data set is not the recorded one."""
    if keyed_digest(keys.salt, hash_data_set(unit)) != record.digest:
        raise IntegrityError(f"object {record.object}: its data set differs from the manifest's digest")

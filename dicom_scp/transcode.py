"""Re-encoding to a native form for peers that take nothing else, only when nothing that matters changes.

Many usual C-GET clients accept native syntaxes only, some Implicit VR Little Endian only, as every DICOM AE must
(PS3.5 10.1).
"""

from io import BytesIO
from typing import BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from dicom_scp.contexts import DECODERS, ENCAPSULATED_UNCOMPRESSED, EXPLICIT_BE, NATIVE
from orthanc_ledger.errors import DataError
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance

LARGEST = 64 << 20  # bytes of a data set, as stored and as sent: several copies of it are held
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}  # VRs whose bytes pydicom leaves in the order they were read in


class NotConvertible(DataError):
    """The object cannot be sent in that transfer syntax without a change, or is too large to be re-encoded."""


def transcode(reader: BinaryIO, from_syntax: str, to_syntax: str) -> bytes:
    """The data set in ``reader`` (encoded in ``from_syntax``, no file meta), encoded in the native LE ``to_syntax``.

    Raises NotConvertible: larger than `LARGEST`, not decodable, or its fingerprint would not be the same.
    """
    stored = reader.read(LARGEST + 1)
    if len(stored) > LARGEST:
        raise NotConvertible(f"the data set has more than {LARGEST} bytes")
    original = _part10(stored, from_syntax)
    try:
        dataset = dcmread(BytesIO(original), force=True)
        _make_native(dataset, from_syntax)
        converted = encode(dataset, UID(to_syntax).is_implicit_VR, True)
    except Exception as error:  # whatever pydicom or a codec raises means that this object stays as it is
        # By type only: pydicom's texts quote values, and what is logged of this error must not name a patient.
        raise NotConvertible(f"{from_syntax} cannot be re-encoded as {to_syntax}: {type(error).__name__}") from error
    if converted is None or _fingerprint(_part10(converted, to_syntax)) != _fingerprint(original):
        raise NotConvertible(f"re-encoding {from_syntax} as {to_syntax} would change the fingerprint")
    return converted


def _make_native(dataset: Dataset, syntax: str) -> None:
    if syntax == EXPLICIT_BE:
        for element in dataset.iterall():
            if element.VR in _WORDS and element.value:
                element.value = np.frombuffer(element.value, f">u{_WORDS[element.VR]}").byteswap().tobytes()
    elif syntax in DECODERS or syntax == ENCAPSULATED_UNCOMPRESSED:
        samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
        size = samples * int(dataset.get("NumberOfFrames") or 1) * int(dataset.BitsAllocated) // 8
        if size > LARGEST:
            raise ValueError(f"the pixel data would have {size} bytes, more than {LARGEST}")
        dataset.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=DECODERS.get(syntax, ""))
    elif syntax not in NATIVE:
        raise ValueError("neither native nor a lossless syntax with a pinned decoder")


def _part10(data_set: bytes, syntax: str) -> bytes:
    """A file with just the Transfer Syntax UID in its meta information, and the data set."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    file = DicomBytesIO(bytes(128) + b"DICM")
    file.seek(0, 2)
    write_file_meta_info(file, meta, enforce_standard=False)
    return file.getvalue() + data_set


def _fingerprint(file: bytes) -> bytes:
    (found,) = fingerprints(open_instance(BytesIO(file)), [None])
    return bytes(found.fingerprint)

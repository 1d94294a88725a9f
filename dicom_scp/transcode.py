"""Re-encoding to a native form for peers that take nothing else, only when nothing that matters changes.

Many usual C-GET clients accept native syntaxes only, some Implicit VR Little Endian only, as every DICOM AE must
(PS3.5 10.1).
"""

import threading
import zlib
from io import SEEK_END
from typing import BinaryIO, cast

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID

from dicom_scp.contexts import DEFLATED, EXPLICIT_BE, EXPLICIT_LE
from orthanc_ledger.decoders import DECODERS, ENCAPSULATED_UNCOMPRESSED, NATIVE, pydicom_plugin
from orthanc_ledger.errors import DataError
from orthanc_ledger.fingerprint import Fingerprint, fingerprints
from orthanc_ledger.instance import open_instance

LARGEST = 48 << 20  # bytes of a data set, inflated and as sent: three copies of the pixels are held at the peak
_ONE_AT_A_TIME = threading.Lock()  # that peak is a process's, not an association's
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}  # VRs whose bytes pydicom leaves in the order they were read in


class NotConvertible(DataError):
    """The object cannot be sent in that transfer syntax without a change, or is too large to be re-encoded."""


def transcode(reader: BinaryIO, from_syntax: str, to_syntax: str) -> BinaryIO:
    """The data set in ``reader`` (encoded in ``from_syntax``, no file meta), encoded in the native LE ``to_syntax``.

    Raises NotConvertible: larger than `LARGEST`, not decodable, or its fingerprint would not be the same.
    """
    with _ONE_AT_A_TIME:
        return _transcode(reader, from_syntax, to_syntax)


def _transcode(reader: BinaryIO, from_syntax: str, to_syntax: str) -> BinaryIO:
    try:
        dataset, expected = _decode(reader, from_syntax)
        _make_native(dataset, from_syntax)
        file = _part10(to_syntax)
        start = file.tell()
        write_dataset(file, dataset)
    except DataError:
        raise
    except Exception as error:  # whatever pydicom or a codec raises means that this object stays as it is
        # By type only: pydicom's texts quote values, and what is logged of this error must not name a patient.
        raise NotConvertible(f"{from_syntax} cannot be re-encoded as {to_syntax}: {type(error).__name__}") from error
    del dataset
    if _fingerprint(file).fingerprint != expected:
        raise NotConvertible(f"re-encoding {from_syntax} as {to_syntax} would change the fingerprint")
    file.seek(start)
    return cast(BinaryIO, file)


def _decode(reader: BinaryIO, syntax: str) -> tuple[Dataset, bytes]:
    """The decoded data set and its fingerprint."""
    file = _part10(EXPLICIT_LE if syntax == DEFLATED else syntax)
    file.write(_inflated(reader) if syntax == DEFLATED else _bounded(reader.read(LARGEST + 1)))
    found = _fingerprint(file)
    if syntax not in NATIVE and found.decode_error is not None:
        # What our bounded decoders refuse is not given to pydicom's.
        raise NotConvertible(f"its pixels cannot be decoded: {found.decode_error}")
    file.seek(0)
    dataset = dcmread(file)
    file.close()  # lets the encoded copy go, whoever still refers to it
    return dataset, found.fingerprint


def _inflated(reader: BinaryIO) -> bytes:
    """The data set behind a deflate stream (PS3.5 A.5), which is Explicit VR Little Endian."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = _bounded(inflater.decompress(_bounded(reader.read(LARGEST + 1)), LARGEST + 1))
    if not inflater.eof:
        raise NotConvertible("the deflated data set breaks off")
    return inflated


def _bounded(data_set: bytes) -> bytes:
    if len(data_set) > LARGEST:
        raise NotConvertible(f"the data set has more than {LARGEST} bytes")
    return data_set


def _make_native(dataset: Dataset, syntax: str) -> None:
    if syntax == EXPLICIT_BE:
        for element in dataset.iterall():
            if element.VR in _WORDS and element.value:
                element.value = np.frombuffer(element.value, f">u{_WORDS[element.VR]}").byteswap().tobytes()
    elif syntax in DECODERS and syntax not in NATIVE:
        if "PixelData" not in dataset:
            return
        samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
        size = samples * int(dataset.get("NumberOfFrames") or 1) * int(dataset.BitsAllocated) // 8
        if size > LARGEST:
            raise ValueError(f"the pixel data would have {size} bytes, more than {LARGEST}")
        if syntax == ENCAPSULATED_UNCOMPRESSED:
            _join_frames(dataset)
        else:
            dataset.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=pydicom_plugin(syntax))
    elif syntax not in NATIVE:
        raise ValueError("neither native nor a lossless syntax with a pinned decoder")


def _join_frames(dataset: Dataset) -> None:
    """Native pixel data of native frames in fragments, whose padding goes (PS3.5 A.4.11, 8.1.1)."""
    count = int(dataset.get("NumberOfFrames") or 1)
    size = get_expected_length(dataset) // count
    pixels = b"".join(frame[:size] for frame in generate_frames(dataset.PixelData, number_of_frames=count))
    dataset.add_new("PixelData", "OB" if dataset.BitsAllocated <= 8 else "OW", pixels + b"\0" * (len(pixels) % 2))


def _part10(syntax: str) -> DicomBytesIO:
    """The beginning of a file with just the Transfer Syntax UID in its meta information, at its end."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    file = DicomBytesIO(bytes(128) + b"DICM")
    file.seek(0, SEEK_END)
    write_file_meta_info(file, meta, enforce_standard=False)
    file.is_implicit_VR, file.is_little_endian = meta.TransferSyntaxUID.is_implicit_VR, True
    return file


def _fingerprint(file: DicomBytesIO) -> Fingerprint:
    file.seek(0)
    (found,) = fingerprints(open_instance(cast(BinaryIO, file)), [None])
    return found

"""What is sent: copies of real MR slices, each with UIDs and pixels of its own, in three sizes, and one huge object.

The elements of 131 kB, 525 kB and of the huge object are those of a GE fMRI slice (about 350, private ones included);
their pixels are mosaics of that series' slices, as scanners send them. 10 kB is pydicom's small MR slice (about 70
elements) with a GE slice's pixels. The series is the one beside the clone where there is one, else its 10 slices among
the project's samples.
"""

import functools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, generate_uid

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ROOT.parent / "shared" / "dicom" / "nih-ge-siemens" / "20180918GE" / "mr_0004"
SAMPLES = ROOT / "orthanc_ledger" / "samples" / "ge-discovery-mr750" / "mr_0004"
SERIES_LENGTH = 100
_EDGE = 64  # rows and columns of a GE slice

Pixels = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Size:
    """A size of slices: its name, and its rows and columns of 16-bit samples."""

    name: str
    rows: int
    columns: int


SMALL = Size("10 kB", 64, 64)
MEDIUM = Size("131 kB", 224, 256)
LARGE = Size("525 kB", 496, 512)


@functools.cache
def series() -> tuple[Path, ...]:
    """The real slices that copies are made of."""
    return tuple(sorted((BESIDE if BESIDE.is_dir() else SAMPLES).glob("*.dcm")))


@functools.cache
def _frames() -> tuple[Pixels, ...]:
    return tuple(dcmread(path).pixel_array for path in series())


def _mosaic(size: Size, first: int) -> bytes:
    """The samples of one image: real slices side by side, from the ``first`` on, cut to the size."""
    frames = _frames()
    across, down = -(-size.columns // _EDGE), -(-size.rows // _EDGE)
    tiles = [frames[(first + number) % len(frames)] for number in range(across * down)]
    rows = [np.hstack(tiles[start : start + across]) for start in range(0, len(tiles), across)]
    return np.vstack(rows)[: size.rows, : size.columns].astype("<i2").tobytes()


def _template(size: Size) -> Dataset:
    ds = dcmread(str(get_testdata_file("MR_small.dcm", download=False)) if size is SMALL else series()[0])
    ds.Rows, ds.Columns = size.rows, size.columns
    return ds


def copies(size: Size, folder: Path, count: int, studies: int = 1) -> list[Path]:
    """Write ``count`` slices, as Part 10 files, to a folder for each study; the studies' folders."""
    ds = _template(size)
    folders = [folder / f"study-{number}" for number in range(studies)]
    for number, study in enumerate(folders):
        study.mkdir(parents=True)
        ds.StudyInstanceUID = generate_uid()
        for instance in range(number * count // studies, (number + 1) * count // studies):
            if instance == number * count // studies or instance % SERIES_LENGTH == 0:
                ds.SeriesInstanceUID = generate_uid()
                ds.SeriesNumber = instance // SERIES_LENGTH + 1
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.InstanceNumber = instance % SERIES_LENGTH + 1
            ds.PixelData = _mosaic(size, instance)
            dcmwrite(study / f"{instance:06}.dcm", ds)
    return folders


def huge_object(path: Path, megabytes: int) -> int:
    """Write one multi-frame object of about so many MB (10^6 bytes), frame by frame; its size in bytes."""
    ds, frame_bytes = _template(LARGE), LARGE.rows * LARGE.columns * 2
    frames = megabytes * 1_000_000 // frame_bytes
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.NumberOfFrames = frames
    del ds[0x7FE0_0010:]
    dcmwrite(path, ds)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW", frames * frame_bytes))
        for number in range(frames):
            file.write(_mosaic(LARGE, number))
    return path.stat().st_size

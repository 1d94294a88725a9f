"""Every change somebody could make to a scan is seen, and named rightly."""

import argparse
import io
import json
import struct
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_make import Sequence_, Value, file_of, image, native, opened, part10, text
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from orthanc_ledger.commands import compare as compare_command
from orthanc_ledger.commands import fingerprint as fingerprint_command
from orthanc_ledger.compare import compare
from orthanc_ledger.errors import ConfigError

Edit = Callable[[Dataset], None]


def saved(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def named(a: bytes, b: bytes) -> list[str]:
    return [str(difference) for difference in compare(opened(a), opened(b))]


@pytest.fixture(scope="module")
def scan(samples_dir: Path) -> Dataset:
    """A real MR slice, with a private b-value, an overlay, a referenced image and an anatomic region added to it."""
    dataset = pydicom.dcmread(min(samples_dir.rglob("*.dcm")))
    dataset.PatientSex = "F"
    dataset.Laterality = "L"
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
    dataset.WindowCenter, dataset.WindowWidth = "100", "200"
    dataset.PresentationLUTShape = "IDENTITY"
    block = dataset.private_block(0x0029, "LEDGER TEST", create=True)
    block.add_new(0x10, "OB", b"CSA b_value=1000")
    block.add_new(0x11, "IS", "1000")
    dataset.add_new(0x60000010, "US", dataset.Rows)
    dataset.add_new(0x60003000, "OW", bytes(32))
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.3", "1.2.3.4"
    dataset.ReferencedImageSequence = Items([reference])
    plane, frame = Dataset(), Dataset()
    plane.ImagePositionPatient = [0, 0, 0]
    frame.PlanePositionSequence = Items([plane])
    dataset.PerFrameFunctionalGroupsSequence = Items([frame])
    return dataset


def set_to(keyword: str, value: object) -> Edit:
    return lambda dataset: setattr(dataset, keyword, value)


def flip_lowest_bit(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[len(pixels) // 2 & ~1] ^= 1
    dataset.PixelData = bytes(pixels)


def add_noise(dataset: Dataset) -> None:
    pixels = np.frombuffer(dataset.PixelData, "<u2")
    noise = np.random.default_rng(1).choice([-1, 0, 1], pixels.size)
    dataset.PixelData = np.clip(pixels + noise, 0, 4095).astype("<u2").tobytes()


def private(element: int, value: object) -> Edit:
    def edit(dataset: Dataset) -> None:
        dataset.private_block(0x0029, "LEDGER TEST")[element].value = value

    return edit


def transpose(dataset: Dataset) -> None:
    dataset.Rows, dataset.Columns = dataset.Rows * 2, dataset.Columns // 2


def move_frame(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 1]


def refer_elsewhere(dataset: Dataset) -> None:
    dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.5"


def narrow_samples(dataset: Dataset) -> None:
    dataset.BitsStored, dataset.HighBit = 15, 14


def draw_on_overlay(dataset: Dataset) -> None:
    dataset[0x60003000].value = bytes(31) + b"\1"


CHANGES: dict[str, tuple[Edit, list[str]]] = {
    "lowest bit of one pixel": (flip_lowest_bit, ["changed frame 1"]),
    "noise of one": (add_noise, ["changed frame 1"]),
    "other pixels, same UID": (lambda ds: set_to("PixelData", ds.PixelData[::-1])(ds), ["changed frame 1"]),
    "photometric interpretation": (
        set_to("PhotometricInterpretation", "MONOCHROME1"),
        ["changed (0028,0004) PhotometricInterpretation"],
    ),
    "pixel representation": (
        lambda ds: set_to("PixelRepresentation", 1 - ds.PixelRepresentation)(ds),
        ["changed (0028,0103) PixelRepresentation"],
    ),
    "bits stored": (narrow_samples, ["changed (0028,0101) BitsStored", "changed (0028,0102) HighBit"]),
    "rows and columns": (transpose, ["changed (0028,0010) Rows", "changed (0028,0011) Columns"]),
    "rescale": (set_to("RescaleSlope", "2"), ["changed (0028,1053) RescaleSlope"]),
    "window": (set_to("WindowCenter", "101"), ["changed (0028,1050) WindowCenter"]),
    "presentation LUT": (set_to("PresentationLUTShape", "INVERSE"), ["changed (2050,0020) PresentationLUTShape"]),
    "laterality": (set_to("Laterality", "R"), ["changed (0020,0060) Laterality"]),
    "orientation": (
        set_to("ImageOrientationPatient", [-1, 0, 0, 0, 1, 0]),
        ["changed (0020,0037) ImageOrientationPatient"],
    ),
    "position": (set_to("ImagePositionPatient", [1, 2, 3]), ["changed (0020,0032) ImagePositionPatient"]),
    "sex": (set_to("PatientSex", "M"), ["changed (0010,0040) PatientSex"]),
    "patient id": (set_to("PatientID", "SOMEBODY ELSE"), ["changed (0010,0020) PatientID"]),
    "study id": (set_to("StudyInstanceUID", "1.2.3.9"), ["changed (0020,000D) StudyInstanceUID"]),
    "date": (set_to("StudyDate", "20260101"), ["changed (0008,0020) StudyDate"]),
    "position in a per-frame sequence": (
        move_frame,
        ["changed (5200,9230)[0].(0020,9113)[0].(0020,0032) ImagePositionPatient"],
    ),
    "b-value in a private element": (private(0x11, "2000"), ["changed (0029,1111)"]),
    "b-value in a CSA header": (private(0x10, b"CSA b_value=2000"), ["changed (0029,1110)"]),
    "overlay": (draw_on_overlay, ["changed (6000,3000) OverlayData"]),
    "reference": (refer_elsewhere, ["changed (0008,1140)[0].(0008,1155) ReferencedSOPInstanceUID"]),
    "a whole sequence": (lambda ds: ds.__delitem__(0x00081140), ["removed (0008,1140) ReferencedImageSequence"]),
    "payload in the trailing padding": (
        lambda ds: ds.add_new(0xFFFCFFFC, "OB", b"MZ\x90\0"),
        ["added (FFFC,FFFC) DataSetTrailingPadding"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_named(scan: Dataset, change: str) -> None:
    edit, expected = CHANGES[change]
    edited = deepcopy(scan)
    edit(edited)
    found = named(saved(scan), saved(edited))
    if change in ("pixel representation", "bits stored", "rows and columns"):
        found = [line for line in found if "frame 1" not in line]  # whether samples change too depends on the slice
    assert found == expected


def test_nothing_is_named_without_a_change(scan: Dataset) -> None:
    assert named(saved(scan), saved(deepcopy(scan))) == []


def test_zero_trailing_padding_is_no_difference(scan: Dataset) -> None:
    padded = deepcopy(scan)
    padded.add_new(0xFFFCFFFC, "OB", bytes(64))
    assert named(saved(scan), saved(padded)) == []


def test_exchanged_slices_are_named(samples_dir: Path) -> None:
    paths = sorted(samples_dir.rglob("*.dcm"))
    one, two = (pydicom.dcmread(path) for path in paths[:2])
    exchanged = deepcopy(one)
    exchanged.PixelData = two.PixelData
    assert named(saved(one), saved(exchanged)) == ["changed frame 1"]


FRAMES = [bytes([value]) * 32 for value in (1, 2, 3)]


def multiframe(*frames: bytes) -> bytes:
    return file_of(image(native(b"".join(frames)), frames=str(len(frames))))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([FRAMES[1], FRAMES[0], FRAMES[2]], ["changed frame 1", "changed frame 2"]),
        (FRAMES[:2], ["changed (0028,0008) NumberOfFrames", "removed frame 3"]),
        ([*FRAMES, FRAMES[2]], ["changed (0028,0008) NumberOfFrames", "added frame 4"]),
    ],
    ids=["swapped", "dropped", "doubled"],
)
def test_changed_frames_are_named(frames: list[bytes], expected: list[str]) -> None:
    assert named(multiframe(*FRAMES), multiframe(*frames)) == expected


def test_overlay_hidden_in_unused_bits_is_named() -> None:
    plain = image(native(struct.pack("<16H", *range(16))), stored=12)
    hidden = image(native(struct.pack("<16H", *(value | 0x8000 * (value == 5) for value in range(16)))), stored=12)
    assert named(file_of(plain), file_of(hidden)) == ["added unused bits of frame 1"]


def test_bytes_behind_the_last_frame_are_named() -> None:
    plain, payload = image(native(bytes(range(32)))), image(native(bytes(range(32)) + b"PK\3\4"))
    assert named(file_of(plain), file_of(payload)) == ["added bytes behind the last frame"]


def test_reference_in_a_structured_report_is_named() -> None:
    def report(uid: str) -> bytes:
        reference = Sequence_(0x00081199, ((Value(0x00081155, "UI", text(uid, b"\0")),),))
        return file_of([Sequence_(0x0040A730, ((reference,),))])

    assert named(report("1.2.3"), report("1.2.4")) == [
        "changed (0040,A730)[0].(0008,1199)[0].(0008,1155) ReferencedSOPInstanceUID"
    ]


def test_lossy_recompression_is_named_with_the_uid_put_back(
    scan: Dataset, tmp_path: Path, dcmtk: Callable[[str], str]
) -> None:
    original, lossy = tmp_path / "original.dcm", tmp_path / "lossy.dcm"
    original.write_bytes(saved(scan))
    subprocess.run([dcmtk("dcmcjpeg"), "+ee", original, lossy], check=True, capture_output=True, timeout=60)
    recompressed = pydicom.dcmread(lossy)
    assert "changed (0008,0018) SOPInstanceUID" in named(original.read_bytes(), lossy.read_bytes())
    recompressed.SOPInstanceUID = scan.SOPInstanceUID
    found = named(original.read_bytes(), saved(recompressed))
    assert "changed (0008,0018) SOPInstanceUID" not in found
    assert {"changed pixel form", "changed frame 1", "added (0028,2110) LossyImageCompression"} <= set(found)


def run(command: object, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())  # type: ignore[attr-defined]
    args = parser.parse_args(arguments)
    status: int = args.run(args)
    return status


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    contents = (multiframe(*FRAMES), multiframe(*FRAMES[::-1]), b"not DICOM at all")
    for name, content in zip("abc", contents, strict=True):
        (tmp_path / name).write_bytes(content)
    return str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c")


def test_compare_command_exit_status(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    a, b, unreadable = files
    assert run(compare_command, "compare", a, a) == 0
    assert capsys.readouterr().out == ""
    assert run(compare_command, "compare", a, b) == 1
    assert capsys.readouterr().out.splitlines() == ["changed frame 1", "changed frame 3"]
    assert run(compare_command, "compare", "--json", a, b) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {"where": "frame 1", "change": "changed"}
    assert run(compare_command, "compare", a, unreadable) == 2
    assert unreadable in capsys.readouterr().err


def test_fingerprint_command_goes_on_after_an_unreadable_file(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, unreadable = files
    assert run(fingerprint_command, "fingerprint", "--json", a, unreadable, b) == 2
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    assert [line["file"] for line in lines] == [a, b]
    assert list(lines[0]) == [
        "file", "sop_instance_uid", "fingerprint", "pixel_root", "metadata_root", "pixel_form", "frames",
    ]  # fmt: skip
    assert (lines[0]["frames"], lines[0]["pixel_form"]) == (3, "decoded")
    assert unreadable in output.err


def test_fingerprint_command_shows_null_for_what_is_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report"
    path.write_bytes(part10(b"\x08\x00\x60\x00CS\x02\x00SR"))
    assert run(fingerprint_command, "fingerprint", str(path)) == 0
    line = capsys.readouterr().out
    assert "sop_instance_uid=null" in line
    assert "pixel_root=null" in line


@pytest.mark.parametrize("content", [bytes(range(32)), bytes(range(32)).hex().encode() + b"\n"], ids=["raw", "hex"])
def test_fingerprint_command_salts_under_a_key_file(
    files: tuple[str, str, str], tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_bytes(content)
    assert run(fingerprint_command, "fingerprint", files[0]) == 0
    plain = capsys.readouterr().out
    assert run(fingerprint_command, "fingerprint", "--key-file", str(tmp_path / "key"), files[0]) == 0
    assert capsys.readouterr().out != plain


@pytest.mark.parametrize("content", [b"short", bytes(31), b"zz" * 32, b"ab" * 31])
def test_fingerprint_command_refuses_a_bad_key_file(
    files: tuple[str, str, str], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match="32 bytes or 64 hexadecimal digits"):
        run(fingerprint_command, "fingerprint", "--key-file", str(tmp_path / "key"), files[0])

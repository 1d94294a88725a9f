"""Real files through dcmtk: what a PACS may do to an object keeps its fingerprint, for every file that is decoded."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from dicom_make import fingerprint, real_files
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from orthanc_ledger.compare import compare
from orthanc_ledger.errors import Unreadable
from orthanc_ledger.instance import open_instance

COLLECTION = Path(__file__).resolve().parent.parent.parent / "shared" / "dicom"
DERIVATION = "(0008,2111) DerivationDescription"
BIG_ENDIAN, JPEG_LOSSLESS = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.70"

TOOLS = {
    "jpeg-ls": ("dcmcjpls",),
    "rle": ("dcmcrle",),
    "implicit": ("dcmconv", "+ti"),
    "deflated": ("dcmconv", "+td"),
    "big-endian": ("dcmconv", "+tb"),
    "undefined-lengths": ("dcmconv", "+te", "-e"),
    "explicit-lengths": ("dcmconv", "+te", "+e"),
    "group-lengths": ("dcmconv", "+te", "+g"),
}
# What dcmtk itself changes in these files, and nothing else.
DCMTK_CHANGES = {
    # The icon's pixel data is compressed together with the image's.
    ("examples_overlay.dcm", "jpeg-ls"): ["changed (0088,0200)[0].(7FE0,0010) PixelData"],
    ("examples_overlay.dcm", "rle"): ["changed (0088,0200)[0].(7FE0,0010) PixelData"],
    # Planar Configuration of an image with one sample per pixel is dropped.
    ("OT-PAL-8-face.dcm", "jpeg-ls"): ["removed (0028,0006) PlanarConfiguration"],
}


def decodable() -> list[Path]:
    found = []
    for path in real_files(COLLECTION if COLLECTION.is_dir() else None):
        try:
            if fingerprint(path.read_bytes()).pixel_form != "encoded":
                found.append(path)
        except Unreadable:
            continue
    return found


DECODABLE = decodable()


def transcoded(source: Path, target: Path, command: tuple[str, ...], dcmtk: Callable[[str], str]) -> bool:
    tool, *options = command
    subprocess.run([dcmtk(tool), *options, source, target], capture_output=True, check=False, timeout=60)
    return target.exists()


def differences(a: Path, b: Path) -> list[str]:
    with a.open("rb") as first, b.open("rb") as second:
        return [str(difference) for difference in compare(open_instance(first), open_instance(second))]


def is_native(path: Path) -> bool:
    with path.open("rb") as file:
        syntax = open_instance(file).transfer_syntax_uid
    return not syntax.startswith(("1.2.840.10008.1.2.4", "1.2.840.10008.1.2.5"))


def is_big_endian(path: Path) -> bool:
    with path.open("rb") as file:
        return open_instance(file).transfer_syntax_uid == BIG_ENDIAN


def only_private(found: list[str]) -> bool:
    """The stated exception of big endian: changed values of private elements."""
    tags = (line.split(".")[-1].split("(")[-1][:4] for line in found)
    return all(line.startswith("changed (") for line in found) and all(int(group, 16) % 2 for group in tags)


@pytest.mark.parametrize("path", DECODABLE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_lossless_transcoding_keeps_the_fingerprint(path: Path, tmp_path: Path, dcmtk: Callable[[str], str]) -> None:
    done = set()
    for name, command in TOOLS.items():
        target = tmp_path / f"{name}.dcm"
        if not transcoded(path, target, command, dcmtk):
            continue
        done.add(name)
        found = differences(path, target)
        if is_big_endian(path) != is_big_endian(target):
            assert only_private(found), (name, found)
        else:
            assert found == DCMTK_CHANGES.get((path.name, name), []), name
    assert not is_native(path) or done >= TOOLS.keys() - {"jpeg-ls", "rle"}


def dcmcjpeg_takes(path: Path) -> bool:
    """Whole bytes and whole colours, native or JPEG already; and what has no pixels, which it only copies."""
    ds = pydicom.dcmread(path, force=True)
    if "PixelData" not in ds:
        return True
    encoded_by_others = not is_native(path) and ds.file_meta.TransferSyntaxUID != JPEG_LOSSLESS
    return not encoded_by_others and ds.BitsAllocated in (8, 16) and ds.PhotometricInterpretation != "YBR_FULL_422"


@pytest.mark.parametrize("path", DECODABLE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_jpeg_lossless_adds_its_derivation_only(path: Path, tmp_path: Path, dcmtk: Callable[[str], str]) -> None:
    target = tmp_path / "lossless.dcm"
    taken = transcoded(path, target, ("dcmcjpeg", "+e1"), dcmtk)
    assert taken == dcmcjpeg_takes(path)
    if not taken:
        return
    icon = {"changed (0088,0200)[0].(7FE0,0010) PixelData"} if path.name == "examples_overlay.dcm" else set()
    found = [line for line in differences(path, target) if not (is_big_endian(path) and only_private([line]))]
    unchanged = differences(path, target) == []  # JPEG lossless already, or without pixels
    assert unchanged or set(found) - icon in ({f"added {DERIVATION}"}, {f"changed {DERIVATION}"})
    assert fingerprint(path.read_bytes()).pixel_root == fingerprint(target.read_bytes()).pixel_root


def test_every_encoding_of_one_mosaic_has_the_same_pixel_root(dicom_dir: Path) -> None:
    files = sorted((dicom_dir / "siemens-transfer-syntaxes").glob("*.dcm"))
    prints = [fingerprint(path.read_bytes()) for path in files]
    assert len(files) == 9
    assert {result.pixel_form for result in prints} == {"decoded"}
    assert len({result.pixel_root for result in prints}) == 1


@pytest.mark.parametrize("fragments_per_frame", [1, 2, 3])
@pytest.mark.parametrize(
    "name", ["emri_small_RLE.dcm", "emri_small_jpeg_ls_lossless.dcm", "emri_small_jpeg_2k_lossless.dcm"]
)
def test_other_fragmentation_keeps_the_fingerprint(dicom_dir: Path, name: str, fragments_per_frame: int) -> None:
    path = dicom_dir / "pydicom-data" / name
    dataset = pydicom.dcmread(path)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=10))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments_per_frame, has_bot=fragments_per_frame > 1)
    assert fingerprint(saved(dataset)) == fingerprint(path.read_bytes())


def test_extended_offset_table_keeps_the_fingerprint(dicom_dir: Path) -> None:
    path = dicom_dir / "pydicom-data" / "emri_small_jpeg_ls_lossless.dcm"
    dataset = pydicom.dcmread(path)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=10))
    dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    assert fingerprint(saved(dataset)) == fingerprint(path.read_bytes())


def test_file_meta_is_not_fingerprinted(samples_dir: Path) -> None:
    path = next(samples_dir.rglob("*.dcm"))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    dataset.file_meta.ImplementationVersionName = "OTHER"
    assert saved(dataset) != path.read_bytes()
    assert fingerprint(saved(dataset)) == fingerprint(path.read_bytes())


def saved(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()

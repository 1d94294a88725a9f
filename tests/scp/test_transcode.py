"""Re-encoding changes nothing that the fingerprint sees, or does not happen."""

import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from dicom_scp import transcode as transcode_module
from dicom_scp.transcode import LARGEST, NotConvertible, transcode
from orthanc_ledger.errors import DataError

from .client import DEFLATED, EXPLICIT, IMPLICIT, JPEG_LOSSY, RLE, bundled
from .test_receive import PEAK_RSS, ROOT
from .test_retrieve import fingerprint

# VmHWM, as ru_maxrss of a child counts what its parent held when it was started.
MEASURE = """
import pathlib, sys
from dicom_scp.transcode import NotConvertible, transcode
try:
    with open(sys.argv[1], "rb") as file:
        size = len(transcode(file, sys.argv[2], sys.argv[3]).read())
except NotConvertible:
    size = 0
(peak,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(size, int(peak.split()[1]) * 1024)
"""


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_nested_private_sequences_keep_the_fingerprint(syntax: str) -> None:
    file = bundled("nested_priv_SQ.dcm")  # has no SOP Instance UID and so cannot be stored: see test_syntaxes.py
    converted = transcode(BytesIO(file.encoded), file.transfer_syntax, syntax).read()
    assert fingerprint(converted, syntax) == fingerprint(file.encoded, file.transfer_syntax)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_data_set_without_pixels_goes_native_from_a_compressed_syntax(syntax: str) -> None:
    file = bundled("UN_sequence.dcm")
    assert transcode(BytesIO(file.encoded), file.transfer_syntax, syntax).read()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_lossy_pixels_are_not_decoded(syntax: str) -> None:
    with pytest.raises(NotConvertible):
        transcode(BytesIO(bundled("SC_rgb_jpeg_dcmtk.dcm").encoded), JPEG_LOSSY, syntax)


def test_broken_codestream_is_not_sent_as_something_else() -> None:
    encoded = bytearray(bundled("MR_small_RLE.dcm").encoded)
    header = encoded.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")  # two segments, the first at byte 64
    encoded[header] = 77
    with pytest.raises(NotConvertible):
        transcode(BytesIO(encoded), RLE, EXPLICIT)


def test_truncated_object_is_an_error_of_the_data() -> None:
    with pytest.raises(DataError):
        transcode(BytesIO(bundled("MR_small.dcm").encoded[:-1000]), EXPLICIT, IMPLICIT)


def test_change_that_the_fingerprint_sees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_bit(dataset: object, syntax: str) -> None:
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]  # type: ignore[attr-defined]

    monkeypatch.setattr("dicom_scp.transcode._make_native", one_bit)
    with pytest.raises(NotConvertible, match="fingerprint"):
        transcode(BytesIO(bundled("MR_small.dcm").encoded), EXPLICIT, IMPLICIT)


def test_pixels_that_grow_beyond_the_limit_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    file = bundled("MR_small_RLE.dcm")
    monkeypatch.setattr("dicom_scp.transcode.LARGEST", 8000)  # stored 6 kB, decoded 8,192 bytes
    with pytest.raises(NotConvertible):
        transcode(BytesIO(file.encoded), RLE, EXPLICIT)


def test_deflate_bomb_is_not_inflated(tmp_path: Path) -> None:
    head = bundled("MR_small.dcm").encoded
    head, size = head[: head.rindex(b"\xe0\x7f\x10\x00")], 300 << 20
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    with (tmp_path / "bomb").open("wb") as file:
        file.write(deflater.compress(head + b"\xe0\x7f\x10\x00OW\x00\x00" + size.to_bytes(4, "little")))
        for _ in range(size >> 20):
            file.write(deflater.compress(bytes(1 << 20)))
        file.write(deflater.flush())
    assert (tmp_path / "bomb").stat().st_size < 1 << 20
    converted, peak = measure(tmp_path / "bomb", DEFLATED, EXPLICIT)
    assert converted == 0
    assert peak <= PEAK_RSS


def test_deflated_data_set_that_breaks_off_is_refused() -> None:
    with pytest.raises(NotConvertible, match="breaks off"):
        transcode(BytesIO(bundled("image_dfl.dcm").encoded[:-100]), DEFLATED, EXPLICIT)


def test_re_encodings_do_not_add_up_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(dataset: object, syntax: str) -> None:
        assert transcode_module._ONE_AT_A_TIME.locked()

    monkeypatch.setattr(transcode_module, "_make_native", alone)
    transcode(BytesIO(bundled("MR_small.dcm").encoded), EXPLICIT, IMPLICIT)
    assert not transcode_module._ONE_AT_A_TIME.locked()


def test_error_does_not_quote_what_a_library_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(dataset: object, syntax: str) -> None:
        raise ValueError("Invalid value for VR PN: 'SECRET^PATIENT'")

    monkeypatch.setattr("dicom_scp.transcode._make_native", fails)
    with pytest.raises(NotConvertible) as caught:
        transcode(BytesIO(bundled("MR_small.dcm").encoded), EXPLICIT, IMPLICIT)
    assert "SECRET" not in str(caught.value)


def test_largest_object_is_re_encoded_in_256_mb_of_memory(tmp_path: Path) -> None:
    encoded = bundled("MR_small.dcm").encoded
    head = encoded[: encoded.rindex(b"\xe0\x7f\x10\x00")]
    size = LARGEST - (1 << 20)
    with (tmp_path / "large").open("wb") as file:
        file.write(head + b"\xe0\x7f\x10\x00OW\x00\x00" + size.to_bytes(4, "little"))
        file.truncate(file.tell() + size)
    converted, peak = measure(tmp_path / "large", EXPLICIT, IMPLICIT)
    assert converted > size
    assert peak <= PEAK_RSS


def measure(path: Path, from_syntax: str, to_syntax: str) -> tuple[int, int]:
    """Bytes of the re-encoded data set, 0 when it was refused, and the most memory that its process held."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path, from_syntax, to_syntax],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    converted, peak = map(int, done.stdout.split())
    return converted, peak

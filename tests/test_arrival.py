"""The spool unit's layout, read back and damaged."""

import io
from dataclasses import replace

import dag_cbor
import pytest
from pydicom import dcmread

from orthanc_ledger.arrival import Arrival, encode_head, read_head, section
from orthanc_ledger.errors import IntegrityError

ARRIVAL = Arrival(
    received_us=1_800_000_000_000_000,
    calling_ae="MRI1",
    called_ae="ORTHANCLEDGER",
    peer="dicom://192.0.2.10:104",
    association=bytes(range(16)),
    tls=None,
    origin="addressed-ae",
    sop_class="1.2.840.10008.5.1.4.1.1.4",
    sop_instance="1.2.3.4",
    transfer_syntax="1.2.840.10008.1.2.1",
)
DATA_SET = b"\x08\x00\x18\x00UI\x08\x001.2.3.4\0"
UNIT = encode_head(ARRIVAL, "dicom://192.0.2.1:11112") + DATA_SET


def test_head_is_read_back_and_the_stream_stands_at_the_data_set() -> None:
    stream = io.BytesIO(UNIT)
    unit = read_head(stream)
    assert unit.arrival == ARRIVAL
    assert stream.read() == UNIT[unit.data_set_offset :] == DATA_SET


def test_part_10_file_is_one_for_other_readers() -> None:
    unit = read_head(io.BytesIO(UNIT))
    ds = dcmread(io.BytesIO(UNIT[unit.part10_offset :]))
    meta = ds.file_meta
    assert ds.SOPInstanceUID == meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert ds.preamble == bytes(128)
    assert (meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle) == ("MRI1", "MRI1")
    assert meta.ReceivingApplicationEntityTitle == "ORTHANCLEDGER"
    assert meta[0x00020027].value == "dicom://192.0.2.10:104"
    assert meta[0x00020028].value == "dicom://192.0.2.1:11112"
    assert meta.FileMetaInformationGroupLength == unit.data_set_offset - unit.part10_offset - 144


@pytest.mark.parametrize(
    ("calling_ae", "peer", "told"),
    [
        ("MRI1", "dicom://192.0.2.10:104", "MRI1 at 192.0.2.10"),
        ("MRI1", "dicom://[2001:db8::7]:104", "MRI1 at 2001:db8::7"),
        ("", "http://a%20nurse@192.0.2.11", "a nurse at 192.0.2.11"),
        ("", "http://192.0.2.11", "192.0.2.11"),
    ],
)
def test_who_sent_it_is_told_by_name_and_address(calling_ae: str, peer: str, told: str) -> None:
    assert replace(ARRIVAL, calling_ae=calling_ae, peer=peer).sender == told


@pytest.mark.parametrize("change", [{"sha256": b"\xff" * 32}, {"received_us": 2**62}])
def test_what_is_known_only_at_the_end_changes_no_length(change: dict[str, int | bytes]) -> None:
    completed = replace(ARRIVAL, **change)  # type: ignore[arg-type]
    assert len(encode_head(completed, "dicom://a:1")) == len(encode_head(ARRIVAL, "dicom://a:1"))


@pytest.mark.parametrize("length", [*range(0, 8), 100, len(UNIT) - len(DATA_SET) - 1])
def test_unit_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(IntegrityError, match=r"ends early|not dag-cbor"):
        read_head(io.BytesIO(UNIT[:length]))


def test_no_damaged_byte_of_a_head_raises_anything_but_integrity_error() -> None:
    for place in range(len(UNIT) - len(DATA_SET)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(UNIT)
            damaged[place] ^= mask
            try:
                read_head(io.BytesIO(damaged))
            except IntegrityError:
                continue


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"extra": 1}, {"received_us": "now"}, {"sha256": "text"}, {"tls": 7}, {"association": None}],
    ids=lambda change: next(iter(change)),
)
def test_record_of_other_keys_or_types_is_refused(change: dict[str, object]) -> None:
    size = int.from_bytes(UNIT[:4], "big")
    record = dag_cbor.encode({**dag_cbor.decode(UNIT[4 : 4 + size]), **change})  # type: ignore[dict-item]
    with pytest.raises(IntegrityError, match="arrival record"):
        read_head(io.BytesIO(len(record).to_bytes(4, "big") + record + UNIT[4 + size :]))


@pytest.mark.parametrize("size", [65537, 2**32 - 1])
def test_claimed_length_of_a_record_is_not_believed(size: int) -> None:
    with pytest.raises(IntegrityError, match="at most 65536"):
        read_head(io.BytesIO(size.to_bytes(4, "big") + UNIT[4:]))


def test_section_counts_from_its_start() -> None:
    view = section(io.BytesIO(b"0123456789"), 4)
    assert (view.tell(), view.read(2), view.tell()) == (0, b"45", 2)
    assert (view.seek(-1, 2), view.read()) == (5, b"9")
    assert (view.seek(1), view.read(1)) == (1, b"5")

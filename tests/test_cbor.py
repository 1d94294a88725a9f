"""Records' dag-cbor, held against the general library, and what it refuses."""

from typing import Any

import dag_cbor
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID as LibraryCID

from orthanc_ledger.content import cbor
from orthanc_ledger.content.cbor import CID
from orthanc_ledger.content.cid import block_cid, cid_bytes, cid_text
from orthanc_ledger.errors import IntegrityError

LINKS = st.binary().map(lambda block: CID(cid_bytes(block_cid(block))))
SCALARS = st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.binary() | st.text() | LINKS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def for_library(value: Any) -> Any:
    """The same value with the library's links."""
    if isinstance(value, CID):
        return LibraryCID.decode(cid_text(value))
    if isinstance(value, list):
        return [for_library(item) for item in value]
    if isinstance(value, dict):
        return {key: for_library(item) for key, item in value.items()}
    return value


@given(VALUES)
def test_encodes_as_the_library_and_decodes_that(value: Any) -> None:
    encoded = cbor.encode(value)
    assert encoded == dag_cbor.encode(for_library(value))
    decoded = cbor.decode(encoded)
    assert decoded == value
    assert for_library(decoded) == dag_cbor.decode(encoded)


@given(VALUES, st.data())
def test_changed_bytes_are_refused_or_are_the_one_encoding_of_what_they_say(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(cbor.encode(value))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    changed = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    try:
        decoded = cbor.decode(changed)
    except IntegrityError:
        return
    assert cbor.encode(decoded) == changed


@given(st.binary(max_size=40))
def test_takes_nothing_that_the_library_refuses(data: bytes) -> None:
    try:
        decoded = cbor.decode(data)
    except IntegrityError:
        return
    if b"\xd8\x2a" not in data:  # links are bytes here: whoever follows one checks what its CID says
        assert dag_cbor.decode(data) == decoded


@pytest.mark.parametrize(
    "data",
    [
        "",
        "a16173",  # cut off
        "6261",  # a text cut off
        "1901",  # a number cut off
        "80f6",  # something behind the value
        "a2616201616101",  # keys out of order
        "a262616101616202",  # a longer key first
        "a2616101616102",  # a key twice
        "a10101",  # a key that is no text
        "1801",  # a number longer than needed
        "58016161",  # a length longer than needed
        "9fff",  # indefinite length
        "1c",  # a reserved length
        "fb3ff0000000000000",  # a float
        "f7",  # undefined
        "f814",  # false in two bytes
        "c0",  # a tag that is no link's
        "d82a6100",  # a link that is a text
        "d82a40",  # an empty link
        "d82a420155",  # a link without 0x00
        "da0000002a4100",  # a link's tag longer than needed
        "61ff",  # no UTF-8
        "63eda080",  # a surrogate
        "81" * 9 + "80",  # nesting
        "9bffffffffffffffff",  # more items than memory holds
        "5bffffffffffffffff",  # more bytes
    ],
)
def test_anything_but_the_one_encoding_is_refused(data: str) -> None:
    with pytest.raises(IntegrityError):
        cbor.decode(bytes.fromhex(data))


@pytest.mark.parametrize("value", [1.5, {"a": (1,)}, {"a": object()}, [bytearray(1)]])
def test_what_records_do_not_hold_is_not_encoded(value: object) -> None:
    with pytest.raises(TypeError, match="records hold no"):
        cbor.encode(value)

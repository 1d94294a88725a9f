"""dag-cbor as records use it: IPLD's canonical CBOR (RFC 8949), without floats.

Records are read and written several times for each object that passes, and the general library takes long for each.
Values are None, bool, int of 64 bits, bytes, str, CID, and lists and dicts of them.
"""

from typing import Any, Final

from orthanc_ledger.errors import IntegrityError

MAX_DEPTH: Final = 8

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _TAG = range(7)
_WORDS: Final = {0xF4: False, 0xF5: True, 0xF6: None}
_LONG: Final = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}  # bytes, and the least they are for
_LINK: Final = 42


class CID(bytes):
    """A link: the binary CID, without the 0x00 that stands before it in a block."""


def encode(value: Any) -> bytes:
    """The one encoding of a value. Raises ``TypeError`` for a value of another type."""
    kind = type(value)
    if kind is bytes:
        return _head(_BYTES, len(value)) + value  # type: ignore[no-any-return]
    if kind is str:
        text = value.encode()
        return _head(_TEXT, len(text)) + bytes(text)
    if kind is int:
        return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    if value is None:
        return b"\xf6"
    if kind is CID:
        return _head(_TAG, _LINK) + encode(b"\0" + value)
    if kind is dict:
        pairs = sorted([encode(key) + encode(item) for key, item in value.items()])
        return _head(_MAP, len(pairs)) + b"".join(pairs)
    if kind is list:
        return encode_list([encode(item) for item in value])
    if kind is bool:
        return b"\xf5" if value else b"\xf4"
    raise TypeError(f"records hold no {kind.__name__}")


def encode_list(encoded: list[bytes]) -> bytes:
    """The encoding of a list whose items are encoded already."""
    return _head(_LIST, len(encoded)) + b"".join(encoded)


def decode(data: bytes) -> Any:
    """The value in dag-cbor.

    Raises ``IntegrityError`` for anything but the one encoding of a value and nothing behind it.
    """
    try:
        value, end = _decode(data, 0, MAX_DEPTH)
    except (IndexError, UnicodeDecodeError) as error:
        raise IntegrityError(f"canonical dag-cbor expected, got {len(data)} bytes that break off: {error}") from error
    if end != len(data):
        raise IntegrityError(f"canonical dag-cbor of {end} bytes expected, got {len(data)}")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value at a byte, and where it ends; a number or a text cut off ends behind the data."""
    first = data[at]
    if first in _WORDS:
        return _WORDS[first], at + 1
    major, number, at = first >> 5, first & 31, at + 1
    if number > 23:
        number, at = _long(data, number, at)
    if major == _BYTES:
        return data[at : at + number], at + number
    if major == _TEXT:
        return data[at : at + number].decode(), at + number
    if major == _UNSIGNED:
        return number, at
    if major == _NEGATIVE:
        return -1 - number, at
    if not depth:
        raise IntegrityError(f"dag-cbor: nested deeper than {MAX_DEPTH} at byte {at}")
    if major == _LIST:
        return _list(data, at, number, depth - 1)
    if major == _MAP:
        return _map(data, at, number, depth - 1)
    value, end = _decode(data, at, depth - 1)
    if (major, number, type(value)) != (_TAG, _LINK, bytes) or value[:1] != b"\0":
        raise IntegrityError(f"dag-cbor: neither float nor tag but a link's expected at byte {at}")
    return CID(value[1:]), end


def _long(data: bytes, info: int, at: int) -> tuple[int, int]:
    if info not in _LONG:
        raise IntegrityError(f"dag-cbor: a definite length expected at byte {at}")
    size, least = _LONG[info]
    number = int.from_bytes(data[at : at + size], "big")
    if number < least:
        raise IntegrityError(f"dag-cbor: {number} has a longer head than it needs at byte {at}")
    return number, at + size


def _list(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(count):  # ends at the end of the data whatever the count says
        item, at = _decode(data, at, depth)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
    found = {}
    previous = b""
    for _ in range(count):
        key, end = _decode(data, at, depth)
        # An encoded text begins with its length: bytewise these are in dag-cbor's order, by length, then bytes.
        if type(key) is not str or data[at:end] <= previous:
            raise IntegrityError(f"dag-cbor: keys that are text and rise strictly expected at byte {at}")
        previous = data[at:end]
        found[key], at = _decode(data, end, depth)
    return found, at


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    info, size = next((info, size) for info, (size, _) in _LONG.items() if number < 1 << 8 * size)
    return bytes((major << 5 | info,)) + number.to_bytes(size, "big")

"""DAG-JSON, in which arguments and answers travel: IPLD's canonical JSON, without links and floats.

Keys are sorted by their bytes, there is no white space, bytes are `{"/": {"bytes": BASE64}}` without padding. Values
are None, bool, int of 64 bits, bytes, str, and lists and dicts of them.
"""

import base64
import json
from typing import Any

from orthanc_ledger.errors import IntegrityError

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def encode(value: Any) -> str:
    """The one text of a value. Raises ValueError for what cannot be told in it."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    text.encode()  # half a surrogate pair is no Unicode: a UnicodeEncodeError, so a ValueError
    return text


def decode(text: bytes | str) -> Any:
    """The value in a text. Raises IntegrityError for anything but the one text of a value."""
    try:
        written = text if isinstance(text, str) else text.decode()
        value = json.loads(written, object_hook=_octets)
        if encode(value) == written:
            return value
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"DAG-JSON expected, got {text[:80]!r}: {error}") from error
    raise IntegrityError(f"canonical DAG-JSON expected, got {text[:80]!r}")


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int and _LEAST <= value <= _MOST:
        return value
    if kind is bytes:
        return {"/": {"bytes": _base64(value)}}
    if kind is list:
        return [_plain(item) for item in value]
    if kind is dict and "/" not in value and all(type(key) is str for key in value):
        return {key: _plain(value[key]) for key in sorted(value)}  # UTF-8 sorts as code points do
    raise ValueError(f"DAG-JSON holds no such {kind.__name__}")


def _octets(found: dict[str, Any]) -> Any:
    match found:
        case {"/": {"bytes": str(text)}}:
            return base64.b64decode(text + "=" * (-len(text) % 4))
    return found


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode().rstrip("=")

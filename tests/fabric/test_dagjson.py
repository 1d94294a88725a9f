"""DAG-JSON: one text a value, and nothing else is read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger.fabric import dagjson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "/"), inner),
    max_leaves=20,
)

TEXTS = [
    ({}, "{}"),
    ({"b": 1, "a": None, "é": True, "": [False]}, '{"":[false],"a":null,"b":1,"é":true}'),
    (b"", '{"/":{"bytes":""}}'),
    (b"\x00\xff", '{"/":{"bytes":"AP8"}}'),
    ('"\\/\b\f\n\r\t\x00\x1f\x7f\u2028', '"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\u2028"'),
    ([-(1 << 63), (1 << 63) - 1], "[-9223372036854775808,9223372036854775807]"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_a_value_has_this_text(value: Any, text: str) -> None:
    assert dagjson.encode(value) == text
    assert dagjson.decode(text) == dagjson.decode(text.encode()) == value


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert dagjson.decode(dagjson.encode(value)) == value


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), 1 << 63, (1,), {1: 2}, {"/": 1}, {"/": {"bytes": ""}}, "\ud800", {"a": object()}]
)
def test_what_it_cannot_tell_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"DAG-JSON|surrogates"):
        dagjson.encode(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.0",
        "1e2",
        "NaN",
        "Infinity",
        '{"a":1,"a":1}',
        '{"/":"bafyreigh2akiscaildc"}',
        '{"/":{"bytes":"AP8="}}',
        '{"/":{"bytes":"AP9"}}',
        '{"/":{"bytes":"A P8"}}',
        '{"/":{"bytes":"AP8","more":1}}',
        '{"/":{"bytes":"AP8"},"a":1}',
        '{"/":{"bytes":7}}',
        "{} {}",
        "{} ",
        '{"b":1,"a":1}',
        '"\\u0041"',
        '"\\ud800"',
        "-0",
        "[" * 100_000,
        b"\xff",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="DAG-JSON expected"):
        dagjson.decode(text)

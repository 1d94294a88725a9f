"""Generated data sets: every encoding of one has its fingerprint, and no other data set does."""

from collections.abc import Iterator
from dataclasses import replace

from dicom_make import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SOP_INSTANCE,
    UNITS,
    Node,
    Sequence_,
    Value,
    file_of,
    fingerprint,
    opened,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VR

from orthanc_ledger.compare import compare
from orthanc_ledger.fingerprint import LEFT_OUT

TEXT = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
SOP_INSTANCE_UID = 0x00080018


def _tags_by_vr() -> dict[str, list[int]]:
    """Some public tags of each VR, those of several VRs under the one they are written with here."""
    written = {"US or SS": "SS", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}
    found: dict[str, list[int]] = {}
    for tag, (vr, *_) in sorted(DicomDictionary.items()):
        if 0x00080000 < tag < 0x7FE00000 and tag & 0xFFFF and tag != SOP_INSTANCE_UID and tag not in LEFT_OUT:
            found.setdefault(written.get(vr, vr), []).append(tag)
    return {vr: tags[:: max(1, len(tags) // 6)] for vr, tags in found.items() if vr not in ("UN", "NONE")}


TAGS = _tags_by_vr()
SEQUENCE_TAGS = TAGS.pop("SQ")


def values(vr: str) -> st.SearchStrategy[bytes]:
    if vr in TEXT:
        string = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9)
        return string.map(lambda value: value.encode() + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))
    unit = UNITS.get(vr, 2)
    return st.binary(max_size=24).map(lambda value: value[: len(value) // unit * unit])


public_values = st.sampled_from(sorted(TAGS)).flatmap(
    lambda vr: st.builds(Value, st.sampled_from(TAGS[vr]), st.just(vr), values(vr))
)
# Byte-wise VRs only: swapping private words is the stated exception of big endian.
private_values = st.sampled_from(("LO", "UN", "OB", "UT", "ST")).flatmap(
    lambda vr: st.builds(
        Value,
        st.sampled_from((0x00090010, 0x00091001, 0x00291010, 0x00291020, 0x7FE11010)),
        st.just(vr),
        st.binary(max_size=24).map(lambda value: value[: len(value) // 2 * 2]),
    )
)


def _ordered(nodes: list[Node]) -> tuple[Node, ...]:
    return tuple(sorted({node.tag: node for node in nodes}.values(), key=lambda node: node.tag))


def sequences(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    items = st.lists(st.lists(inner, max_size=4).map(_ordered), max_size=3).map(tuple)
    tags = st.sampled_from([*SEQUENCE_TAGS, 0x00091030, 0x00291040])
    return st.builds(Sequence_, tags, items, st.booleans())


nodes = st.recursive(public_values | private_values, sequences, max_leaves=12)
data_sets = st.lists(nodes, min_size=1, max_size=8).map(
    lambda found: _ordered([*found, Value(SOP_INSTANCE_UID, "UI", SOP_INSTANCE.encode() + b"\0")])
)
CHECKS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CHECKS
@given(data_sets)
def test_every_encoding_has_the_same_fingerprint(data_set: tuple[Node, ...]) -> None:
    forms = [
        file_of(data_set, transfer_syntax, undefined)
        for transfer_syntax in (EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN)
        for undefined in (False, True)
    ]
    assert len({fingerprint(form).fingerprint for form in forms}) == 1


def _paths(data_set: tuple[Node, ...], prefix: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Where each value stands: index of the node, of the item, of the node in it, …"""
    for index, node in enumerate(data_set):
        if isinstance(node, Value):
            yield (*prefix, index)
        else:
            for number, item in enumerate(node.items):
                yield from _paths(item, (*prefix, index, number))


def _changed(data_set: tuple[Node, ...], path: tuple[int, ...]) -> tuple[Node, ...]:
    """The data set with the value at ``path`` changed in what no padding rule touches."""
    index, *rest = path
    node = data_set[index]
    if isinstance(node, Value):
        other: Node = replace(node, value=b"~other~~" + node.value)
    else:
        number, *inner = rest
        items = list(node.items)
        items[number] = _changed(items[number], tuple(inner))
        other = replace(node, items=tuple(items))
    return (*data_set[:index], other, *data_set[index + 1 :])


def _shown(data_set: tuple[Node, ...], path: tuple[int, ...]) -> str:
    index, *rest = path
    node = data_set[index]
    shown = f"({node.tag >> 16:04X},{node.tag & 0xFFFF:04X})"
    if isinstance(node, Value):
        return shown
    number, *inner = rest
    return f"{shown}[{number}].{_shown(node.items[number], tuple(inner))}"


@CHECKS
@given(data_sets, st.data(), st.sampled_from((EXPLICIT, IMPLICIT, BIG_ENDIAN)), st.booleans())
def test_a_changed_value_is_seen_and_named(
    data_set: tuple[Node, ...], data: st.DataObject, transfer_syntax: str, undefined: bool
) -> None:
    path = data.draw(st.sampled_from(sorted(_paths(data_set))))
    a = file_of(data_set, EXPLICIT)
    b = file_of(_changed(data_set, path), transfer_syntax, undefined)
    assert fingerprint(a).fingerprint != fingerprint(b).fingerprint
    assert [difference.where.split(" ")[0] for difference in compare(opened(a), opened(b))] == [_shown(data_set, path)]


@CHECKS
@given(data_sets, data_sets)
def test_data_sets_with_one_fingerprint_have_no_difference(a: tuple[Node, ...], b: tuple[Node, ...]) -> None:
    one, two = file_of(a), file_of(b, IMPLICIT)
    assert (fingerprint(one).fingerprint == fingerprint(two).fingerprint) == (compare(opened(one), opened(two)) == [])


def test_the_generator_knows_every_vr() -> None:
    assert len(TAGS) == 32
    assert all(dictionary_VR(tag) for tags in TAGS.values() for tag in tags)

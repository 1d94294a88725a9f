"""What a receipt proves, to anybody who has the CA certificates of those whom he believes: no node, no keys, no network
(docs/receipt.md, "What is checked").

Every function returns or raises ``IntegrityError``, which says what does not fit.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.fingerprint import combined, metadata_leaves, read_pixels
from orthanc_ledger.instance import Instance
from orthanc_ledger.leaves import ITEM_COUNT, VALUE, Leaf, leaf_hashes
from orthanc_ledger.ledger.checkpoint import NOTHING_PINNED, Pins
from orthanc_ledger.manifest import Record, decode_record
from orthanc_ledger.merkle import Tree, leaf_hash
from orthanc_ledger.receipt import Element, Leaves, Receipt, SaltedLeaf
from orthanc_ledger.receipt_evidence import Anchored, Believed, check_evidence, check_inclusion


@dataclass(frozen=True)
class Proven:
    """What a receipt proves without the object's file: this record was anchored, and has the disclosed elements."""

    record: Record
    anchor: Anchored


def check(receipt: Receipt, believed: Believed, pins: Pins = NOTHING_PINNED) -> Proven:
    """Check everything but a file. ``pins``: as `checkpoint.open_note`.

    Raises IntegrityError when anything does not fit, the kind of ledger to those ``believed`` included; ConfigError
    when one of their certificates is no CA's, or two organisations on Fabric have one key.
    """
    record = _record(receipt.record)
    anchor = check_evidence(receipt.evidence, believed, pins)
    count, root = anchor.args["count"], anchor.args["root"]
    check_inclusion("record", leaf_hash(receipt.record), receipt.index, count, receipt.proof, root)
    if not isinstance(receipt.content, Leaves):
        _check_elements(receipt.content.elements, record)
    return Proven(record, anchor)


def check_file(leaves: Leaves, record: Record, instance: Instance) -> None:
    """Check that an object is the recorded one, in whatever transfer syntax fp/v1 calls equal.

    Raises IntegrityError when it is not; Unreadable, ConfigError as ``fingerprint.read_pixels``.
    """
    pixels, pixel_tree = read_pixels(instance, lambda found: _tree("pixel", found, leaves.pixels))
    if pixels.form != record.pixel_form:
        raise IntegrityError(f"file: expected its pixels {record.pixel_form}, got them {pixels.form}")
    metadata_tree = _tree("metadata", metadata_leaves(instance, pixels.form), leaves.metadata)
    for name, tree, size, root in (
        ("pixel", pixel_tree, record.pixel_leaves, record.pixel_root),
        ("metadata", metadata_tree, record.metadata_leaves, record.metadata_root),
    ):
        if (tree.size, tree.root()) != (size, root):
            raise IntegrityError(
                f"file: expected the {name} root {root.hex()} over {size} leaves, got {tree.root().hex()} over "
                f"{tree.size}: another file, a changed one, or changed salts"
            )


def _record(data: bytes) -> Record:
    """A record from its leaf input; its fingerprint is that of its roots."""
    record = decode_record(data)
    trees = (record.pixel_leaves, record.pixel_root, record.metadata_leaves, record.metadata_root)
    if combined(record.pixel_form, *trees) != record.fingerprint:
        raise IntegrityError("record: its fingerprint is not that of its roots")
    return record


def _check_elements(elements: Sequence[Element], record: Record) -> None:
    if not elements:
        raise IntegrityError("elements: expected at least one")
    for before, after in itertools.pairwise(elements):
        # Both rise in the order of a data set. So no element can be shown twice, with two values.
        if before.index >= after.index or before.path >= after.path:
            raise IntegrityError(f"element {after.path.hex()}: expected after {before.path.hex()}, in paths and leaves")
    for element in elements:
        name = f"element {element.path.hex()}"
        if len(element.path) % 8 != 4 or element.kind not in (VALUE, ITEM_COUNT):
            raise IntegrityError(f"{name}: expected a path and kind of the metadata tree, got kind {element.kind}")
        _check_salt(name, element.salt)
        leaf = Leaf(element.path, element.kind, len(element.value), element.value)
        (digest,) = leaf_hashes(leaf, [element.salt])
        size, root = record.metadata_leaves, record.metadata_root
        check_inclusion(name, digest, element.index, size, element.proof, root)


def _tree(name: str, leaves: Iterable[Leaf], expected: Sequence[SaltedLeaf]) -> Tree:
    """The tree of a file's leaves under the receipt's salts."""
    tree, salted = Tree(), iter(expected)
    for leaf in leaves:
        place = next(salted, None)
        if place is None or (place.path, place.kind) != (leaf.path, leaf.kind):
            got = f"{leaf.path.hex()} of kind {leaf.kind}"
            raise IntegrityError(f"file: {name} leaf {tree.size}, {got}: the receipt has another one there, or none")
        _check_salt(f"{name} leaf {tree.size}", place.salt)
        tree.add(*leaf_hashes(leaf, [place.salt]))
    if tree.size != len(expected):
        raise IntegrityError(f"file: expected {len(expected)} {name} leaves as the receipt has, got {tree.size}")
    return tree


def _check_salt(name: str, salt: bytes) -> None:
    # A longer one could take in a leaf's own head, and have part of its value read as another element.
    if len(salt) != 32:
        raise IntegrityError(f"{name}: expected a salt of 32 bytes, got {len(salt)}")

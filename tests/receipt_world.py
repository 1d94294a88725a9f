"""What tests of receipts need: a node with objects of several forms and their receipts, verifying, tampering."""

import io
import json
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_make import drain, make_node, real_file, store, variant
from pydicom import Dataset, dcmread, dcmwrite

from orthanc_ledger import merkle
from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.errors import CustodyError, IntegrityError
from orthanc_ledger.instance import open_instance
from orthanc_ledger.leaves import VALUE, Leaf, leaf_hashes
from orthanc_ledger.ledger.checkpoint import sign_note
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import (
    Identity,
    ca_certificate,
    load_identity,
)
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.ledger.transaction import SignedTransaction, sign
from orthanc_ledger.receipt import Element, Elements, EmbeddedEvidence, Leaves, Receipt, parse_path
from orthanc_ledger.receipt_check import Proven, check, check_file
from orthanc_ledger.setup_node import CONFIG_NAME

FORMS = {
    "native": "CT_small.dcm",
    "implicit, several frames": "rtdose.dcm",
    "RLE": "MR_small_RLE.dcm",
    "JPEG baseline": "SC_jpeg_no_color_transform.dcm",
    "JPEG baseline, several frames": "examples_ybr_color.dcm",
    "deflated": "image_dfl.dcm",
    "no pixels": "reportsi.dcm",
}


class World:
    """A node with one object of each form, their receipts, the owner's CA; ``disclosed`` is of single elements."""

    def __init__(self, folder: Path) -> None:
        self.node = make_node(folder)
        self.config = folder / "node" / CONFIG_NAME
        self.files = {form: real_file(name).read_bytes() for form, name in FORMS.items()}
        for name in FORMS.values():
            store(self.node, real_file(name))
        store(self.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.1"))  # in one batch with the RLE one
        drain(self.node)
        self.organisations = folder / "node" / "organisations"
        self.trusted = [ca_certificate(self.organisations / "owner")]
        self.receipts = {form: self.issue(uid_of(self.files[form])) for form in FORMS}
        self.disclosed = self.issue(uid_of(self.files["native"]), "00080060", "0010,0010", "00280010")
        with closing(EmbeddedLedger(folder / "node" / "data" / "ledger.db")) as ledger:
            self.log = ledger.log_id

    def issue(self, uid: str, *paths: str) -> Receipt:
        return _receipts(self.node).issue(uid, [parse_path(path) for path in paths]).receipt

    def person(self, role: str) -> Identity:
        return load_identity(self.organisations / role / "identities" / "person")

    def forged(
        self,
        receipt: Receipt,
        *,
        by: Identity | None = None,
        keeper: Identity | None = None,
        log: bytes | None = None,
        note_log: bytes | None = None,
        function: str = "Anchor",
        time: int | None = None,
        entry_time: int | None = None,
        note_time: int | None = None,
        **args: Any,
    ) -> Receipt:
        """A receipt whose log has one entry, made anew: as the owner makes it, but for what is given."""
        owner, now = self.person("owner"), system_clock()
        _, first = SignedTransaction.decode_entry(receipt.evidence.entry)
        call = {name: value for name, value in {**first.args, **args}.items() if value is not None}
        transaction = sign(by or owner, log or self.log, function, call, bytes(16), now if time is None else time)
        entry = transaction.entry(now if entry_time is None else entry_time)
        checkpoint = Checkpoint(1, merkle.leaf_hash(entry))
        note = sign_note(checkpoint, note_log or self.log, note_time or now, keeper or owner)
        return replace(receipt, evidence=EmbeddedEvidence(0, entry, (), note))


def swallowed(folder: Path) -> tuple[Receipt, Receipt]:
    """A receipt of a crafted value, and the forgery that shows a part of it as a patient's name.

    With a longer salt the value's head and first bytes would be salt, and the rest a leaf of its own: one hash.
    """
    node = make_node(folder)
    name = bytes.fromhex("00100010")
    value = struct.pack(">I", 4) + name + struct.pack(">BQ", VALUE, 5) + b"Evil!"
    crafted = variant()
    crafted.private_block(0x0009, "ATTACK", create=True).add_new(1, "OB", value)
    store(node, crafted)
    drain(node)
    receipt = _receipts(node).issue(str(crafted.SOPInstanceUID), [parse_path("00091001")]).receipt
    [element] = elements_of(receipt)
    head = struct.pack(">I", 4) + element.path + struct.pack(">BQ", VALUE, len(value))
    forgery = replace(element, path=name, value=b"Evil!", salt=element.salt + head)
    hashes = [
        leaf_hashes(Leaf(each.path, each.kind, len(each.value), each.value), [each.salt]) for each in (element, forgery)
    ]
    assert hashes[0] == hashes[1]
    return receipt, with_elements(receipt, forgery)


def uid_of(file: bytes) -> str:
    return str(dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID)


def prove(world: World, receipt: Receipt, file: bytes = b"") -> Proven:
    """What a verifier does, from the JSON on."""
    receipt = Receipt.decode(receipt.encode())
    proven = check(receipt, world.trusted)
    if isinstance(receipt.content, Leaves):
        check_file(receipt.content, proven.record, open_instance(io.BytesIO(file)))
    return proven


def refuses(world: World, receipt: Receipt, match: str, file: bytes = b"") -> None:
    with pytest.raises(IntegrityError, match=match):
        prove(world, receipt, file)


def saved(dataset: Dataset, **how: Any) -> bytes:
    sink = io.BytesIO()
    dcmwrite(sink, dataset, **how)
    return sink.getvalue()


def leaves_of(receipt: Receipt) -> Leaves:
    assert isinstance(receipt.content, Leaves)
    return receipt.content


def elements_of(receipt: Receipt) -> tuple[Element, ...]:
    assert isinstance(receipt.content, Elements)
    return receipt.content.elements


def with_elements(receipt: Receipt, *elements: Element) -> Receipt:
    return replace(receipt, content=Elements(elements))


def changes(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where a value of the JSON stands, and another value for it; of long lists the ends."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from changes(value, (*at, name))
    elif isinstance(node, list):
        for number in {0, len(node) - 1} if node else ():
            yield from changes(node[number], (*at, number))
        yield at, [*node, *node[-1:]] if node else ["00"]
        if node and at != ("content", "elements"):  # with fewer elements a receipt proves less
            yield at, node[:-1]
    elif isinstance(node, int):
        yield from ((at, node + 1), (at, -1))
    elif at[-1] == "checkpoint":
        for place in range(0, len(node) - 6, 7):  # the signature's last base64 digit has bits that say nothing
            yield at, node[:place] + chr(ord(node[place]) ^ 1) + node[place + 1 :]
    elif at[-1] == "kind":
        yield at, "embedded" if node == "fabric" else "fabric"
    else:
        for place in {0, len(node) // 2, len(node) - 1} if node else ():
            yield at, f"{node[:place]}{int(node[place], 16) ^ 1:x}{node[place + 1 :]}"
        yield at, node + "00"
        yield at, node[:-2] if node else "00"


def changed(node: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The JSON with another value at one place."""
    if not at:
        return value
    step, *rest = at
    if isinstance(node, dict):
        return {**node, step: changed(node[step], tuple(rest), value)}
    return [*node[:step], changed(node[step], tuple(rest), value), *node[step + 1 :]]


def tampered(receipt: Receipt) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Every field of a receipt changed."""
    node = json.loads(receipt.encode())
    for at, value in changes(node):
        yield at, json.dumps(changed(node, at, value)).encode()


def refused(world: World, data: bytes, file: bytes = b"") -> bool:
    try:
        prove(world, Receipt.decode(data), file)
    except CustodyError:
        return True
    return False

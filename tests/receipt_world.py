"""What tests of receipts need: a node with objects of several forms and their receipts, verifying, tampering."""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_make import drain, make_node, real_file, store, variant
from pydicom import Dataset, dcmread, dcmwrite

from orthanc_ledger.commands.receipt import _receipts
from orthanc_ledger.errors import CustodyError, IntegrityError
from orthanc_ledger.instance import open_instance
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import (
    Identity,
    ca_certificate,
    load_identity,
)
from orthanc_ledger.receipt import Element, Elements, Leaves, Receipt, parse_path
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
        yield at, "fabric"
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
    """Every field of a receipt changed, but for the hint that nobody has to believe."""
    node = json.loads(receipt.encode())
    for at, value in changes(node):
        if at[:2] != ("evidence", "authorities"):
            yield at, json.dumps(changed(node, at, value)).encode()


def refused(world: World, data: bytes, file: bytes = b"") -> bool:
    try:
        prove(world, Receipt.decode(data), file)
    except CustodyError:
        return True
    return False

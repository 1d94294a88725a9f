"""CAR files, version 1 (ipld.io CARv1): the blocks of a batch in one stream."""

from collections.abc import Iterable, Iterator, Sequence

from orthanc_ledger.content.cbor import CID, encode
from orthanc_ledger.content.cid import Block, cid_bytes, varint


def car(roots: Sequence[str], blocks: Iterable[Block]) -> Iterator[bytes]:
    """The bytes of a CAR, piece by piece: a header that names the roots, then the blocks as they come."""
    header = encode({"version": 1, "roots": [CID(cid_bytes(root)) for root in roots]})
    yield varint(len(header)) + header
    for cid, block in blocks:
        yield varint(len(cid) + len(block)) + cid
        yield block

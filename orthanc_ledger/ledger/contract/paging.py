"""Lists in parts."""

from collections.abc import Iterable, Mapping
from itertools import islice

from orthanc_ledger.ledger.contract.arguments import MAX_ROWS
from orthanc_ledger.ledger.contract.call import Value


def page(items: Iterable[Value], args: Mapping[str, Value]) -> list[Value]:
    """The items from `offset` on, `limit` of them at most: the arguments every query with a list takes."""
    offset: int = args.get("offset", 0)
    return list(islice(items, offset, offset + args.get("limit", MAX_ROWS)))

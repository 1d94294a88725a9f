"""The next object of a retrieve is opened while the peer still has the one before to put away."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from dicom_scp.ports import Item, Plan

_LARGEST = 8 << 20  # bytes; of a larger object the wire is the longer part, and two would be held


class Ahead:
    """Opens the items of a plan, each while the peer puts the one before away: verifying costs no time of its own then,
    where a thread beside this one would take the interpreter from it.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ahead: tuple[Item, BinaryIO | Exception, ExitStack] | None = None

    def prepare(self, item: Item | None) -> None:
        """Open the item that is next, unless it is large. Whatever that raises is kept until `open`: it is no fault of
        the item that is being sent.
        """
        if item is None or item.size > _LARGEST:
            return
        with ExitStack() as stack:
            opened: BinaryIO | Exception
            try:
                opened = stack.enter_context(self._plan.open(item))
            except Exception as error:
                opened = error
            self._ahead = item, opened, stack.pop_all()

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        """As `Plan.open`."""
        if self._ahead is None or self._ahead[0] is not item:
            self.close()  # of one that was passed over
            with self._plan.open(item) as data_set:
                yield data_set
            return
        (_, opened, stack), self._ahead = self._ahead, None
        with stack:
            if isinstance(opened, Exception):
                raise opened
            yield opened

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead[2].close()
            self._ahead = None

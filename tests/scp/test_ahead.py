"""Opening ahead: what is opened is closed, and a fault hits its own object alone."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from typing import BinaryIO

import pytest

from dicom_scp.ahead import Ahead
from dicom_scp.ports import Item, Refused
from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.reasons import Reason

from .client import EXPLICIT, MR
from .world import FolderPlan

FIRST, SECOND, THIRD = (Item(MR, f"1.2.{number}", EXPLICIT, 10) for number in range(3))


class Plan(FolderPlan):
    """Opens anything but ``faults``, and keeps what is open."""

    def __init__(self, faults: dict[Item, Exception] | None = None) -> None:
        super().__init__([])
        self.faults = faults or {}
        self.open_now: list[Item] = []

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        if item in self.faults:
            raise self.faults[item]
        self.open_now.append(item)
        try:
            yield BytesIO(item.sop_instance.encode())
        finally:
            self.open_now.remove(item)


@pytest.mark.parametrize(
    "fault", [IntegrityError("differs"), Refused(Reason.WITHDRAWN), OSError("EIO"), RuntimeError()]
)
def test_a_fault_in_opening_ahead_is_its_own_objects(fault: Exception) -> None:
    plan = Plan({SECOND: fault})
    with closing(Ahead(plan)) as ahead:
        with ahead.open(FIRST) as data_set:
            ahead.prepare(SECOND)
            assert data_set.read() == b"1.2.0"
        with pytest.raises(type(fault)) as raised, ahead.open(SECOND):
            pass
        assert raised.value is fault
        with ahead.open(THIRD) as data_set:
            assert data_set.read() == b"1.2.2"
    assert plan.open_now == []


def test_an_object_that_is_passed_over_is_closed_when_the_next_is_opened() -> None:
    plan = Plan()
    with closing(Ahead(plan)) as ahead:
        with ahead.open(FIRST):
            ahead.prepare(SECOND)
        with ahead.open(THIRD):
            assert plan.open_now == [THIRD]


def test_what_was_opened_ahead_and_never_used_is_closed_at_the_end() -> None:
    plan = Plan()
    with closing(Ahead(plan)) as ahead, ahead.open(FIRST):
        ahead.prepare(SECOND)
    assert plan.open_now == []

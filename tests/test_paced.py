"""The bound of the sweep's reading, on a clock of its own: no test waits."""

import io
from pathlib import Path

import pytest

from orthanc_ledger.content import verify_cid
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.errors import IntegrityError, NotHeld
from orthanc_ledger.paced import PacedStore

RATE = 1000
PIECE = 300


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore.create(tmp_path)


@pytest.fixture
def paced(store: LocalStore, clock: Clock) -> PacedStore:
    return PacedStore(store, RATE, clock.sleep, clock)


def put(store: LocalStore, *contents: bytes) -> list[str]:
    with store.begin() as batch:
        cids = [batch.add_object(lambda sink, content=content: sink.write(content)).cid for content in contents]
        batch.commit()
    return cids


def test_over_any_stretch_no_more_is_read_than_the_rate_and_one_read(
    store: LocalStore, paced: PacedStore, clock: Clock
) -> None:
    reads = []
    for cid in put(store, *(bytes([n]) * 1000 for n in range(5))):
        with paced.open(cid) as file:
            while data := file.read(PIECE):
                reads.append((clock.now_s, len(data)))
    for first, (begun_s, _) in enumerate(reads):
        for last in range(first, len(reads)):
            within = sum(size for _, size in reads[first : last + 1])
            assert within <= (reads[last][0] - begun_s) * RATE + PIECE + 1e-6
    assert clock.now_s - 50 == pytest.approx(5000 / RATE)


def test_time_in_which_nothing_was_read_is_not_made_up_for(store: LocalStore, paced: PacedStore, clock: Clock) -> None:
    cids = put(store, b"a" * 500, b"b" * 500, b"c" * 500)
    clock.now_s += 3600
    for cid in cids:
        with paced.open(cid) as file:
            file.read()
    assert clock.now_s - 3650 == pytest.approx(1.0)


def test_blocks_count_too(store: LocalStore, paced: PacedStore, clock: Clock) -> None:
    with store.begin() as batch:
        cid = batch.add_block(b"\x59\x01\x00" + bytes(256))
        batch.commit()
    for _ in range(3):
        assert len(paced.get_block(cid)) == 259
    assert clock.now_s - 50 == pytest.approx(2 * 0.259)


def test_a_file_may_be_read_again_from_its_start_and_verified(store: LocalStore, paced: PacedStore) -> None:
    [cid] = put(store, b"x" * 1000)
    with paced.open(cid) as file:
        verify_cid(file, cid)
        file.seek(0)
        assert file.read() == b"x" * 1000
        file.seek(-1, io.SEEK_END)
        with pytest.raises(IntegrityError):
            verify_cid(file, cid)


def test_what_the_store_does_not_hold_is_not_held(paced: PacedStore, tmp_path: Path) -> None:
    [cid] = put(LocalStore(tmp_path), b"x")
    next(tmp_path.rglob(cid)).unlink()
    with pytest.raises(NotHeld):
        paced.open(cid)

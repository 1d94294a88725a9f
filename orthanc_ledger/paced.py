"""A content store that is read at a bounded rate, so that what reads all of it leaves the disk to the others."""

import io
import time
from collections.abc import Callable
from typing import BinaryIO, cast

from orthanc_ledger.content.cid import LARGEST
from orthanc_ledger.repair import Sealed


class PacedStore:
    """A content store of which at most ``bytes_s`` bytes a second are read: each read waits until those before it are
    paid for. Raises as the store does.
    """

    def __init__(
        self,
        content: Sealed,
        bytes_s: float,
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._content = content
        self._bytes_s = bytes_s
        self._sleep = sleep
        self._monotonic = monotonic
        self._paid_s = monotonic()

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """As the store's; reading is paced, opening is not."""
        return cast(BinaryIO, _PacedFile(self._content.open(cid, size), self.paced))

    def get_block(self, cid: str) -> bytes:
        """As the store's."""
        return self.paced(lambda: self._content.get_block(cid))

    def paced(self, read: Callable[[], bytes]) -> bytes:
        """What ``read`` gives, once it may be read."""
        self.pay(0)
        data = read()
        self._owe(len(data))
        return data

    def pay(self, size: int) -> None:
        """Wait as a read of ``size`` bytes does, which somebody else is about to make of the store."""
        ahead_s = self._paid_s - self._monotonic()
        if ahead_s > 0:
            self._sleep(ahead_s)
        self._owe(size)

    def _owe(self, size: int) -> None:
        self._paid_s = max(self._paid_s, self._monotonic()) + size / self._bytes_s


class _PacedFile(io.RawIOBase):
    def __init__(self, source: BinaryIO, paced: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._source = source
        self._paced = paced

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._paced(lambda: self._source.read(size))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def close(self) -> None:
        self._source.close()
        super().close()

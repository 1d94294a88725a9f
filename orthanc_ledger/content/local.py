"""The local content store: a folder, each object and block one file under its CID.

    objects/xx/CID    sealed objects; xx are the CID's last two characters; one dropped is a link to nowhere
    blocks/xx/CID     manifest blocks
    staging/…/        one folder for each batch not yet committed

An object is kept whole: its CID is recomputed from the bytes, so the DAG under it need not be stored.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from orthanc_ledger.content import Stored, verify_cid
from orthanc_ledger.content.cid import LARGEST, UnixFsImporter, block_cid, check_block_cid, check_file_cid, is_block_cid
from orthanc_ledger.durable import sync, write_early
from orthanc_ledger.errors import ConfigError, ContentAway, IntegrityError, NotHeld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

NEAR = "near"
"""The name of this place, where there are others."""

_PARTS = ("objects", "blocks", "staging")
_DROPPED = "kept-elsewhere"


class LocalStore:
    """A content store (:class:`orthanc_ledger.content.ContentStore`) in a folder that ``create`` made one."""

    def __init__(self, folder: Path) -> None:
        """Raises ``ConfigError`` when there is no store: the mount point of a disk must not become an empty one."""
        self._objects, self._blocks, self._staging = (folder / part for part in _PARTS)
        if not all((folder / part).is_dir() for part in _PARTS):
            raise ConfigError(
                f"content store {folder}: expected the folders {', '.join(_PARTS)} that `init` makes; mount its disk"
            )

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make an empty store of a folder. Raises ``ContentAway``."""
        with away(f"content store {folder}"):
            for part in _PARTS:
                (folder / part).mkdir(parents=True)
            sync(folder)
        return cls(folder)

    @property
    def near(self) -> Self:
        """Itself."""
        return self

    @property
    def places(self) -> Sequence[str]:
        """Here."""
        return (NEAR,)

    def check(self, to_read: bool = False) -> None:
        """Raises ``ContentAway`` when its disk is gone."""
        for part in (self._objects, self._blocks, self._staging):
            _check_mounted(part)

    def begin(self) -> "LocalBatch":
        """Start a batch in a staging folder of its own."""
        with away(f"content store {self._staging}"):
            return LocalBatch(Path(tempfile.mkdtemp(dir=self._staging)), self._objects, self._blocks)

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Open an object's file."""
        check_file_cid(cid)
        return self._open(self._objects, cid)

    def get_block(self, cid: str) -> bytes:
        """Read a block and check its CID."""
        check_block_cid(cid)
        with self._open(self._blocks, cid) as file:
            block = file.read()
        if block_cid(block) != cid:
            raise IntegrityError(f"block: expected {cid}, got {block_cid(block)}")
        return block

    def recover(self) -> None:
        """Empty the staging folder."""
        with away(f"content store {self._staging}"):
            for left in self._staging.iterdir():
                shutil.rmtree(left)

    def repair(self, cid: str, root: str, size: int = LARGEST) -> Sequence[str]:
        """Nothing when the copy is sound; else raises what is wrong, as there is no other."""
        if is_block_cid(cid):
            self.get_block(cid)
        else:
            with self.open(cid) as file:
                verify_cid(file, cid)
        return ()

    def keep(self, root: str) -> None:
        """Raises ``ConfigError``: a folder has nobody to fetch from."""
        raise ConfigError(f"content store {self._objects.parent}: a folder fetches nothing; name a kubo: store")

    def release(self, root: str) -> None:
        """Nothing: nothing is pinned."""

    def expire(self, root: str, cids: Collection[str], now_us: int) -> None:
        """Nothing: these are all copies there are."""

    def written_us(self, cid: str) -> int | None:
        """When an object was written, in microseconds UTC since 1970; None when it is not here. Raises ContentAway."""
        check_file_cid(cid)
        place = _place(self._objects, cid)
        with away(f"content store {place}"):
            try:
                return None if place.is_symlink() else place.stat().st_mtime_ns // 1000
            except FileNotFoundError:
                _check_mounted(self._objects)
                return None

    def drop(self, cid: str) -> None:
        """Put a mark in an object's place, by which it is not held but not lost either. Raises ContentAway."""
        check_file_cid(cid)
        place = _place(self._objects, cid)
        with away(f"content store {place}"), tempfile.TemporaryDirectory(dir=self._staging) as staging:
            mark = Path(staging) / "mark"
            mark.symlink_to(_DROPPED)
            os.replace(mark, place)

    def is_dropped(self, cid: str) -> bool:
        """Whether an object was dropped and not written again. Raises ContentAway."""
        check_file_cid(cid)
        with away(f"content store {self._objects}"):
            return _place(self._objects, cid).is_symlink()

    def forget(self, roots: Collection[str], cids: Collection[str]) -> None:
        """Delete their files, then sync the folders: also of those that are gone, as whoever unlinked them may have
        died before.
        """
        places = [_place(self._blocks if is_block_cid(cid) else self._objects, cid) for cid in {*roots, *cids}]
        self.check()
        with away(f"content store {self._objects.parent}"):
            for place in places:
                place.unlink(missing_ok=True)
            for folder in {place.parent for place in places}:
                if folder.is_dir():
                    sync(folder)

    def _open(self, part: Path, cid: str) -> BinaryIO:
        try:
            return io.BufferedReader(_File(_place(part, cid)))
        except FileNotFoundError as error:
            _check_mounted(part)
            raise NotHeld(f"content store {part}: holds no {cid}") from error
        except OSError as error:
            raise ContentAway(f"content store {part}: {cid}: {error.strerror or error}") from error


class LocalBatch:
    """A batch (:class:`orthanc_ledger.content.Batch`): files in a staging folder until their commit."""

    def __init__(self, staging: Path, objects: Path, blocks: Path) -> None:
        self._staging = staging
        self._objects = objects
        self._blocks = blocks
        self._places: dict[Path, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be removed now, recover() will remove; it has no name among the objects.
        shutil.rmtree(self._staging, ignore_errors=True)

    def add_object(self, write: Callable[[BinaryIO], None]) -> Stored:
        """Have an object written to a staged file."""
        staged = self._staging / f"{len(self._places)}"
        with away(f"content store {staged}"):
            file = _Sink(staged)
        with file:
            write(cast(BinaryIO, file))
            write_early(file.fileno())
        cid = file.importer.finish()
        self._places[staged] = _place(self._objects, cid)
        return Stored(cid, file.size)

    def open(self, cid: str, size: int = LARGEST) -> BinaryIO:
        """Open a staged object's file."""
        check_file_cid(cid)
        place = _place(self._objects, cid)
        for staged, its_place in reversed(self._places.items()):
            if its_place == place:
                with away(f"content store {staged}"):
                    return io.BufferedReader(_File(staged))
        raise NotHeld(f"content store: {cid} is not in this batch")

    def add_block(self, block: bytes) -> str:
        """Stage a block."""
        staged = self._staging / f"{len(self._places)}"
        with away(f"content store {staged}"):
            staged.write_bytes(block)
        cid = block_cid(block)
        self._places[staged] = _place(self._blocks, cid)
        return cid

    def commit(self) -> None:
        """Sync all files, then give them their names, then sync the folders."""
        with away(f"content store {self._staging}"):
            for staged in self._places:
                sync(staged)
            folders = {place.parent for place in self._places.values()}
            for folder in folders:
                folder.mkdir(exist_ok=True)
            for staged, place in self._places.items():
                os.replace(staged, place)
            for folder in folders | {folder.parent for folder in folders}:
                sync(folder)


class _File(io.FileIO):
    """An object's file, whose read errors are the store's."""

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        with away(f"content store {self.name}"):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with away(f"content store {self.name}"):
            return super().readall()


class _Sink(io.FileIO):
    """A new file that counts its bytes and computes their CID; its write errors are the store's."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self.importer = UnixFsImporter()
        self.size = 0

    def write(self, data: "ReadableBuffer") -> int:
        view = memoryview(data).cast("B")
        written = 0
        with away(f"content store {self.name}"):
            while written < len(view):
                written += super().write(view[written:])
        self.importer.update(view)
        self.size += written
        return written


@contextlib.contextmanager
def away(what: str) -> Iterator[None]:
    """Errors of a disk are the store's: ContentAway, with what failed."""
    try:
        yield
    except OSError as error:
        raise ContentAway(f"{what}: {error.strerror or error}") from error


def _check_mounted(part: Path) -> None:
    if not part.is_dir():
        raise ContentAway(f"content store {part}: the folder is gone; is its disk mounted?")


def _place(part: Path, cid: str) -> Path:
    return part / cid[-2:] / cid

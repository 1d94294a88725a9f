"""Where copies are: a Kubo node, and how one is read from it, checked, and replaced."""

import contextlib
import io
import tempfile
from base64 import b32encode
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from orthanc_ledger.content.cid import LARGEST, Block, UnixFsImporter, block_cid, blocks_of, cid_bytes, is_block_cid
from orthanc_ledger.content.kubo.connection import KuboNode
from orthanc_ledger.content.kubo.privacy import at, owner_of, read_settings
from orthanc_ledger.content.kubo.rpc import Kubo
from orthanc_ledger.content.local import away
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld

IN_MEMORY = 16 << 20
_LEVELS = 4  # of a file's tree at most, and one more


class KuboPlace:
    """A Kubo node as a place for copies. Objects larger than ``IN_MEMORY`` bytes are read into unnamed files in
    ``temporary``; sealed, as they are.
    """

    def __init__(self, node: KuboNode, temporary: Path, stall_s: float) -> None:
        self.name = node.name
        self.node = node
        self.kubo = Kubo(node.name, node.api, node.token, stall_s, owner_of(node.repo))
        self._temporary = temporary

    @property
    def peer_id(self) -> str:
        """By its settings, which `check_node` compares with who answers. Raises ConfigError."""
        return str(at(read_settings(self.node.repo), "Identity.PeerID"))

    def fetch(self, cid: str, offline: bool = True, most: int = LARGEST) -> BinaryIO:
        """An object of at most so many bytes, or a block, whose CID was checked; ``offline``: from the node's own
        blocks only, else from others too.

        Raises NotHeld, IntegrityError, ContentAway, each with the node's name and the CID. From others: NotHeld when
        all peers that the node is to be connected with are, and nobody sent it in time; ContentAway when one is not.
        """
        try:
            return io.BytesIO(self._block(cid, offline)) if is_block_cid(cid) else self._file(cid, offline, most)
        except NotHeld as error:
            if not offline and (absent := self._peers_away()):
                raise ContentAway(
                    f"{error}; {absent} of its peers are not connected with it: do they run, with the same swarm.key?"
                ) from error
            raise

    def write(self, cid: str, source: BinaryIO) -> None:
        """Write an object or block from its start, in place of what is there. Raises ContentAway."""
        source.seek(0)
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        self.kubo.add([cid], _blocks(cid, source), size, pin=False)

    def discard_damaged(self, cid: str, most: int = LARGEST) -> bool:
        """Delete the corrupt blocks of an object, or the block; whether there was one. They are files of no use, and
        are deleted as such: the API refuses while they are pinned, and were they unpinned, nothing would hold the rest
        of their batch until it is whole. Raises ContentAway.
        """
        damaged = self.kubo.damaged(cid, most)
        for each in damaged:
            path = self.node.repo / block_path(each)
            with away(f"{self.name}: {path}"):
                path.unlink(missing_ok=True)
        return bool(damaged)

    def refetch(self, cid: str, most: int = LARGEST) -> BinaryIO:
        """``fetch`` from others what is missing or corrupt here."""
        for _ in range(_LEVELS):
            try:
                return self.fetch(cid, offline=False, most=most)
            except IntegrityError:
                if not self.discard_damaged(cid, most):
                    raise
        return self.fetch(cid, offline=False, most=most)

    def _block(self, cid: str, offline: bool) -> bytes:
        block = self.kubo.block(cid, offline)
        self._compare(cid, block_cid(block))
        return block

    def _file(self, cid: str, offline: bool, most: int) -> BinaryIO:
        with away(f"content store {self._temporary}"):
            file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._temporary))  # noqa: SIM115, the caller's to close
            try:
                importer = UnixFsImporter()
                for piece in self.kubo.read(cid, offline, most):
                    importer.update(piece)
                    file.write(piece)
                self._compare(cid, importer.finish())
                file.seek(0)
            except BaseException:
                with contextlib.suppress(OSError):  # of a full disk again, by what is not yet written
                    file.close()
                raise
        return cast(BinaryIO, file)

    def _compare(self, expected: str, got: str) -> None:
        if got != expected:
            raise IntegrityError(f"{self.name}: expected {expected}, got {got}: is Datastore.HashOnRead on?")

    def _peers_away(self) -> int:
        """How many of the peers that its settings name (Peering.Peers) it is not connected with."""
        expected = {peer["ID"] for peer in at(read_settings(self.node.repo), "Peering.Peers") or ()}
        return len(expected - self.kubo.peers())


def block_path(cid: str) -> Path:
    """The file of a block in a repository (flatfs, next-to-last/2)."""
    key = b32encode(cid_bytes(cid)[2:]).decode("ascii").rstrip("=")
    return Path("blocks", key[-3:-1], f"{key}.data")


def _blocks(cid: str, source: BinaryIO) -> Iterator[Block]:
    return iter([(cid_bytes(cid), source.read())]) if is_block_cid(cid) else blocks_of(source)

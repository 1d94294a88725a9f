"""One Kubo node by its RPC API (docs.ipfs.tech/reference/kubo/rpc); times and bounds are those of http.py."""

import contextlib
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import ReadTimeoutError

from orthanc_ledger.content.car import car
from orthanc_ledger.content.cid import CHUNK, LARGEST, Block, children, is_file, is_tree
from orthanc_ledger.content.kubo.http import LARGEST_ANSWER, PIECE, STALL_S, Api, Refused
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld

_ALIVE_S = 2.0
_WORK_S = 120.0  # in which a node may say nothing: it syncs and pins what it got, or looks for garbage
_LARGEST_BLOCK = 2 << 20
_LONGEST = 20  # times the patience with who sends block after block

_MISSING = "could not find"
_CORRUPT = "different hash than requested"
_NOT_PINNED = "not pinned"


class Kubo(Api):
    """A node. All methods raise ContentAway when it cannot be asked or fails; threads may share it."""

    def __init__(self, name: str, api: str, token: str, stall_s: float = STALL_S, users: Collection[int] = ()) -> None:
        super().__init__(name, api, f"Bearer {token}", stall_s, users)

    def peer_id(self) -> str:
        """Its libp2p peer id; tells within two seconds that it is away."""
        return str(self._json(_call("id"), min(_ALIVE_S, self.stall_s)).get("ID"))

    def status_without_token(self) -> int:
        """The HTTP status that somebody gets who has no token."""
        try:
            self.whole(self._post(_call("id"), with_token=False), "id", LARGEST_ANSWER)
        except Refused as error:
            return error.status
        return 200

    def peers(self) -> set[str]:
        """The peer ids that it is connected with."""
        return {str(each.get("Peer")) for each in self._json(_call("swarm/peers")).get("Peers") or ()}

    def add(self, roots: Sequence[str], blocks: Iterable[Block], size: int, pin: bool) -> None:
        """Write blocks, in the time that ``size`` bytes may take, synced if the node is set so; replaces damaged ones.
        With ``pin``: pin roots with all under them, which must be there then. What ``blocks`` raises comes through.
        """
        call = _call("dag/import", pin_roots=_flag(pin), stats="false", fast_provide_root="false")
        until = self.until(size)
        body = self.in_time(car(roots, blocks), until, "dag/import")
        answer = self._post(call, body, wait_s=max(_WORK_S, self.stall_s))
        told = {}
        for line in self.lines(answer, "dag/import"):
            root = line.get("Root") or {}
            told[(root.get("Cid") or {}).get("/")] = root.get("PinErrorMsg")
        for root in roots if pin else ():
            if told.get(root, "it did not say so") != "":
                raise self.error("dag/import", f"{root} is not pinned: {told.get(root, 'the answer breaks off')}")

    def read(self, cid: str, offline: bool = True, most: int = LARGEST) -> Iterator[bytes]:
        """A file's bytes, ``most`` of them; ``offline``: from its own blocks only. The caller checks the CID.

        Raises NotHeld when a block is missing (or came from nobody in time), IntegrityError when one is corrupt,
        naming it, or it is no file, or when there are more or fewer bytes than it says, or more than ``most``.
        """
        with self._named(cid):
            if not offline:
                self._block(cid, offline)  # of what nobody has this tells soon, however large it may be
            answer = self._cat(cid, offline)
            said = answer.headers.get("X-Content-Length", "")
            length = int(said) if said.isdecimal() else -1
            if length > most:  # a few blocks that link to each other over and over are as many as one likes
                answer.close()
                raise IntegrityError(f"{self.name}: {cid}: at most {most} bytes expected, got {length}")
            got = 0
            try:
                for piece in self.pieces(answer, "cat", self.until(length)):
                    got += len(piece)
                    yield piece
                    if got > length:
                        break
            except ContentAway as error:
                if not offline and isinstance(error.__cause__, ReadTimeoutError):
                    raise NotHeld(f"{self.name}: {cid}: nobody sent the next block in time: {error}") from error
                raise
            if got != length:
                self._find_fault(cid, most)
                raise IntegrityError(f"{self.name}: {cid}: {length} bytes expected, got {got}")

    def block(self, cid: str, offline: bool = True) -> bytes:
        """A block's bytes, as ``read``."""
        with self._named(cid):
            return self._block(cid, offline)

    def pinned(self, root: str) -> bool:
        """Whether a root is pinned with all under it."""
        try:
            return root in self._json(_call("pin/ls", arg=root, type="recursive")).get("Keys", {})
        except Refused as error:
            if _NOT_PINNED in error.said:
                return False
            raise

    def pinned_below(self) -> Iterator[str]:
        """The CIDs of what is held since a root above it is pinned, and is none itself."""
        call = _call("pin/ls", type="indirect", stream="true")
        for line in self.lines(self._post(call, wait_s=_WORK_S), "pin/ls"):
            yield str(line.get("Cid"))

    def how_pinned(self, cid: str) -> str:
        """In Kubo's words: "indirect through" a root."""
        keys = self.json(self._post(_call("pin/ls", arg=cid), wait_s=_WORK_S), "pin/ls").get("Keys") or {}
        return " ".join(str(each.get("Type")) for each in keys.values())

    def pin(self, root: str, patience_s: float) -> None:
        """Pin a root with all under it, fetching what is missing from others; away when nothing more has come for
        ``patience_s`` seconds, or not all in ``_LONGEST`` times that: the next call goes on from there.
        """
        with self._post(_call("pin/add", arg=root, progress="true"), wait_s=patience_s) as answer:
            so_far, moved_s = -1, time.monotonic()
            end_s = moved_s + _LONGEST * patience_s
            for line in self.lines(answer, "pin/add"):
                if root in (line.get("Pins") or ()):
                    return
                if (progress := line.get("Progress", 0)) > so_far:
                    so_far, moved_s = progress, time.monotonic()
                    if moved_s > end_s:  # others wait, too
                        raise self.error("pin/add", f"{root}: not all of it came in {_LONGEST * patience_s:.0f} s")
                elif time.monotonic() > moved_s + patience_s:
                    raise self.error("pin/add", f"{root}: nobody sent the rest of it in {patience_s:.0f} s")
        raise self.error("pin/add", f"{root} is not pinned: the answer breaks off")

    def unpin(self, root: str) -> None:
        """Unpin a root; nothing when it is not pinned."""
        try:
            self._json(_call("pin/rm", arg=root))
        except Refused as error:
            if _NOT_PINNED not in error.said:
                raise

    def collect(self) -> None:
        """Delete all blocks that are not pinned."""
        for line in self.lines(self._post(_call("repo/gc"), wait_s=_WORK_S), "repo/gc"):
            if fault := line.get("Error"):
                raise self.error("repo/gc", str(fault))

    def held(self) -> Iterator[str]:
        """The CIDs of all its blocks, as raw ones whatever they are."""
        for line in self.lines(self._post(_call("refs/local"), wait_s=_WORK_S), "refs/local"):
            yield str(line.get("Ref"))

    def damaged(self, cid: str, most: int = LARGEST) -> list[str]:
        """The corrupt blocks of a file of at most so many bytes, or the block itself when it is."""
        corrupt = []
        for part in (cid, *self._below(cid, most)):
            try:
                self.block(part)
            except IntegrityError:
                corrupt.append(part)
            except NotHeld:
                continue
        return corrupt

    def _find_fault(self, cid: str, most: int) -> None:
        """Raise what is wrong with a block of a file whose body broke off; return when nothing is found."""
        for part in self._below(cid, most):
            self._block(part)

    def _cat(self, cid: str, offline: bool) -> urllib3.BaseHTTPResponse:
        try:
            return self._post(_call("cat", arg=cid, offline=_flag(offline)))
        except Refused as error:  # also by a node that is well: of a directory, or of what is nothing
            if is_tree(cid) and not is_file(self._block(cid, offline)):
                raise IntegrityError(f"{self.name}: {cid}: is no file: {error.said}") from error
            raise

    def _block(self, cid: str, offline: bool = True) -> bytes:
        # Online, for a block that nobody has Kubo would wait for ever: almost as long as we do.
        limit = {"offline": "true"} if offline else {"timeout": f"{self.stall_s * 0.8:.3f}s"}
        return self.whole(self._post(_call("block/get", arg=cid, **limit)), "block/get", _LARGEST_BLOCK)

    def _below(self, cid: str, most: int) -> Iterator[str]:
        """The blocks that a file consists of, besides its root, each once, however often and deep it is linked to;
        below one that cannot be read nobody can look. Raises IntegrityError when they are too many for ``most`` bytes.
        """
        most_blocks = 2 * (most // CHUNK + 1)  # leaves, and fewer nodes above them
        seen, waiting = {cid}, [cid]
        while waiting:
            parent = waiting.pop()
            links: list[str] = []
            if is_tree(parent):
                with contextlib.suppress(NotHeld, IntegrityError):
                    links = children(self.block(parent))
            new = list(dict.fromkeys(link for link in links if link not in seen))
            seen.update(new)
            waiting += new
            if len(seen) > 1 + most_blocks:
                raise IntegrityError(f"{self.name}: {cid}: at most {most_blocks} blocks expected, got more")
            yield from new

    @contextlib.contextmanager
    def _named(self, cid: str) -> Iterator[None]:
        """What a node says of a block becomes what it means."""
        try:
            yield
        except Refused as error:
            if _MISSING in error.said or "deadline exceeded" in error.said:
                raise NotHeld(f"{self.name}: {cid}: a block is missing: {error.said}") from error
            if _CORRUPT in error.said:
                raise IntegrityError(f"{self.name}: {cid}: a block is corrupt: {error.said}") from error
            raise

    def _json(self, call: str, wait_s: float | None = None) -> dict[str, Any]:
        return self.json(self._post(call, wait_s=wait_s), call)

    def _post(
        self, call: str, body: Iterator[bytes] | None = None, wait_s: float | None = None, with_token: bool = True
    ) -> urllib3.BaseHTTPResponse:
        headers = {}
        if body is not None:
            boundary = secrets.token_hex(16)
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
            body = _form(body, boundary)
        return self.ask("POST", f"/api/v0/{call}", body, headers, wait_s, with_token)


def _form(pieces: Iterable[bytes], boundary: str) -> Iterator[bytes]:
    """multipart/form-data with one file (RFC 7578), in pieces that are worth a write."""
    held = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="batch.car"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
    ]
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join([*held, f"\r\n--{boundary}--\r\n".encode()])


def _call(command: str, **options: str) -> str:
    return f"{command}?{urlencode({name.replace('_', '-'): value for name, value in options.items()})}"


def _flag(value: bool) -> str:
    return "true" if value else "false"

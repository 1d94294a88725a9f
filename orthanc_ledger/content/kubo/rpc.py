"""One Kubo node by its RPC API (docs.ipfs.tech/reference/kubo/rpc).

Every call ends: a node that neither takes nor gives a byte for ``stall_s`` seconds is away, and so is one that is
slower over a whole transfer than ``LEAST_BYTES_S``. No proxy of the environment is obeyed, no redirect followed, no
call sent twice. What a node says of an error is quoted up to ``_MOST_QUOTED`` characters.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError

from orthanc_ledger.content.car import car
from orthanc_ledger.content.cid import Block, children, is_tree
from orthanc_ledger.errors import ContentAway, IntegrityError, NotHeld

STALL_S = 10.0
LEAST_BYTES_S = 1 << 20
_ALIVE_S = 2.0
_WORK_S = 120.0  # in which a node may say nothing: it syncs and pins what it got, or looks for garbage
_SOCKETS = 16
_PIECE = 1 << 18
_LARGEST_ANSWER = 4 << 20
_LARGEST_BLOCK = 2 << 20
_LARGEST_QUOTED = 1 << 16
_MOST_QUOTED = 300

_MISSING = "could not find"
_CORRUPT = "different hash than requested"
_NOT_PINNED = "not pinned"


class Refused(ContentAway):
    """An answer other than 200: its status and what the node said."""

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"{what}: {status} {said}")
        self.status = status
        self.said = said


class Kubo:
    """A node. All methods raise ContentAway when it cannot be asked or fails; threads may share it."""

    def __init__(self, name: str, api: str, token: str, stall_s: float = STALL_S) -> None:
        self.name = name
        self._token = token
        self._stall_s = stall_s
        self._pool = urllib3.connection_from_url(api, maxsize=_SOCKETS, retries=False)
        self._api = api
        self.failed_s = float("-inf")  # monotonic; when it was away the last time

    def peer_id(self) -> str:
        """Its libp2p peer id; tells within two seconds that it is away."""
        return str(self._json(_call("id"), min(_ALIVE_S, self._stall_s)).get("ID"))

    def status_without_token(self) -> int:
        """The HTTP status that somebody gets who has no token."""
        try:
            self._whole(self._post(_call("id"), with_token=False), "id", _LARGEST_ANSWER)
        except Refused as error:
            return error.status
        return 200

    def peers(self) -> set[str]:
        """The peer ids that it is connected with."""
        return {str(each.get("Peer")) for each in self._json(_call("swarm/peers")).get("Peers") or ()}

    def add(self, roots: Sequence[str], blocks: Iterable[Block], size: int, pin: bool) -> None:
        """Write blocks, of about ``size`` bytes together, synced if the node is set so; replaces damaged ones. With
        ``pin``: pin roots with all under them, which must be there then. What ``blocks`` raises comes through.
        """
        call = _call("dag/import", pin_roots=_flag(pin), stats="false", fast_provide_root="false")
        until = self._until(size)
        body = self._in_time(car(roots, blocks), until, "dag/import")
        answer = self._post(call, body, wait_s=max(_WORK_S, self._stall_s))
        told = {}
        for line in self._lines(answer, "dag/import"):
            root = line.get("Root") or {}
            told[(root.get("Cid") or {}).get("/")] = root.get("PinErrorMsg")
        for root in roots if pin else ():
            if told.get(root, "it did not say so") != "":
                raise self._error("dag/import", f"{root} is not pinned: {told.get(root, 'the answer breaks off')}")

    def read(self, cid: str, offline: bool = True) -> Iterator[bytes]:
        """A file's bytes; ``offline``: from its own blocks only. The caller checks the CID.

        Raises NotHeld when a block is missing (or came from nobody in time), IntegrityError when one is corrupt,
        naming it, or when there are more or fewer bytes than it says.
        """
        with self._named(cid):
            answer = self._post(self._get("cat", cid, offline))
            until = self._until(length := int(answer.headers.get("X-Content-Length", -1)))
            got = 0
            for piece in self._pieces(answer, "cat", until):
                got += len(piece)
                yield piece
            if got != length:
                self._find_fault(cid)
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

    def pin(self, root: str, patience_s: float) -> None:
        """Pin a root with all under it, fetching what is missing from others; away when nothing more has come for
        ``patience_s`` seconds.
        """
        with self._post(_call("pin/add", arg=root, progress="true"), wait_s=patience_s) as answer:
            so_far, moved_s = -1, time.monotonic()
            for line in self._lines(answer, "pin/add"):
                if root in (line.get("Pins") or ()):
                    return
                if (progress := line.get("Progress", 0)) > so_far:
                    so_far, moved_s = progress, time.monotonic()
                elif time.monotonic() > moved_s + patience_s:
                    raise self._error("pin/add", f"{root}: nobody sent the rest of it in {patience_s:.0f} s")
        raise self._error("pin/add", f"{root} is not pinned: the answer breaks off")

    def unpin(self, root: str) -> None:
        """Unpin a root; nothing when it is not pinned."""
        try:
            self._json(_call("pin/rm", arg=root))
        except Refused as error:
            if _NOT_PINNED not in error.said:
                raise

    def remove(self, cid: str) -> None:
        """Delete a block that is not pinned; nothing when there is none."""
        if fault := self._json(_call("block/rm", arg=cid, force="true")).get("Error"):
            raise self._error("block/rm", f"{cid}: {fault}")

    def collect(self) -> None:
        """Delete all blocks that are not pinned."""
        for line in self._lines(self._post(_call("repo/gc"), wait_s=_WORK_S), "repo/gc"):
            if fault := line.get("Error"):
                raise self._error("repo/gc", str(fault))

    def held(self) -> Iterator[str]:
        """The CIDs of all its blocks, as raw ones whatever they are."""
        for line in self._lines(self._post(_call("refs/local"), wait_s=_WORK_S), "refs/local"):
            yield str(line.get("Ref"))

    def damaged(self, cid: str) -> list[str]:
        """The corrupt blocks of a file, or the block itself when it is."""
        corrupt = []
        for part in (cid, *self._below(cid)):
            try:
                self.block(part)
            except IntegrityError:
                corrupt.append(part)
            except NotHeld:
                continue
        return corrupt

    def _find_fault(self, cid: str) -> None:
        """Raise what is wrong with a block of a file whose body broke off; return when nothing is found."""
        for part in self._below(cid):
            self._block(part)

    def _block(self, cid: str, offline: bool = True) -> bytes:
        return self._whole(self._post(self._get("block/get", cid, offline)), "block/get", _LARGEST_BLOCK)

    def _below(self, cid: str) -> Iterator[str]:
        """The blocks that a file consists of, besides its root; below one that cannot be read nobody can look."""
        if is_tree(cid):
            with contextlib.suppress(NotHeld, IntegrityError):
                for child in children(self.block(cid)):
                    yield child
                    yield from self._below(child)

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

    def _get(self, command: str, cid: str, offline: bool) -> str:
        """A call for what ``cid`` names; blocks that nobody has are waited for almost as long as for an answer."""
        if offline:
            return _call(command, arg=cid, offline="true")
        return _call(command, arg=cid, timeout=f"{self._stall_s * 0.8:.3f}s")

    def _post(
        self, call: str, body: Iterator[bytes] | None = None, wait_s: float | None = None, with_token: bool = True
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body not yet read. ``wait_s``: in which it must begin, and go on."""
        command = call.partition("?")[0]
        headers = {"Authorization": f"Bearer {self._token}"} if with_token else {}
        if body is not None:
            boundary = secrets.token_hex(16)
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
            body = _form(body, boundary)
        with self._away(command):
            answer = self._pool.request(
                "POST",
                f"/api/v0/{call}",
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=self._stall_s, read=wait_s or self._stall_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        if answer.status != 200:
            said = _message(self._whole(answer, command, _LARGEST_ANSWER))
            raise Refused(f"{self.name} ({self._api}): {command}", answer.status, said)
        return answer

    def _json(self, call: str, wait_s: float | None = None) -> dict[str, Any]:
        answer = self._post(call, wait_s=wait_s)
        return self._parsed(self._whole(answer, call, _LARGEST_ANSWER), call)

    def _lines(self, answer: urllib3.BaseHTTPResponse, command: str) -> Iterator[dict[str, Any]]:
        """The JSON values of an answer, one a line, as they come."""
        rest = b""
        for piece in self._pieces(answer, command):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield self._parsed(line, command)
            if len(rest) > _LARGEST_ANSWER:
                raise self._error(command, f"a line of more than {_LARGEST_ANSWER} bytes")
        if rest:
            yield self._parsed(rest, command)

    def _parsed(self, data: bytes, command: str) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except ValueError as error:
            raise self._error(command, f"JSON expected, got {_message(data)!r}") from error
        return value if isinstance(value, dict) else {}

    def _whole(self, answer: urllib3.BaseHTTPResponse, command: str, most: int) -> bytes:
        data = bytearray()
        for piece in self._pieces(answer, command):
            data += piece
            if len(data) > most:
                raise self._error(command, f"an answer of more than {most} bytes")
        return bytes(data)

    def _pieces(
        self, answer: urllib3.BaseHTTPResponse, command: str, until: float = float("inf")
    ) -> Generator[bytes, None, None]:
        try:
            with self._away(command):
                while piece := answer.read1(_PIECE):  # what is there: `stream` waits for a whole piece
                    self._check_time(until, command)
                    yield piece
        finally:
            answer.close()  # what was read to its end has let go of its connection, which is used again

    def _in_time(self, pieces: Iterable[bytes], until: float, command: str) -> Iterator[bytes]:
        for piece in pieces:
            self._check_time(until, command)
            yield piece

    def _check_time(self, until: float, command: str) -> None:
        if time.monotonic() > until:
            raise self._error(command, f"is slower than {LEAST_BYTES_S} bytes a second")

    def _until(self, size: int) -> float:
        return time.monotonic() + self._stall_s + max(size, 0) / LEAST_BYTES_S

    @contextlib.contextmanager
    def _away(self, command: str) -> Iterator[None]:
        try:
            yield
        except HTTPError as error:
            self.failed_s = time.monotonic()
            raise self._error(command, _message(str(error).encode())) from error

    def _error(self, command: str, text: str) -> ContentAway:
        return ContentAway(f"{self.name} ({self._api}): {command.partition('?')[0]}: {text}")


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
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join([*held, f"\r\n--{boundary}--\r\n".encode()])


def _call(command: str, **options: str) -> str:
    return f"{command}?{urlencode({name.replace('_', '-'): value for name, value in options.items()})}"


def _message(data: bytes) -> str:
    """What an answer says is wrong, on one line."""
    text = data[:_LARGEST_QUOTED].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("Message", text))
    return " ".join(text.split())[:_MOST_QUOTED]


def _flag(value: bool) -> str:
    return "true" if value else "false"

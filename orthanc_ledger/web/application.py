"""Calls and answers of the HTTPS application (docs/keyfile.md, "Over HTTPS"), as an ASGI application.

Who calls is what its certificate says, asked of the ledger anew for each call. Nothing of a call is logged but how it
ended: neither headers nor bodies.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from orthanc_ledger.clock import Clock
from orthanc_ledger.content import cbor
from orthanc_ledger.errors import ContractError, IntegrityError, LedgerAway, ServiceAway, Unreadable
from orthanc_ledger.gate import Refused
from orthanc_ledger.key_file import KeyFile
from orthanc_ledger.key_release import Unfit
from orthanc_ledger.ledger import OpenLedger
from orthanc_ledger.ledger.bearer import bearer_of
from orthanc_ledger.reasons import Problem, Reason
from orthanc_ledger.web.body import Receive, read_body

LOGGER = logging.getLogger(__name__)

LARGEST_CALL = 4096
"""Bytes of a body: a public key and two ids are less than half."""
CERTIFICATE = "orthanc_ledger.certificate"
"""In the scope of a call: the client's certificate (DER), which TLS has verified."""

_WORKERS = 4
_CBOR = "application/cbor"
_PROBLEM = "application/problem+json"


class Keys(Protocol):
    """What answers: `key_release.KeyRelease`."""

    def studies(self, organisation: str, request_id: bytes) -> list[bytes]: ...

    def keys(self, organisation: str, request_id: bytes, study: bytes, public_key: bytes) -> KeyFile: ...


@dataclass(frozen=True)
class Answer:
    """An HTTP status, and a body with its media type."""

    status: int
    media_type: str
    body: bytes


class Application:
    """The ASGI application. Ledger and keys are asked in threads of its own."""

    def __init__(self, keys: Keys, ledger: OpenLedger, clock: Clock) -> None:
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._threads = ThreadPoolExecutor(_WORKERS, "web")
        self._calls: dict[str, Callable[[str, Mapping[str, bytes]], bytes]] = {
            "/v1/keys": self._give_keys,
            "/v1/studies": self._give_studies,
        }
        self._sizes = {
            "/v1/keys": {"request": 32, "study": 16, "publicKey": 1216},
            "/v1/studies": {"request": 32},
        }

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """ASGI 3."""
        body = await read_body(receive, LARGEST_CALL)
        answer = await asyncio.get_running_loop().run_in_executor(
            self._threads, self.answer, scope[CERTIFICATE], scope["method"], scope["path"], body
        )
        headers = [
            (b"content-type", answer.media_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def answer(self, certificate: bytes, method: str, path: str, body: bytes | None) -> Answer:
        """What a call is answered. ``body`` None: it was too large."""
        call = self._calls.get(path)
        if call is None or method != "POST":
            return _problem(404, Problem.NO_ADDRESS)
        if body is None:
            return _problem(413, Problem.TOO_LARGE)
        try:
            organisation = bearer_of(self._ledger, certificate, self._clock()).caller.organisation
        except ContractError:
            return _problem(403, Problem.CERTIFICATE)
        except ServiceAway as error:
            return _away(error)
        try:
            return Answer(200, _CBOR, call(organisation, _read(body, self._sizes[path])))
        except Refused as refused:
            return _problem(403, refused.reason)
        except Unfit as unfit:
            return _problem(403, unfit.problem)
        except Unreadable:
            return _problem(400, Problem.BAD_CALL)
        except ServiceAway as error:
            return _away(error)
        except Exception as error:  # an answer in any case; its text may hold what nobody but us may read
            LOGGER.error("%s: not answered: %s", path, type(error).__name__)
            LOGGER.debug("what it was", exc_info=error)
            return _problem(500, Problem.FAULT)

    def _give_keys(self, organisation: str, call: Mapping[str, bytes]) -> bytes:
        return self._keys.keys(organisation, call["request"], call["study"], call["publicKey"]).encode()

    def _give_studies(self, organisation: str, call: Mapping[str, bytes]) -> bytes:
        return cbor.encode({"studies": self._keys.studies(organisation, call["request"])})


def _read(body: bytes, sizes: Mapping[str, int]) -> Mapping[str, bytes]:
    """A call's fields: byte strings of these sizes. Raises Unreadable."""
    try:
        fields = cbor.decode(body)
    except IntegrityError as error:
        raise Unreadable("call: not dag-cbor") from error
    if not isinstance(fields, dict) or {
        name: len(value) if isinstance(value, bytes) else -1 for name, value in fields.items()
    } != dict(sizes):
        raise Unreadable("call: other fields than expected")
    return fields


def _away(error: ServiceAway) -> Answer:
    LOGGER.warning("a call could not be answered: %s", error)
    return _problem(503, Reason.LEDGER_UNAVAILABLE if isinstance(error, LedgerAway) else Problem.AWAY)


def _problem(status: int, title: Reason | Problem) -> Answer:
    """A refusal as RFC 9457 has it."""
    return Answer(status, _PROBLEM, json.dumps({"title": str(title), "status": status}).encode())

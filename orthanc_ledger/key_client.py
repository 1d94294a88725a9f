"""The research centre's side of the hospital's HTTPS application (docs/keyfile.md, "Over HTTPS")."""

import http.client
import json
import ssl
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from orthanc_ledger.content import cbor
from orthanc_ledger.errors import ConfigError, DataError, IntegrityError, ServiceAway
from orthanc_ledger.key_file import LARGEST
from orthanc_ledger.ledger.identity import tls_files
from orthanc_ledger.reasons import Problem, Reason
from orthanc_ledger.sinks import ended_after

DEADLINE_S = 120.0
"""Of a call: the hospital commits a release before it answers."""

_TEXTS = {*map(str, Reason), *map(str, Problem)}


class Denied(DataError):
    """The hospital gives nothing; it says why by one of the fixed texts."""


class KeyClient:
    """Calls one hospital. No proxy is asked, no redirect followed; TLS 1.3."""

    def __init__(self, url: str, identity: Path, authorities: Iterable[bytes], deadline_s: float = DEADLINE_S) -> None:
        """``identity``: as `load_identity` takes it; ``authorities``: CA certificates (DER) of the hospital's server.

        Raises ConfigError.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ConfigError(f"--hospital {url!r}: expected https://HOST:PORT")
        self._url, self._host, self._port = url, parts.hostname, parts.port
        self._deadline_s = deadline_s
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(*tls_files(identity))
        for certificate in authorities:
            self._context.load_verify_locations(cadata=certificate)

    def studies(self, request: bytes) -> list[bytes]:
        """Tokens of what the hospital's node holds of a request's studies. Raises as `keys`."""
        answer = self._call("/v1/studies", {"request": request})
        try:
            studies = cbor.decode(answer)["studies"]
            if all(type(study) is bytes and len(study) == 16 for study in studies):
                return list(studies)
        except (IntegrityError, LookupError, TypeError) as error:
            raise DataError(f"{self._url}: expected a list of studies") from error
        raise DataError(f"{self._url}: expected a list of studies")

    def keys(self, request: bytes, study: bytes, public_key: bytes) -> bytes:
        """A key file, not checked at all.

        Raises Denied; ConfigError: one side does not accept the other's certificate; ServiceAway; DataError: no answer
        of such an application.
        """
        return self._call("/v1/keys", {"request": request, "study": study, "publicKey": public_key})

    def _call(self, path: str, call: Mapping[str, bytes]) -> bytes:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._deadline_s, context=self._context
        )
        with closing(connection):
            try:
                connection.connect()
                with ended_after(self._deadline_s, connection.sock):
                    connection.request("POST", path, cbor.encode(dict(call)), {"Content-Type": "application/cbor"})
                    response = connection.getresponse()
                    body = response.read(LARGEST + 1)
            except ssl.SSLCertVerificationError as error:
                raise ConfigError(
                    f"{self._url}: its certificate is not the hospital's ({error.verify_message}): check the address; "
                    "--ca names another CA than the ledger's"
                ) from error
            except ssl.SSLError as error:
                raise ConfigError(
                    f"{self._url}: it does not accept this identity's certificate: {error.reason}"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise ServiceAway(
                    f"{self._url}: no answer: {str(error)!a} (or it does not accept this identity's certificate)"
                ) from error
        if response.length or len(body) > LARGEST:
            raise ServiceAway(f"{self._url}: the answer broke off, or is larger than {LARGEST} bytes")
        if response.status == http.client.OK:
            return body
        return self._refused(response.status, body)

    def _refused(self, status: int, body: bytes) -> bytes:
        try:
            title = json.loads(body)["title"]
        except (ValueError, LookupError, TypeError, RecursionError):
            title = None
        told = title if title in _TEXTS else f"HTTP status {status}"
        if status == http.client.SERVICE_UNAVAILABLE:
            raise ServiceAway(f"{self._url}: {told}")
        raise Denied(f"{self._url}: refused: {told}")

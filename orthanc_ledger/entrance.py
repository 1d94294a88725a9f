"""How the node's own calls get into its Orthanc: the plugin keeps it in data_dir at each of Orthanc's starts, and
whoever asks Orthanc reads it.
"""

import base64
import json
import ssl
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from orthanc_ledger.durable import write_over
from orthanc_ledger.errors import ConfigError, ServiceAway

SECRET_HEADER = "Ledger-Secret"


@dataclass(frozen=True)
class Entrance:
    """Where Orthanc answers, and what it takes to be let in.

    ``url``: scheme, loopback address and port. ``user`` and ``password``: of Orthanc's "RegisteredUsers". ``secret``:
    of this run of Orthanc, hexadecimal. ``certificate``: the PEM file of Orthanc's own certificate, the only one that
    counts; None where Orthanc speaks plain HTTP.
    """

    url: str
    user: str
    password: str = field(repr=False)
    secret: str = field(repr=False)
    certificate: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What each request has to carry."""
        return {"Authorization": credentials(self.user, self.password), SECRET_HEADER: self.secret}

    def connection(self, timeout_s: float) -> HTTPConnection:
        """A connection, made with the first request. Raises ConfigError when the certificate cannot be read."""
        place = urlsplit(self.url)
        if self.certificate is None:
            return HTTPConnection(str(place.hostname), place.port, timeout=timeout_s)
        return HTTPSConnection(str(place.hostname), place.port, timeout=timeout_s, context=_pinned(self.certificate))


def credentials(user: str, password: str) -> str:
    """The header Authorization of a user (RFC 7617 2, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def keep(path: Path, entrance: Entrance) -> None:
    """Keep it for others of the same user, in the place of an earlier run's. Raises OSError."""
    write_over(path, json.dumps(asdict(entrance)).encode())


def read(path: Path) -> Entrance:
    """What the plugin kept.

    Raises ServiceAway when Orthanc was never started with the plugin, ConfigError when the file is another's.
    """
    try:
        return Entrance(**json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ServiceAway(f"{path}: missing: Orthanc was not started with the plugin yet") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): run this as the user who runs Orthanc"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not as the plugin writes it: start Orthanc again") from error


def _pinned(certificate: str) -> ssl.SSLContext:
    """TLS with whoever shows this certificate, or one that is issued under it: names do not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f'{certificate}: "SslCertificate" of Orthanc cannot be read: {error}') from error
    return context

"""Who may ask Orthanc anything over HTTP: hospital staff and the node itself. Everybody else is research, and gets no
route at all.
"""

import base64
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """Who is let in. ``staff``: Orthanc's users of the house; ``own``: the one as whom the node asks, which counts with
    ``secret`` and from this machine only.
    """

    staff: frozenset[str]
    own: str
    secret: str = field(repr=False)

    def admits(self, user: str | None, address: str, secret: str) -> bool:
        """Whether a request is answered. ``address``: the IP address it comes from; ``secret``: as its header has it,
        empty without one.
        """
        if user in self.staff:
            return True
        known = hmac.compare_digest(secret.encode(), self.secret.encode())
        return known and user == self.own and _is_loopback(address)


def user_of(headers: Mapping[str, str]) -> str | None:
    """The user whom a request's credentials name (RFC 7617 2, UTF-8); None when they name nobody.

    Whether the password is right is Orthanc's to say. ``headers``: names in lower case.
    """
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    try:
        credentials = base64.b64decode(encoded, validate=True)
        user, colon, _ = credentials.decode().partition(":")
    except ValueError:
        return None
    return user if scheme == "Basic" and colon and base64.b64encode(credentials).decode() == encoded else None


def _is_loopback(address: str) -> bool:
    """Whether an IP address is this machine's own (127.0.0.0/8, ::1, and the former within IPv6: RFC 4291 2.5.5.2)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback

"""Who may ask Orthanc anything over HTTP: hospital staff and the node itself. Everybody else is research, and gets no
route at all.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """Who is let in. ``users``: Orthanc's, each with its header Authorization; ``staff``: those of the house; ``own``:
    the one as whom the node asks, which counts with ``secret`` and from this machine only.
    """

    users: Mapping[str, str] = field(repr=False)
    staff: frozenset[str]
    own: str
    secret: str = field(repr=False)

    def user(self, authorization: str) -> str | None:
        """The user whose name and password a header Authorization has, in Orthanc's own spelling; None: nobody's.

        Orthanc has compared them before, but need not have where another plugin lets callers in by its own rules.
        """
        asked = authorization.encode()
        return next((user for user, own in self.users.items() if hmac.compare_digest(asked, own.encode())), None)

    def admits(self, user: str | None, address: str, secret: str) -> bool:
        """Whether a request is answered. ``address``: the IP address it comes from; ``secret``: as its header has it,
        empty without one.
        """
        if user in self.staff:
            return True
        known = hmac.compare_digest(secret.encode(), self.secret.encode())
        return known and user == self.own and _is_loopback(address)


def _is_loopback(address: str) -> bool:
    """Whether an IP address is this machine's own (127.0.0.0/8, ::1, and the former within IPv6: RFC 4291 2.5.5.2)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback

"""What a page is given, and how pages are found."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orthanc_ledger.web.console.accounts import Account, Role
from orthanc_ledger.web.console.house import House
from orthanc_ledger.web.console.http import Request, Response
from orthanc_ledger.web.console.sessions import Session
from orthanc_ledger.web.console.throttle import Throttle


@dataclass(frozen=True)
class Visit:
    """One request of somebody who is logged in. ``wrong``: counts passwords that were not, by account."""

    request: Request
    house: House
    session: Session
    wrong: Throttle

    @property
    def account(self) -> Account:
        """Who it is."""
        return self.session.account


Handler = Callable[[Visit, Mapping[str, str]], Response]


@dataclass(frozen=True)
class Route:
    """A page: method, path (parts by name), who may see it (None: whoever is logged in), and what answers. ``of_node``:
    only where there is a node.
    """

    method: str
    path: "re.Pattern[str]"
    role: Role | None
    answer: Handler
    of_node: bool = False


def route(method: str, path: str, role: Role | None, answer: Handler, of_node: bool = False) -> Route:
    """A route; in its path stand ``{uid}`` and ``{series}`` for UIDs, ``{id}`` for hexadecimal digits, ``{unit}`` for a
    unit of quarantine or conflict queue, ``{action}`` for what is done about a request.
    """
    for name, pattern in _PARTS.items():
        path = path.replace(f"{{{name}}}", f"(?P<{name}>{pattern})")
    return Route(method, re.compile(path), role, answer, of_node)


_PARTS = {
    "uid": "[0-9.]{1,64}",
    "series": "[0-9.]{1,64}",
    "id": "(?:[0-9a-f]{2}){1,64}",
    "action": "approve|deny|revoke",
    "unit": r"[0-9a-f]{64}\.[0-9a-z]{1,16}",
}

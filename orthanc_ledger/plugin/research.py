"""Which application entities and machines are research's, by the node's peers: no list of Orthanc's may lead there, as
Orthanc sends without asking anybody.
"""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from orthanc_ledger.peer import Peer

Place = tuple[str, str, int]
"""AE title, host and port of a DICOM service."""


class Research:
    """The node's research peers; ``destinations`` are those that it can send to. AE titles are compared without regard
    to case, as Orthanc does.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._by_title = {peer.ae_title.upper(): peer for peer in peers}
        self.peers = tuple(peer for peer in peers if peer.role == "research")
        self.destinations = tuple(peer for peer in self.peers if peer.host)
        self._hosts = {host for peer in self.peers for host in (peer.host, *peer.hosts) if host}

    def peer(self, title: str) -> Peer | None:
        """The research peer of an AE title; None when it is no research peer's."""
        peer = self._by_title.get(title.strip().upper())
        return peer if peer is not None and peer.role == "research" else None

    def is_place(self, place: Place) -> bool:
        """Whether a DICOM service is research's: by its AE title, by host and port, or by its host alone, unless the
        node knows the AE title as a clinical one. Everything on this machine shares a host, which then says nothing.
        """
        title, host, port = place
        machines = _machines(host)
        at_port = {peer.host for peer in self.peers if peer.host and peer.port == port}
        if self.peer(title) is not None or any(not machines.isdisjoint(_machines(host)) for host in at_port):
            return True
        return title.strip().upper() not in self._by_title and self._has_any(machines)

    def is_machine(self, url: str) -> bool:
        """Whether an HTTP address is on a machine of research's."""
        host = urlsplit(url if "//" in url else f"//{url}").hostname
        return host is not None and self._has_any(_machines(host))

    def _has_any(self, machines: set[str]) -> bool:
        """Whether one of these is research's, as its hosts are found now."""
        found = (_machines(host) for host in self._hosts)
        return any(not each.isdisjoint(machines) for each in found if not any(map(_is_here, each)))


def modality_place(entry: Any) -> Place:
    """The place that an entry of "DicomModalities" leads to (Orthanc Book, "Configuration"): a list or an object."""
    if isinstance(entry, Mapping):
        return str(entry.get("AET", "")), str(entry.get("Host", "")), _port(entry.get("Port"))
    title, host, port = (*entry, "", "", "")[:3]
    return str(title), str(host), _port(port)


def server_url(entry: Any) -> str:
    """The address in an entry of "OrthancPeers" or of DICOMweb's "Servers": a list or an object."""
    if isinstance(entry, Mapping):
        return str(entry.get("Url", ""))
    return str((*entry, "")[0])


def _port(raw: Any) -> int:
    try:
        return int(raw)
    except (TypeError, ValueError):
        return 0


def _machines(host: str) -> set[str]:
    """A host and its IP addresses, as far as they are found now, so that a name and each of its addresses are one. What
    follows a colon or a space in an IPv4 host is left out, as DCMTK reads it.
    """
    words = host.split() or [""]
    name = words[0].partition(":")[0] if words[0].count(":") == 1 else words[0]
    try:
        found = {row[4][0] for row in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        addresses = [ipaddress.ip_address(str(each).partition("%")[0]) for each in found]
    except (OSError, ValueError):
        return {name.lower()}
    return {name.lower(), *(str(getattr(address, "ipv4_mapped", None) or address) for address in addresses)}


def _is_here(machine: str) -> bool:
    try:
        return ipaddress.ip_address(machine).is_loopback
    except ValueError:
        return False

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
        research = [peer for peer in peers if peer.role == "research"]
        self._places = {(_machine(peer.host), peer.port) for peer in research if peer.host}
        hosts = {host for peer in research for host in (peer.host, *peer.hosts) if host}
        self._machines = {machine for machine in map(_machine, hosts) if not _is_here(machine)}
        self.peers = tuple(research)
        self.destinations = tuple(peer for peer in research if peer.host)

    def peer(self, title: str) -> Peer | None:
        """The research peer of an AE title; None when it is no research peer's."""
        peer = self._by_title.get(title.strip().upper())
        return peer if peer is not None and peer.role == "research" else None

    def is_place(self, place: Place) -> bool:
        """Whether a DICOM service is research's: by its AE title, by host and port, or by its host alone, unless the
        node knows the AE title as a clinical one. Everything on this machine shares a host, which then says nothing.
        """
        title, host, port = place
        if self.peer(title) is not None or (_machine(host), port) in self._places:
            return True
        return title.strip().upper() not in self._by_title and _machine(host) in self._machines

    def is_machine(self, url: str) -> bool:
        """Whether an HTTP address is on a machine of research's."""
        host = urlsplit(url if "//" in url else f"//{url}").hostname
        return host is not None and _machine(host) in self._machines


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


def _machine(host: str) -> str:
    """A host's IP address, so that a name and its address are one; a name that is not known now stays a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        address = ipaddress.ip_address(str(found).partition("%")[0])
    except (OSError, ValueError):
        return host.lower()
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_here(machine: str) -> bool:
    try:
        return ipaddress.ip_address(machine).is_loopback
    except ValueError:
        return False

"""The connection file: which channel and chaincode, which peers of one's own, whose certificates to believe."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.fabric.authorities import check_trial_authority
from orthanc_ledger.ledger.identity import parse_certificate, read_certificate
from orthanc_ledger.yaml_file import Keys, read_yaml


@dataclass(frozen=True)
class OwnPeer:
    """A peer of one's own organisation, whose Gateway service may be asked."""

    endpoint: str  # HOST:PORT
    tls_ca: bytes  # CA certificate of its TLS, PEM
    server_name: str | None = None  # in its TLS certificate, where that does not name the endpoint's host


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a request may take, all own peers tried together."""

    endorse_s: float = 10.0
    submit_s: float = 10.0
    commit_s: float = 5.0
    evaluate_s: float = 10.0


@dataclass(frozen=True)
class Connection:
    """A channel as one organisation's machine reaches it."""

    channel: str
    chaincode: str
    organisation: str  # MSP ID of who uses this file, and runs these peers
    peers: tuple[OwnPeer, ...]  # alternatives, in this order
    organisations: Mapping[str, bytes]  # MSP ID to CA certificate, DER
    envelopes: Path
    identity: Path | None = None  # who asks where the caller names nobody
    deadlines: Deadlines = Deadlines()
    in_flight: int = 100  # requests at once; a peer takes 500 of all its clients together


def read_connection(path: Path) -> Connection:
    """Read a connection file (YAML; relative paths count from its folder).

    Raises ConfigError naming file and key when it is missing, is not YAML, has an unknown, missing or mistyped key, or
    names a certificate that cannot be read or is of a trial network, with a peer elsewhere (`check_trial_authority`),
    or an `organisation` that is not among `organisations`.
    """
    raw = read_yaml(path, "name the channel's connection file")
    deadlines = {each.name for each in fields(Deadlines)}
    keys = Keys(
        path,
        "",
        raw,
        {"channel", "chaincode", "organisation", "peers", "organisations"},
        {"envelopes", "identity", "in_flight", *deadlines},
    )
    connection = Connection(
        keys.text("channel"),
        keys.text("chaincode"),
        keys.text("organisation"),
        tuple(_own_peer(path, number, peer) for number, peer in enumerate(keys.filled("peers", list))),
        _organisations(path, keys.filled("organisations", dict)),
        path.parent / (keys.text("envelopes") if "envelopes" in raw else f"{path.stem}.envelopes.db"),
        path.parent / keys.text("identity") if "identity" in raw else None,
        Deadlines(**{name: keys.positive(name, float) for name in sorted(deadlines & raw.keys())}),
        keys.positive("in_flight", int) if "in_flight" in raw else Connection.in_flight,
    )
    if connection.organisation not in connection.organisations:
        raise ConfigError(
            f"{path}: organisation: expected one of `organisations` ({', '.join(connection.organisations)}), "
            f"got {connection.organisation!r}"
        )
    _check_authorities(connection)
    return connection


def _own_peer(path: Path, number: int, raw: Any) -> OwnPeer:
    keys = Keys(path, f"peers[{number}].", raw, {"endpoint", "tls_ca"}, {"server_name"})
    endpoint = keys.text("endpoint")
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{path}: peers[{number}].endpoint: expected HOST:PORT, got {endpoint!r}")
    certificate = read_certificate(path.parent / keys.text("tls_ca")).public_bytes(Encoding.PEM)
    return OwnPeer(endpoint, certificate, keys.text("server_name") if "server_name" in raw else None)


def _organisations(path: Path, raw: dict[Any, Any]) -> dict[str, bytes]:
    keys = Keys(path, "organisations.", raw, set(raw), set())
    return {
        msp_id: read_certificate(path.parent / keys.text(msp_id)).public_bytes(Encoding.DER) for msp_id in sorted(raw)
    }


def _check_authorities(connection: Connection) -> None:
    organisations = [parse_certificate(der) for der in connection.organisations.values()]
    for peer in connection.peers:
        for certificate in (load_pem_x509_certificate(peer.tls_ca), *organisations):
            check_trial_authority(certificate, peer.endpoint)

"""Who signed what: certificates against the CAs of a ledger's organisations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from orthanc_ledger.errors import ConfigError, ContractError, Unreadable
from orthanc_ledger.ledger.contract.call import Caller, Value
from orthanc_ledger.ledger.identity import ATTRIBUTES, ECDSA_SHA256, parse_certificate, serial_of

REMEMBERED = 1024
"""Certificates, so that each is not parsed and verified again for every entry it signed."""


@dataclass(frozen=True)
class Member:
    """A certificate that an organisation's CA issued."""

    caller: Caller
    key: ec.EllipticCurvePublicKey
    valid_from: int
    valid_until: int  # inclusive, as RFC 5280 4.1.2.5

    def valid_at(self, time: int) -> bool:
        """Whether certificate and CA were valid (UTC seconds)."""
        return self.valid_from <= time <= self.valid_until

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises ContractError NOT_PERMITTED `signature` when the certificate's key did not sign the message."""
        try:
            self.key.verify(signature, message, ECDSA_SHA256)
        except InvalidSignature as error:
            raise ContractError(
                "NOT_PERMITTED", "signature", "not made by the certificate's key over these bytes"
            ) from error


class Members:
    """The organisations of a ledger, by their CA certificates: who signed what."""

    def __init__(self, ca_certificates: Mapping[str, bytes]) -> None:
        """`ca_certificates`: MSP ID to DER. Raises ConfigError when one is no CA's, or two share a subject."""
        self._cas = {msp_id: _parse_ca(msp_id, der) for msp_id, der in ca_certificates.items()}
        if len({ca.subject for ca in self._cas.values()}) < len(self._cas):
            raise ConfigError("two organisations have CA certificates with the same subject: make each its own CA")
        self._known: dict[bytes, Member] = {}

    def verify(self, certificate: bytes, signature: bytes, message: bytes, time: int) -> Caller:
        """Who signed the message.

        Raises ContractError NOT_PERMITTED `certificate` as `identify`, or when it (or its CA) was not valid at `time`
        (UTC seconds); NOT_PERMITTED `signature` when it does not sign the message.
        """
        member = self.identify(certificate)
        if not member.valid_at(time):
            raise _refused(f"valid from {member.valid_from} to {member.valid_until}, used at {time}: issue a new one")
        member.verify(signature, message)
        return member.caller

    def identify(self, certificate: bytes) -> Member:
        """Whose certificate (DER) it is.

        Raises ContractError NOT_PERMITTED `certificate` when none of the CAs issued it, or it has no kind.
        """
        member = self._known.get(certificate)
        if member is None:
            if len(self._known) == REMEMBERED:
                self._known.clear()
            member = self._known[certificate] = self._identify(certificate)
        return member

    def _identify(self, der: bytes) -> Member:
        try:
            certificate = parse_certificate(der)
        except Unreadable as error:
            raise _refused(str(error)) from error
        for msp_id, ca in self._cas.items():
            if ca.subject == certificate.issuer:
                return _member(msp_id, certificate, ca)
        issuer = certificate.issuer.rfc4514_string()
        raise _refused(f"issued by {issuer!a}, not under {' or '.join(self._cas)}")


class Membership:
    """A ledger's members under each of its policies: an organisation's CA is the policy's, else the genesis'."""

    def __init__(self, genesis: Mapping[str, bytes]) -> None:
        """`genesis`: MSP ID to CA certificate, DER. Raises ConfigError as `Members`."""
        self._genesis = genesis
        self._certificates: Mapping[str, bytes] = {}
        self._members = Members(genesis)

    def under(self, policy: Mapping[str, Value] | None) -> Members:
        """The members under a policy; None: before there is one.

        Raises ConfigError when its `certificates` do not fit: admission lets no such policy in.
        """
        certificates: Mapping[str, bytes] = (policy or {}).get("certificates", {})
        if certificates != self._certificates:
            self._members, self._certificates = Members({**self._genesis, **certificates}), certificates
        return self._members


def _member(msp_id: str, certificate: x509.Certificate, ca: x509.Certificate) -> Member:
    try:
        certificate.verify_directly_issued_by(ca)
        attributes = certificate.extensions.get_extension_for_oid(ATTRIBUTES).value
        key = certificate.public_key()
        kind = (
            json.loads(attributes.value)["attrs"]["kind"]
            if isinstance(attributes, x509.UnrecognizedExtension)
            else None
        )
        valid_from = max(_seconds(certificate.not_valid_before_utc), _seconds(ca.not_valid_before_utc))
        valid_until = min(_seconds(certificate.not_valid_after_utc), _seconds(ca.not_valid_after_utc))
    except (
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.ExtensionNotFound,
    ) as error:
        raise _refused(f"not issued under {msp_id} with a kind") from error
    if kind not in ("person", "node") or not isinstance(key, ec.EllipticCurvePublicKey):
        raise _refused(f"expected an EC certificate of kind person or node, got kind {kind!r}")
    return Member(Caller(msp_id, kind, serial_of(certificate)), key, valid_from, valid_until)


def _refused(detail: str) -> ContractError:
    return ContractError("NOT_PERMITTED", "certificate", detail)


def _parse_ca(msp_id: str, der: bytes) -> x509.Certificate:
    try:
        certificate = parse_certificate(der)
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return certificate
    except (Unreadable, x509.ExtensionNotFound) as error:
        raise ConfigError(f"organisation {msp_id}: not a CA certificate in DER") from error
    raise ConfigError(f"organisation {msp_id}: expected a CA certificate, got an end-entity certificate")


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())

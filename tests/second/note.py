"""docs/checkpoint.md, read again: notes signed by one key or two, and the certificates they need."""

import base64
import json
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KIND = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")


def certificate(name, issuer_name, key, issuer_key, ca):
    """A CA's certificate, or a node's that it issued."""
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, issuer_name)]
    builder = x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if not ca:
        attributes = json.dumps({"attrs": {"kind": "node"}}).encode()
        builder = builder.add_extension(x509.UnrecognizedExtension(KIND, attributes), critical=False)
    return builder.sign(issuer_key, SHA256())


class Organisation:
    """A CA, and a node with both keys."""

    def __init__(self, name: str) -> None:
        self._ca_key, self.key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
        self.ca = certificate(f"ca.{name}", f"ca.{name}", self._ca_key, self._ca_key, ca=True)
        self.node = certificate(f"node.{name}", f"ca.{name}", self.key, self._ca_key, ca=False)
        self.second = MLDSA65PrivateKey.generate()

    def trust(self, *keys: MLDSA65PrivateKey) -> str:
        """The trust file that pins these keys."""
        pem = [self.ca.public_bytes(Encoding.PEM)]
        pem += [key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys]
        return b"".join(pem).decode()


def text_of(organisation: Organisation, log: bytes, size: int, root: bytes, time: int) -> str:
    """Lines 1 to 5."""
    der = organisation.node.public_bytes(Encoding.DER)
    return (
        f"orthanc-ledger/{log.hex()}\n{size}\n{base64.b64encode(root).decode()}\ntime {time}\n"
        f"certificate {base64.b64encode(der).decode()}\n"
    )


def ecdsa_line(text: str, key: EllipticCurvePrivateKey) -> str:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _line(text.split("\n")[0], sha256(spki).digest()[:4], key.sign(text.encode(), ECDSA(SHA256())))


def ml_dsa_line(text: str, key: MLDSA65PrivateKey, name: str | None = None) -> str:
    origin = name or text.split("\n")[0]
    named = origin.encode() + b"\x0a" + b"\xff" + b"orthanc-ledger ML-DSA-65" + key.public_key().public_bytes_raw()
    return _line(origin, sha256(named).digest()[:4], key.sign(text.encode()))


def _line(name: str, key_id: bytes, signature: bytes) -> str:
    return f"\u2014 {name} {base64.b64encode(key_id + signature).decode()}\n"

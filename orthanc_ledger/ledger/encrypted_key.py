"""Private keys under a passphrase: PKCS #8 with PBES2, scrypt and AES-256-CBC (RFC 5958, RFC 8018 6.2, RFC 7914 7).

The cryptography package reads this form and OpenSSL makes it, but the package itself writes another: PBKDF2 with 2,048
rounds, which a stolen file does not withstand for long.
"""

import secrets
from base64 import b64encode
from textwrap import wrap

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orthanc_ledger.password import COST, stretched

_SALT, _BLOCK = 16, 16
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
# Object identifiers, in DER.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")  # 1.2.840.113549.1.5.13
_SCRYPT = bytes.fromhex("06092b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11
_AES_256_CBC = bytes.fromhex("060960864801650304012a")  # 2.16.840.1.101.3.4.1.42

HEADER = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
"""A file's first line (RFC 7468 11)."""
_END = b"-----END ENCRYPTED PRIVATE KEY-----"


def encrypted(key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> bytes:
    """The key in PEM; `load_pem_private_key` opens it."""
    salt, vector = secrets.token_bytes(_SALT), secrets.token_bytes(_BLOCK)
    padder = padding.PKCS7(_BLOCK * 8).padder()
    plain = padder.update(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())) + padder.finalize()
    cipher = Cipher(algorithms.AES(stretched(passphrase, salt)), modes.CBC(vector)).encryptor()
    costs = b"".join(_integer(COST[name]) for name in ("n", "r", "p"))
    derivation = _der(_SEQUENCE, _SCRYPT, _der(_SEQUENCE, _der(_OCTETS, salt), costs))
    scheme = _der(_SEQUENCE, _AES_256_CBC, _der(_OCTETS, vector))
    algorithm = _der(_SEQUENCE, _PBES2, _der(_SEQUENCE, derivation, scheme))
    content = _der(_SEQUENCE, algorithm, _der(_OCTETS, cipher.update(plain) + cipher.finalize()))
    return b"\n".join((HEADER, *(line.encode() for line in wrap(b64encode(content).decode(), 64)), _END, b""))


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _der(tag: int, *parts: bytes) -> bytes:
    """Tag, length, content (X.690 8.1)."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content

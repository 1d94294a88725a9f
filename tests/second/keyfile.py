"""Key files of `docs/keyfile.md`: X-Wing and HPKE written out over X25519, ML-KEM, SHA-3, HKDF and AES-GCM."""

import hmac
from hashlib import sha3_256, sha256, shake_256

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_der_x509_certificate

from tests.second.keys import text
from tests.second.manifest import Value, encode

SUITE = b"HPKE" + bytes.fromhex("647a 0001 0002")
XWING = bytes.fromhex("5c2e2f2f5e5c")


def private(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Both private keys of a seed."""
    wide = shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(wide[:64]), X25519PrivateKey.from_private_bytes(wide[64:])


def public(seed: bytes) -> bytes:
    """The 1,216 bytes of the public key."""
    lattice, curve = private(seed)
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def decapsulate(seed: bytes, encapsulated: bytes) -> bytes:
    """X-Wing's shared secret."""
    lattice, curve = private(seed)
    theirs = encapsulated[1088:]
    shared = curve.exchange(X25519PublicKey.from_public_bytes(theirs))
    own = curve.public_key().public_bytes_raw()
    return sha3_256(lattice.decapsulate(encapsulated[:1088]) + shared + theirs + own + XWING).digest()


def encapsulate(recipient: bytes) -> tuple[bytes, bytes]:
    """X-Wing's shared secret and encapsulated key, from fresh randomness."""
    secret, ciphertext = MLKEM768PublicKey.from_public_bytes(recipient[:1184]).encapsulate()
    once = X25519PrivateKey.generate()
    theirs, own = recipient[1184:], once.public_key().public_bytes_raw()
    shared = once.exchange(X25519PublicKey.from_public_bytes(theirs))
    return sha3_256(secret + shared + own + theirs + XWING).digest(), ciphertext + own


def labeled_extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """RFC 9180 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + ikm, "sha256")


def labeled_expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180 4; one block suffices for 32 bytes."""
    named = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info
    return hmac.digest(prk, named + b"\x01", "sha256")[:length]


def key_and_nonce(shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180 5.1, base mode."""
    context = b"\0" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared_secret, b"secret", b"")
    return labeled_expand(secret, b"key", context, 32), labeled_expand(secret, b"base_nonce", context, 12)


def info(release: bytes, recipient: bytes) -> bytes:
    """HPKE's info."""
    return text("keyfile/v1") + release + sha256(recipient).digest()


def seal(recipient: bytes, release: bytes, plain: bytes) -> bytes:
    """What stands under `sealed`."""
    shared, encapsulated = encapsulate(recipient)
    key, nonce = key_and_nonce(shared, info(release, recipient))
    return encapsulated + AESGCM(key).encrypt(nonce, plain, b"")


def unseal(seed: bytes, release: bytes, sealed: bytes) -> bytes:
    """What was sealed."""
    key, nonce = key_and_nonce(decapsulate(seed, sealed[:1120]), info(release, public(seed)))
    return AESGCM(key).decrypt(nonce, sealed[1120:], b"")


def make(
    recipient: bytes, release: bytes, content: dict[str, Value], signer: ec.EllipticCurvePrivateKey, certificate: bytes
) -> bytes:
    """A key file."""
    sealed = seal(recipient, release, encode(content))
    fields: dict[str, Value] = {"v": 1, "release": release, "recipient": sha256(recipient).digest()}
    fields |= {"sealed": sealed, "certificate": certificate}
    signature = signer.sign(text("keyfile/v1") + encode(fields), ec.ECDSA(SHA256()))
    return encode(fields | {"signature": signature})


def check_signature(file: dict[str, Value]) -> None:
    """Raises InvalidSignature."""
    fields = {name: value for name, value in file.items() if name != "signature"}
    key = load_der_x509_certificate(file["certificate"]).public_key()
    key.verify(file["signature"], text("keyfile/v1") + encode(fields), ec.ECDSA(SHA256()))

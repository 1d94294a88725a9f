"""Keys and tokens of `docs/manifest.md`; HKDF written out from RFC 5869."""

import hmac


def text(value: str) -> bytes:
    """`str(x)` of the notation: u16 length and ASCII."""
    raw = value.encode("ascii")
    return len(raw).to_bytes(2, "big") + raw


def uid(value: str) -> bytes:
    """A UID as a `str`, without trailing NUL or space."""
    return text(value.rstrip("\0 "))


def mac(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA-256 over the parts joined."""
    return hmac.digest(key, b"".join(parts), "sha256")


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869 2.2 and 2.3); an empty salt is 32 zero bytes."""
    prk = mac(salt or bytes(32), ikm)
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = mac(prk, block, info, bytes([counter]))
        out, counter = out + block, counter + 1
    return out[:length]


def study_row(k_lookup: bytes, study_uid: str) -> bytes:
    """The name of a study's row."""
    return mac(k_lookup, text("study"), uid(study_uid))


def erased_mark(k_lookup: bytes, study_uid: str) -> bytes:
    """What stays of an erased study."""
    return mac(k_lookup, text("erased"), uid(study_uid))


def claim_name(k_lookup: bytes, sop_uid: str) -> str:
    """The spool's file name for an instance."""
    return mac(k_lookup, text("sop"), uid(sop_uid)).hex()


def instance_token(k_study: bytes, sop_uid: str) -> bytes:
    """What ledger and manifest call an instance."""
    return mac(k_study, text("instance/v1"), uid(sop_uid))


def content_id(k_study: bytes, fingerprint: bytes) -> bytes:
    """Equal for equal content within a study; from the unsalted fingerprint."""
    return mac(k_study, text("content/v1"), fingerprint)


def seal_key(batch_key: bytes, token: bytes) -> bytes:
    """The key material an object is sealed with."""
    return hkdf(batch_key, b"", text("object/v1") + token, 32)


def salt_key(batch_key: bytes, token: bytes) -> bytes:
    """The key of an object's leaf salts."""
    return hkdf(batch_key, b"", text("salt/v1") + token, 32)


def keyed_digest(salting: bytes, sha256: bytes) -> bytes:
    """The record's digest of a data set as received."""
    return mac(salting, text("digest/v1"), sha256)


def seen(k_study: bytes, sha256: bytes) -> bytes:
    """What `observed` and `presented` say of a data set."""
    return mac(k_study, text("seen/v1"), sha256)

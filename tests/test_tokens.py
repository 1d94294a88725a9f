"""Derivations spelled out byte by byte from docs/manifest.md; HKDF by RFC 5869 in its two steps of HMAC."""

import hmac
from collections.abc import Callable

import pytest

from orthanc_ledger import tokens
from orthanc_ledger.errors import DataError

KEY = bytes(range(32))
DIGEST = bytes(range(32, 64))
STUDY_TOKEN = bytes(range(64, 80))
UID = "1.2.840.113619.2.1"
UID_LABEL = b"\x00\x12" + b"1.2.840.113619.2.1"

BY_UID: dict[str, Callable[[bytes, str], bytes]] = {
    "study": tokens.study_row,
    "erased": tokens.erased_mark,
    "instance/v1": tokens.instance_token,
    "sop": lambda key, uid: bytes.fromhex(tokens.claim_name(key, uid)),
}
BY_DIGEST: dict[str, Callable[[bytes, bytes], bytes]] = {
    "content/v1": tokens.content_id,
    "seen/v1": tokens.seen,
    "digest/v1": tokens.keyed_digest,
}
BY_HKDF: dict[str, Callable[[bytes, bytes], bytes]] = {
    "object/v1": tokens.seal_key,
    "salt/v1": tokens.salt_key,
}


def sha256_hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha256").digest()


def hkdf(key: bytes, info: bytes) -> bytes:
    return sha256_hmac(sha256_hmac(bytes(32), key), info + b"\x01")


def test_hkdf_of_these_tests_is_that_of_rfc_5869() -> None:
    # Appendix A.3: SHA-256, empty salt and info; the first block of the output.
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert hkdf(b"\x0b" * 22, b"").hex() == expected


@pytest.mark.parametrize("label", BY_UID)
def test_name_of_a_uid(label: str) -> None:
    expected = sha256_hmac(KEY, bytes([0, len(label)]) + label.encode() + UID_LABEL)
    assert BY_UID[label](KEY, UID) == expected


@pytest.mark.parametrize("label", BY_DIGEST)
def test_keyed_form_of_a_digest(label: str) -> None:
    expected = sha256_hmac(KEY, bytes([0, len(label)]) + label.encode() + DIGEST)
    assert BY_DIGEST[label](KEY, DIGEST) == expected


@pytest.mark.parametrize("label", BY_HKDF)
def test_key_of_an_object(label: str) -> None:
    expected = hkdf(KEY, bytes([0, len(label)]) + label.encode() + DIGEST)
    assert BY_HKDF[label](KEY, DIGEST) == expected


def test_associated_data_of_a_sealed_object() -> None:
    assert tokens.seal_aad(STUDY_TOKEN, DIGEST) == b"\x00\x07seal/v1" + STUDY_TOKEN + DIGEST


def test_claim_name_is_lower_case_hex_and_no_path() -> None:
    name = tokens.claim_name(KEY, "../../etc/passwd")
    assert len(name) == 64
    assert set(name) <= set("0123456789abcdef")


@pytest.mark.parametrize("padded", [UID + "\0", UID + " ", UID + " \0"])
@pytest.mark.parametrize("label", BY_UID)
def test_padding_of_a_uid_does_not_count(label: str, padded: str) -> None:
    assert BY_UID[label](KEY, padded) == BY_UID[label](KEY, UID)


def test_no_two_derivations_agree() -> None:
    by_uid = [derive(KEY, UID) for derive in BY_UID.values()]
    by_digest = [derive(KEY, DIGEST) for derive in (*BY_DIGEST.values(), *BY_HKDF.values())]
    assert len({*by_uid, *by_digest}) == 9


def test_label_is_length_and_ascii() -> None:
    assert tokens.label("") == b"\x00\x00"
    assert tokens.label("x" * 65_535) == b"\xff\xff" + b"x" * 65_535


@pytest.mark.parametrize("text", ["\u00e9", "1.2.\uff13", "x" * 65_536])
def test_text_without_a_label_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected ASCII"):
        tokens.label(text)
    with pytest.raises(DataError):
        tokens.claim_name(KEY, text)

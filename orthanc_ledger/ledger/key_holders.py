"""Whose private keys lie on a machine.

A key is of the organisation whose CA issued its certificate, or whose CA's it is. Names of files and folders, and what
an msp.yaml says, do not count: keys are known by their content, and links are followed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from orthanc_ledger.errors import Unreadable
from orthanc_ledger.ledger.identity import parse_certificate

_LARGEST_PEM = 65_536
_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def holder(certificate: bytes, authorities: Mapping[str, bytes]) -> str | None:
    """MSP ID of the organisation that issued a certificate (DER), or whose CA's it is; None: of none.

    `authorities`: MSP ID to CA certificate, DER. Dates do not matter: who holds an expired key holds it all the same.
    Raises Unreadable.
    """
    parsed = parse_certificate(certificate)
    for msp_id, authority in authorities.items():
        try:
            parsed.verify_directly_issued_by(parse_certificate(authority))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, Unreadable):
            continue
        return msp_id
    return None


def keys_under(folder: Path, authorities: Mapping[str, bytes]) -> Iterator[tuple[Path, str]]:
    """The private keys (PEM, not encrypted) under a folder whose certificate lies there, too, or is a CA's: each with
    its organisation's MSP ID.
    """
    holders = {_spki(parse_certificate(der).public_key()): msp_id for msp_id, der in authorities.items()}
    keys = []
    for path, content in _pem_files(folder):
        for certificate in _certificates(content):
            msp_id = holder(certificate.public_bytes(Encoding.DER), authorities)
            if msp_id is not None:
                holders[_spki(certificate.public_key())] = msp_id
        public_key = _public_key_of(content)
        if public_key is not None:
            keys.append((path, _spki(public_key)))
    yield from ((path, holders[key]) for path, key in keys if key in holders)


def _pem_files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    walked = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in walked:  # a link back up
            folders.clear()
            continue
        walked.add(real)
        for path in (Path(place, name) for name in sorted(names)):
            if (
                path.is_file()
                and path.stat().st_size <= _LARGEST_PEM
                and b"-----BEGIN " in (content := path.read_bytes())
            ):
                yield path, content


def _certificates(content: bytes) -> Iterator[x509.Certificate]:
    for pem in _CERTIFICATE.findall(content):
        with suppress(Unreadable):  # an odd one hides no other
            yield parse_certificate(pem, x509.load_pem_x509_certificate)


def _public_key_of(content: bytes) -> PublicKeyTypes | None:
    """The public key of a file's private key; None when it holds none that can be read."""
    try:
        return load_pem_private_key(content, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

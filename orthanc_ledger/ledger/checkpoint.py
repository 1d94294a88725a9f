"""Signed checkpoints: a log's size and root as a note that the organisations' CA certificates are enough to check.

A C2SP tlog-checkpoint in a C2SP signed-note, ECDSA P-256 with SHA-256 (signature type 0x02); docs/checkpoint.md shows
one, and how to check it with openssl.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orthanc_ledger.errors import ContractError, IntegrityError, Unreadable
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity, parse_certificate
from orthanc_ledger.ledger.log import Checkpoint
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.merkle import verify_consistency

MAX_NOTE_CHARACTERS = 65_536
"""Room for a certificate and the signatures of many witnesses."""

_NOTE = re.compile(
    "(?P<text>"
    "orthanc-ledger/(?P<log>[0-9a-f]{64})\n"
    "(?P<size>[1-9][0-9]{0,17})\n"
    "(?P<root>[A-Za-z0-9+/]{43}=)\n"
    "time (?P<time>[1-9][0-9]{0,17})\n"
    "certificate (?P<certificate>[A-Za-z0-9+/]+={0,2})\n"
    ")\n"
    "(?P<signatures>(?:— [^ \n]+ [A-Za-z0-9+/]+={0,2}\n)+)"
)


@dataclass(frozen=True)
class Note:
    """A checkpoint that a member signed."""

    checkpoint: Checkpoint
    time: int  # the signer's clock, UTC seconds
    msp_id: str  # the organisation whose CA issued the certificate
    serial: str  # of that certificate, lower-case hex
    log_id: bytes


def origin(log_id: bytes) -> str:
    """A log's name in its checkpoints: their first line, and the name of the key that signs them."""
    return f"orthanc-ledger/{log_id.hex()}"


def sign_note(checkpoint: Checkpoint, log_id: bytes, time: int, identity: Identity) -> str:
    """A checkpoint as a signed note. `time`: the signer's clock, UTC seconds."""
    name = origin(log_id)
    lines = (name, checkpoint.size, _base64(checkpoint.root), f"time {time}")
    text = "".join(f"{line}\n" for line in (*lines, f"certificate {_base64(identity.certificate)}"))
    signature = _key_id(identity.certificate) + identity.sign(text.encode())
    return f"{text}\n— {name} {_base64(signature)}\n"


def open_note(text: str, log_id: bytes | None, ca_certificates: Mapping[str, bytes]) -> Note:
    """Check a signed note and read it.

    `log_id`: the log it must be of; None: any. `ca_certificates`: MSP ID to DER; one of them issued the signer's
    certificate. Signatures of other keys, as witnesses add them, are passed over.

    Raises IntegrityError when the note is no checkpoint of this form, is another log's, has no signature of its
    certificate's key or a wrong one, none of the CAs issued that certificate, or it was not valid at the note's time;
    ConfigError when a CA certificate is none.
    """
    parts = _NOTE.fullmatch(text) if len(text) <= MAX_NOTE_CHARACTERS else None
    if parts is None:
        raise IntegrityError("checkpoint: expected a signed note of a log's size and root, got something else")
    log, time = bytes.fromhex(parts["log"]), int(parts["time"])
    if log_id not in (None, log):
        raise IntegrityError(f"checkpoint: of another log: expected {origin(log_id or b'')}, got {origin(log)}")
    try:
        certificate = base64.b64decode(parts["certificate"], validate=True)
        signature = _signature(parts["signatures"], origin(log), _key_id(certificate))
        caller = Members(ca_certificates).verify(certificate, signature, parts["text"].encode(), time)
    except (ValueError, Unreadable) as error:
        raise IntegrityError(f"checkpoint: its certificate or a signature cannot be read: {error}") from error
    except ContractError as error:
        raise IntegrityError(f"checkpoint of {parts['size']} entries: {error.field}: {error.detail}") from error
    root = base64.b64decode(parts["root"])
    return Note(Checkpoint(int(parts["size"]), root), time, caller.organisation, caller.serial, log)


def prove_growth(ledger: EmbeddedLedger, old: Checkpoint, new: Checkpoint) -> list[bytes]:
    """The proof that a log's checkpoint continues an older one (`merkle.verify_consistency`), checked.

    Raises IntegrityError when it does not: the log was shortened or changed since. `new` is one of the ledger's own.
    """
    if new.size < old.size:
        raise IntegrityError(f"a checkpoint of {old.size} entries was signed, the log has {new.size}")
    proof = ledger.consistency(old.size, new.size)
    verify_consistency(old.size, old.root, new.size, new.root, proof)
    return proof


def _signature(lines: str, name: str, key_id: bytes) -> bytes:
    """The signature by the key of this name and id. Raises IntegrityError when there is none."""
    for line in lines.splitlines():
        _, signer, encoded = line.split(" ")
        blob = base64.b64decode(encoded, validate=True)
        if (signer, blob[:4]) == (name, key_id):
            return blob[4:]
    raise IntegrityError("checkpoint: not signed by the key of the certificate that stands in it")


def _key_id(certificate: bytes) -> bytes:
    """Of a key of signature type 0x02: the first 4 bytes of the SHA-256 of its SubjectPublicKeyInfo, DER."""
    key = parse_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()[:4]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

"""Signed checkpoints: a log's size and root as a note that the organisations' CA certificates are enough to check.

A C2SP tlog-checkpoint in a C2SP signed-note, ECDSA P-256 with SHA-256 (signature type 0x02), and ML-DSA-65 beside it
where the signer has such a key; docs/checkpoint.md shows one, and how to check it with openssl.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orthanc_ledger.errors import ContractError, IntegrityError, Unreadable
from orthanc_ledger.ledger import ml_dsa
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity, parse_certificate, read_certificate
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

Pins = Mapping[bytes, Sequence[MLDSA65PublicKey]]
"""CA certificate (DER) to ML-DSA keys: of what its members sign, only what one of these keys signed too counts."""

NOTHING_PINNED: Pins = {}


@dataclass(frozen=True)
class Note:
    """A checkpoint that a member signed."""

    checkpoint: Checkpoint
    time: int  # the signer's clock, UTC seconds
    msp_id: str  # the organisation whose CA issued the certificate
    serial: str  # of that certificate, lower-case hex
    log_id: bytes
    ml_dsa: bool = False  # whether a pinned key signed it, too


def read_trusted(paths: Iterable[Path]) -> tuple[dict[Path, bytes], Pins]:
    """The CA certificate (DER) in each of these files, and the ML-DSA keys that stand behind it. Raises ConfigError."""
    certificates: dict[Path, bytes] = {}
    pins: dict[bytes, list[MLDSA65PublicKey]] = {}
    for path in paths:
        certificates[path] = read_certificate(path).public_bytes(Encoding.DER)
        if keys := ml_dsa.read_public_keys(path):
            pins.setdefault(certificates[path], []).extend(keys)
    return certificates, pins


def own_pins(identity: Identity, ca_certificate: bytes) -> Pins:
    """What an organisation asks of its own checkpoints: the second signature, too, where its identity makes one."""
    return {} if identity.ml_dsa is None else {ca_certificate: [identity.ml_dsa.public_key()]}


def origin(log_id: bytes) -> str:
    """A log's name in its checkpoints: their first line, and the name of the key that signs them."""
    return f"orthanc-ledger/{log_id.hex()}"


def sign_note(checkpoint: Checkpoint, log_id: bytes, time: int, identity: Identity) -> str:
    """A checkpoint as a signed note, by both keys of an identity that has two. `time`: its clock, UTC seconds."""
    name = origin(log_id)
    lines = (name, checkpoint.size, _base64(checkpoint.root), f"time {time}")
    text = "".join(f"{line}\n" for line in (*lines, f"certificate {_base64(identity.certificate)}"))
    signatures = [_key_id(identity.certificate) + identity.sign(text.encode())]
    if identity.ml_dsa is not None:
        key_id = _ml_dsa_key_id(name, identity.ml_dsa.public_key())
        signatures.append(key_id + identity.ml_dsa.sign(text.encode()))
    return f"{text}\n" + "".join(f"— {name} {_base64(signature)}\n" for signature in signatures)


def open_note(
    text: str, log_id: bytes | None, ca_certificates: Mapping[str, bytes], pins: Pins = NOTHING_PINNED
) -> Note:
    """Check a signed note and read it.

    `log_id`: the log it must be of; None: any. `ca_certificates`: MSP ID to DER; one of them issued the signer's
    certificate. Signatures of other keys, as witnesses add them, are passed over.

    Raises IntegrityError when the note is no checkpoint of this form, is another log's, has no signature of its
    certificate's key or a wrong one, none of the CAs issued that certificate, or it was not valid at the note's time,
    or no key that is pinned for that CA signed it, too; ConfigError when a CA certificate is none.
    """
    parts = _NOTE.fullmatch(text) if len(text) <= MAX_NOTE_CHARACTERS else None
    if parts is None:
        raise IntegrityError("checkpoint: expected a signed note of a log's size and root, got something else")
    log, time = bytes.fromhex(parts["log"]), int(parts["time"])
    if log_id not in (None, log):
        raise IntegrityError(f"checkpoint: of another log: expected {origin(log_id or b'')}, got {origin(log)}")
    try:
        certificate = base64.b64decode(parts["certificate"], validate=True)
        signatures, message = list(_signatures(parts["signatures"], origin(log))), parts["text"].encode()
        signature = _signature(signatures, _key_id(certificate))
        caller = Members(ca_certificates).verify(certificate, signature, message, time)
    except (ValueError, Unreadable) as error:
        raise IntegrityError(f"checkpoint: its certificate or a signature cannot be read: {error}") from error
    except ContractError as error:
        raise IntegrityError(f"checkpoint of {parts['size']} entries: {error.field}: {error.detail}") from error
    keys = pins.get(ca_certificates[caller.organisation], ())
    if keys:
        _verify_ml_dsa(signatures, {_ml_dsa_key_id(origin(log), key): key for key in keys}, message)
    root = base64.b64decode(parts["root"])
    return Note(Checkpoint(int(parts["size"]), root), time, caller.organisation, caller.serial, log, bool(keys))


def prove_growth(ledger: EmbeddedLedger, old: Checkpoint, new: Checkpoint) -> list[bytes]:
    """The proof that a log's checkpoint continues an older one (`merkle.verify_consistency`), checked.

    Raises IntegrityError when it does not: the log was shortened or changed since. `new` is one of the ledger's own.
    """
    if new.size < old.size:
        raise IntegrityError(f"a checkpoint of {old.size} entries was signed, the log has {new.size}")
    proof = ledger.consistency(old.size, new.size)
    verify_consistency(old.size, old.root, new.size, new.root, proof)
    return proof


def _signatures(lines: str, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Key ids and signatures of the keys of this name. Raises ValueError."""
    for line in lines.splitlines():
        _, signer, encoded = line.split(" ")
        if signer == name:
            blob = base64.b64decode(encoded, validate=True)
            yield blob[:4], blob[4:]


def _signature(signatures: Sequence[tuple[bytes, bytes]], key_id: bytes) -> bytes:
    """The signature by the key of this id. Raises IntegrityError when there is none."""
    for signer, signature in signatures:
        if signer == key_id:
            return signature
    raise IntegrityError("checkpoint: not signed by the key of the certificate that stands in it")


def _verify_ml_dsa(
    signatures: Sequence[tuple[bytes, bytes]], keys: Mapping[bytes, MLDSA65PublicKey], message: bytes
) -> None:
    """Check what these keys, by id, signed. Raises IntegrityError when that is nothing, or anything of it is wrong."""
    found = [(keys[key_id], signature) for key_id, signature in signatures if key_id in keys]
    if not found:
        raise IntegrityError(
            "checkpoint: no ML-DSA signature of a key that is trusted: its organisation signs with both; ask it which "
            "key it uses now, and believe no other word for it"
        )
    for key, signature in found:
        ml_dsa.verify(key, signature, message)


def _key_id(certificate: bytes) -> bytes:
    """Of a key of signature type 0x02: the first 4 bytes of the SHA-256 of its SubjectPublicKeyInfo, DER."""
    key = parse_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()[:4]


def _ml_dsa_key_id(name: str, key: MLDSA65PublicKey) -> bytes:
    """As C2SP recommends: of key name, newline, signature type and public key."""
    return hashlib.sha256(name.encode() + b"\n" + ml_dsa.NOTE_TYPE + key.public_bytes_raw()).digest()[:4]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

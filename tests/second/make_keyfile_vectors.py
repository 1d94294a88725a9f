"""Makes `tests/vectors/keyfile/files.json` with the second implementation alone.

python -m tests.second.make_keyfile_vectors     writes it: other files each time, as sealing and signing are random
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.second import cid, keyfile, keys
from tests.second.manifest import Link
from tests.second.streams import stream

FOLDER = Path(__file__).parents[1] / "vectors" / "keyfile"


def certificate(signer: ec.EllipticCurvePrivateKey) -> bytes:
    """One that a key signs for itself: whether to believe it is not the format's matter."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    builder = x509.CertificateBuilder(name, name, signer.public_key(), 1)
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    return builder.not_valid_after(datetime(2036, 1, 1, tzinfo=UTC)).sign(signer, SHA256()).public_bytes(Encoding.DER)


def cases() -> list[dict[str, Any]]:
    """Key files of none, one and some instances, with what must come out of them."""
    signer = ec.generate_private_key(ec.SECP256R1())
    made = []
    for count in (0, 1, 40):
        seed, release = stream(f"keyfile/{count}/seed", 32), stream(f"keyfile/{count}/release", 32)
        request, study = stream(f"keyfile/{count}/request", 32), stream(f"keyfile/{count}/study", 16)
        batch = stream(f"keyfile/{count}/batch", 32)
        rows = []
        for token in sorted(stream(f"keyfile/{count}/{n}", 32) for n in range(count)):
            seal, salt = keys.seal_key(batch, token), keys.salt_key(batch, token)
            manifest, content = cid.of_block(token), cid.of_bytes(token)
            rows.append({"instance": token, "manifest": manifest, "object": content, "seal": seal, "salt": salt})
        linked = [row | {"manifest": Link(row["manifest"]), "object": Link(row["object"])} for row in rows]
        content = {"request": request, "study": study, "instances": linked}
        recipient = keyfile.public(seed)
        file = keyfile.make(recipient, release, content, signer, certificate(signer))
        shown = [{name: part.hex() if isinstance(part, bytes) else part for name, part in row.items()} for row in rows]
        opened = {"request": request.hex(), "study": study.hex(), "instances": shown}
        digest = {"recipient": sha256(recipient).hexdigest(), "release": release.hex()}
        made.append({"private": seed.hex(), **digest, "file": file.hex(), "opened": opened})
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "files.json").write_text(json.dumps(cases(), indent=1) + "\n")

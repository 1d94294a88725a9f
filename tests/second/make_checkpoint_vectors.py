"""Makes `tests/vectors/checkpoint/notes.json` with the second implementation alone.

python -m tests.second.make_checkpoint_vectors     writes it: other notes each time, as keys and signatures are random
"""

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from tests.second.note import Organisation, ecdsa_line, ml_dsa_line, text_of
from tests.second.streams import stream

FOLDER = Path(__file__).parents[1] / "vectors" / "checkpoint"
TIME = 1_800_000_000


def cases() -> list[dict[str, Any]]:
    """Notes, and whether they count for who has the CA's certificate alone, and for who has the trust file."""
    hospital, other = Organisation("hospital"), MLDSA65PrivateKey.generate()
    log, root = stream("checkpoint/log", 32), stream("checkpoint/root", 32)
    text, elsewhere = (text_of(hospital, log, size, root, TIME) for size in (1234, 1235))
    first, second = ecdsa_line(text, hospital.key), ml_dsa_line(text, hospital.second)
    witness = ml_dsa_line(text, other, "witness.example/w1")
    signatures = {  # name: lines, counts for who has the certificate, counts for who has the trust file
        "both": (first + second, True, True),
        "both, the other way round": (second + first, True, True),
        "both, among witnesses": (witness + first + witness + second, True, True),
        "the first alone": (first, True, False),
        "the second alone": (second, False, False),
        "the second under another name": (
            first + ml_dsa_line(text, hospital.second, "witness.example/w1"),
            True,
            False,
        ),
        "another's key in the second's place": (first + ml_dsa_line(text, other), True, False),
        "the second of another checkpoint": (first + ml_dsa_line(elsewhere, hospital.second), True, False),
        "the first of another checkpoint": (ecdsa_line(elsewhere, hospital.key) + second, False, False),
        "the second, changed": (
            first + second[:-12] + ("A" if second[-12] != "A" else "B") + second[-11:],
            True,
            False,
        ),
    }
    said = {"log": log.hex(), "size": 1234, "root": root.hex(), "time": TIME}
    files = {"ca": hospital.trust(), "trust": hospital.trust(hospital.second)}
    return [
        {"name": name, **said, **files, "note": f"{text}\n{lines}", "by_ca": by_ca, "by_trust": by_trust}
        for name, (lines, by_ca, by_trust) in signatures.items()
    ]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "notes.json").write_text(json.dumps(cases(), indent=1) + "\n")

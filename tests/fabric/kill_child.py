"""A client that dies on its way: python -m tests.fabric.kill_child CONNECTION IDENTITY MANIFEST STUDY STEP.

It submits an Anchor and kills itself at the Gateway's STEP (`submit`: before an orderer has the envelope,
`commit_status`: when one has it).
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from orthanc_ledger.ledger.fabric.gateway import Gateway
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import load_identity


def main() -> None:
    connection, identity, manifest, study, step = sys.argv[1:]

    def die(gateway: Gateway, transaction_id: str, *rest: Any) -> None:
        print(transaction_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(Gateway, step, die)
    FabricLedger(Path(connection), load_identity(Path(identity))).submit("Anchor", anchoring(manifest, study))


def anchoring(manifest: str, study: str) -> dict[str, Any]:
    return {
        "manifestCid": manifest,
        "study": bytes.fromhex(study),
        "root": b"r" * 32,
        "count": 3,
        "kind": "original",
    }


if __name__ == "__main__":
    main()

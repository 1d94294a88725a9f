"""The ledger port on a Hyperledger Fabric channel, by way of the Gateway service of one's own peers.

`ledger.py` is the port. A transaction's way is in `submission.py`: made and signed (`proposal.py`, `timestamps.py`,
`dagjson.py`), endorsed by way of `channel.py` and `gateway.py`, kept (`envelopes.py`), sent, awaited (`patience.py`);
`faults.py` says what an error means. Beside it `events.py` and, for receipts, `evidence.py`. Whom to call and to
believe is in the connection file (`connection.py`, `authorities.py`).
"""

import os

# Else gRPC's core writes on every user's terminal that a peer is away. Before anything here imports it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Its fork handlers start threads in a forked process, which die with it once inherited files are closed: the anchorer
# forks workers, and those never ask a ledger.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

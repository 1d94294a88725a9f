"""The ledger port on a Hyperledger Fabric channel, by way of the Gateway service of one's own peers."""

import os

# Else gRPC's core writes on every user's terminal that a peer is away. Before anything here imports it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

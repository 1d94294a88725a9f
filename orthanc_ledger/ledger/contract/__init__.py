"""The ledger's contract: who may do what with a scan's chain of custody.

Pure: `apply` takes a state and a call and says what changes; it has no clock, no randomness and no I/O, so that the
same calls give the same state in every host. The rules, function by function, stand in docs/contract.md.
"""

from orthanc_ledger.ledger.contract.apply import NONCE_BYTES, answer, apply
from orthanc_ledger.ledger.contract.audit import event_key
from orthanc_ledger.ledger.contract.functions import FUNCTIONS
from orthanc_ledger.ledger.contract.queries import QUERIES

__all__ = ["FUNCTIONS", "NONCE_BYTES", "QUERIES", "answer", "apply", "event_key"]

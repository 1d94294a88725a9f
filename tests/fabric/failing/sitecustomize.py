"""Puts failures into a node's processes, which know nothing of it: Python runs this file when they start.

FAILURES names a folder. A file `lose-answer` in it has the next transaction sent and its answer lost, `die` has the
process killed that has just sent one; the file goes. What a person is told of after a minute is told at once, and
nobody waits long for an answer.
"""

import os
import signal
from pathlib import Path

from orthanc_ledger import outage
from orthanc_ledger.courier import Errand
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger.fabric import patience
from orthanc_ledger.ledger.fabric.gateway import Gateway

ALARM_S, PATIENCE_S = 3.0, 3.0

_folder = Path(os.environ["FAILURES"])
_submit = Gateway.submit


def _submit_and_fail(gateway: Gateway, transaction_id: str, envelope: bytes, timeout_s: float) -> None:
    _submit(gateway, transaction_id, envelope, timeout_s)
    if _taken("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if _taken("lose-answer"):
        raise LedgerAway("Submit: the answer was lost")


def _taken(name: str) -> bool:
    """Whether the file was there, and this process is the one that took it away."""
    try:
        (_folder / name).unlink()
    except FileNotFoundError:
        return False
    return True


Gateway.submit = _submit_and_fail  # type: ignore[method-assign, assignment]
for place, name, value in (
    (Errand, "alarm_s", ALARM_S),
    (outage, "ALARM_S", ALARM_S),
    (patience, "PATIENCE_S", PATIENCE_S),
):
    assert hasattr(place, name), f"{name} has moved"
    setattr(place, name, value)

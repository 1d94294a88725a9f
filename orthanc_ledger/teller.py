"""Gives the ledger what waits in the outbox: outcomes, denials, conflicts, repairs, flags."""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.outbox import LedgerCall, Outbox

ERASED = "erased"
"""The contract's word for a study of which nothing is to be told any more (field of its refusal)."""


class Teller:
    """Submits the outbox's calls; a process alone on its outbox."""

    def __init__(self, ledger: Ledger, outbox: Outbox) -> None:
        self._ledger = ledger
        self._outbox = outbox

    def submit(self) -> None:
        """Submit what waits; what the ledger refuses is an alarm. Raises LedgerAway; what was answered stays done."""
        for call in self._outbox.posted():
            try:
                self._tell(call)
            except ContractError as error:
                if error.field != ERASED:
                    self._outbox.alarm("report refused", str(call.id), f"the ledger refused {call.function}: {error}")
            self._outbox.done(call)

    def _tell(self, call: LedgerCall) -> None:
        if call.function == "FlagTampered":
            self._flag(call)
            return
        try:
            self._ledger.submit(call.function, call.args, call.nonce)
        except ContractError as error:
            if (call.function, error.code, error.field) != ("LogDenials", "NOT_FOUND", "peer"):
                raise
            unregistered = {name: value for name, value in call.args.items() if name != "peer"}
            self._ledger.submit(call.function, {**unregistered, "unregistered": True})

    def _flag(self, call: LedgerCall) -> None:
        """Submit a flag as its instance's next; none while one stands."""
        if "n" not in call.args:
            n = self._next_flag(call.args["study"], call.args["instance"])
            if n is None:
                return
            # Kept first: submitted again it is the same flag, even if it was resolved meanwhile.
            call = self._outbox.amend(call, {**call.args, "n": n})
        try:
            self._ledger.submit(call.function, call.args)
        except ContractError as error:
            if (error.code, error.field) != ("CONFLICT", "n"):  # else another party's flag came first, and stands
                raise

    def _next_flag(self, study: bytes, instance: bytes) -> int | None:
        """The number of an instance's next flag; None while one stands."""
        standing = self._ledger.query("StandingOf", {"study": study})
        if any(flag["instance"] == instance for flag in standing["flagged"]):
            return None
        return max((flag["n"] + 1 for flag in standing["resolved"] if flag["instance"] == instance), default=0)

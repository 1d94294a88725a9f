"""The way of one transaction: endorse, keep the envelope, submit, wait for the commit; and again from any point."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from orthanc_ledger.errors import ContractError, IntegrityError, LedgerAway
from orthanc_ledger.ledger import Committed
from orthanc_ledger.ledger.contract import NONCE_BYTES
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.channel import Channel
from orthanc_ledger.ledger.fabric.envelopes import Envelopes, Kept
from orthanc_ledger.ledger.fabric.faults import NeverOrdered
from orthanc_ledger.ledger.fabric.patience import Patience
from orthanc_ledger.ledger.fabric.proposal import Endorsed, open_envelope, seal

SENT_AGAIN_S = 3600
"""An older envelope is not sent again, its record's time would be far from its commit's: the call is endorsed anew."""

ORDERED_S = 3.0
"""What an orderer has is waited for so long, however little patience is left: Fabric's own BatchTimeout is 2 s."""

_SETTLED_S = 0.5  # in which peers tell what is committed; else it is sent once more, which is harmless


class Invalidated(LedgerAway):
    """The transaction was ordered but does not count: what it had read was overtaken, or an endorsement was missing."""


@dataclass(frozen=True)
class Call:
    """A function with its arguments as they travel."""

    function: str
    args: str  # DAG-JSON
    nonce: str | None  # the contract's, hex; None: the caller gave none

    def name(self, channel: str, chaincode: str, msp_id: str) -> bytes:
        """Under which its envelope is kept: SHA-256 of the DAG-JSON of all that makes it this call."""
        whole = [channel, chaincode, msp_id, self.function, self.args, self.nonce]
        return hashlib.sha256(dagjson.encode(whole).encode()).digest()


class Submission:
    """A call on its way. Each `run` is one try, and takes up what an earlier one left, of another process as well.

    What an earlier call left is only brought to its end: that it was committed then says nothing of now, when it may
    have been undone. So the contract is asked again, with the same nonce, and knows a repeat.
    """

    def __init__(self, channel: Channel, envelopes: Envelopes, call: Call) -> None:
        self._channel, self._envelopes, self._call = channel, envelopes, call
        self._nonce, self._own = call.nonce, b""
        connection = channel.connection
        self._name = call.name(connection.channel, connection.chaincode, channel.signer.msp_id)
        self._deadlines = connection.deadlines

    def run(self, patience: Patience) -> Committed:
        """Raises as the requests of `Gateway`, Invalidated, IntegrityError when peers answer what no contract does."""
        kept = self._envelopes.find(self._name)
        left = None if kept is None else self._finish(kept, patience)
        if kept is not None and left is not None:
            if kept.envelope == self._own:
                return left
            self._nonce = open_envelope(kept.envelope).proposal.call[-1]
        payload, endorsed = self._endorse(patience)
        answer = _answer(endorsed)
        if "repeats" in answer:
            first = self._first(answer, patience)
            return left if left is not None and left.position == first.position else first
        kept = self._envelopes.keep(self._name, seal(self._channel.signer, payload), self._channel.clock())
        self._own = kept.envelope
        return self._send(kept, patience)

    def _finish(self, kept: Kept, patience: Patience) -> Committed | None:
        """What became of an envelope; sent once more where nobody knows of it. None: it came to nothing."""
        try:
            return self._settle(kept, _SETTLED_S)
        except Invalidated:
            return None
        except LedgerAway:
            if self._channel.clock() - kept.time <= SENT_AGAIN_S:
                return self._send(kept, patience)
            self._envelopes.forget(self._name, kept.envelope)
            return None

    def _send(self, kept: Kept, patience: Patience) -> Committed:
        self._submit(kept, patience)
        return self._settle(kept, patience.deadline(self._deadlines.commit_s, ORDERED_S))

    def _endorse(self, patience: Patience) -> tuple[bytes, Endorsed]:
        nonce = self._nonce or secrets.token_hex(NONCE_BYTES)
        timeout_s = patience.deadline(self._deadlines.endorse_s)
        return self._channel.endorse(self._call.function, self._call.args, nonce, timeout_s=timeout_s)

    def _submit(self, kept: Kept, patience: Patience) -> None:
        transaction_id = open_envelope(kept.envelope).proposal.transaction_id
        timeout_s = patience.deadline(self._deadlines.submit_s)
        try:
            self._channel.gateway.submit(transaction_id, kept.envelope, timeout_s)
        except (NeverOrdered, ContractError):
            self._envelopes.forget(self._name, kept.envelope)  # else it would be sent in vain for an hour
            raise

    def _settle(self, kept: Kept, timeout_s: float) -> Committed:
        """What became of an envelope; its commit is waited for. Once that is known it is forgotten."""
        endorsed = open_envelope(kept.envelope)
        transaction_id = endorsed.proposal.transaction_id
        code = self._channel.gateway.commit_status(transaction_id, timeout_s)
        if code == "DUPLICATE_TXID":
            raise LedgerAway(
                f"transaction {transaction_id}: told of its second copy; the first one's status is asked for"
            )
        self._envelopes.forget(self._name, kept.envelope)
        if code != "VALID":
            raise Invalidated(f"transaction {transaction_id} was ordered, but is invalid: {code}; it is endorsed anew")
        answer = _answer(endorsed)
        return Committed(bytes.fromhex(transaction_id), answer["sequence"], endorsed.proposal.time, answer["result"])

    def _first(self, answer: dict[str, Any], patience: Patience) -> Committed:
        """The commit that an answer is a repeat of: of the first value of a key that it wrote."""
        asked = dagjson.encode({"key": answer["repeats"], "limit": 1})
        rows = self._channel.evaluate("HistoryOf", asked, patience.deadline(self._deadlines.evaluate_s))
        if not rows:
            raise LedgerAway(f"this organisation's peer does not have {answer['repeats']} yet, which another has")
        return Committed(b"", rows[0]["sequence"], rows[0]["time"], answer["result"])


def _answer(endorsed: Endorsed) -> dict[str, Any]:
    """{result, sequence}, or {result, repeats} of a repeat."""
    match dagjson.decode(endorsed.answer):
        case {"result": _, "sequence": int()} | {"result": _, "repeats": str()} as answer if len(answer) == 2:
            return dict(answer)
    raise IntegrityError(f"expected a contract's answer, got {endorsed.answer[:80]!r}: is the chaincode the contract?")

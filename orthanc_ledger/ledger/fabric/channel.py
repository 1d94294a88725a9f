"""A channel's chaincode as one member may ask it: proposals made, signed, and their answers checked."""

import secrets

from orthanc_ledger.clock import Clock
from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.ledger import Value
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.connection import Connection
from orthanc_ledger.ledger.fabric.gateway import Gateway
from orthanc_ledger.ledger.fabric.proposal import Endorsed, Proposal, Signer, propose
from orthanc_ledger.ledger.fabric.timestamps import Timestamps
from orthanc_ledger.ledger.identity import Identity

_NONCE_BYTES = 24  # Fabric's own; not the contract's
_TIMESTAMPS = Timestamps()


class Channel:
    """What an identity asks of its peers. Requests raise as `Gateway` says."""

    def __init__(self, connection: Connection, identity: Identity, clock: Clock) -> None:
        self.connection, self.clock = connection, clock
        self.signer = Signer(identity)
        self.gateway = Gateway(connection, self.signer)

    def endorse(self, *call: str, timeout_s: float) -> tuple[bytes, Endorsed]:
        """Have a function and its arguments endorsed: the payload to sign, and what it says.

        Raises also IntegrityError when the peer hands back another transaction than was proposed.
        """
        proposal = self._propose(call)
        payload = self.gateway.endorse(proposal, timeout_s)
        endorsed = Endorsed.decode(payload)
        if endorsed.proposal != proposal:
            raise IntegrityError(
                "the peer made another transaction of a proposal: nothing was signed; look at the peer"
            )
        return payload, endorsed

    def evaluate(self, function: str, args: str, timeout_s: float) -> Value:
        """The answer of a query. Raises also IntegrityError when it is no DAG-JSON."""
        return dagjson.decode(self.gateway.evaluate(self._propose((function, args)), timeout_s))

    def _propose(self, call: tuple[str, ...]) -> Proposal:
        nonce, time_ms = secrets.token_bytes(_NONCE_BYTES), _TIMESTAMPS.take(self.clock)
        return propose(self.signer, self.connection.channel, self.connection.chaincode, call, time_ms, nonce)

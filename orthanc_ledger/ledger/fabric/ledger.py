"""The `Ledger` port on a Fabric channel."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.errors import ConfigError, ContractError, LedgerAway
from orthanc_ledger.ledger import Committed, Value, refused_for_now
from orthanc_ledger.ledger.fabric import dagjson
from orthanc_ledger.ledger.fabric.channel import Channel
from orthanc_ledger.ledger.fabric.connection import read_connection
from orthanc_ledger.ledger.fabric.envelopes import Envelopes
from orthanc_ledger.ledger.fabric.events import Event, Place, follow
from orthanc_ledger.ledger.fabric.evidence import Evidence
from orthanc_ledger.ledger.fabric.patience import Patience
from orthanc_ledger.ledger.fabric.submission import Call, Submission
from orthanc_ledger.ledger.identity import Identity, load_identity

T = TypeVar("T")


class FabricLedger:
    """A channel as one identity sees it. May be used by several threads, not on both sides of a fork.

    A transaction is committed when a peer of one's own says so. Its signed envelope is kept until then, so that what
    got no answer, or whose process died, is finished by the next submit of the same call: the same bytes are sent. Then
    the contract is asked whether that call is a repeat of it, as on the embedded ledger.

    Of `Committed`, position is the contract's sequence, time the proposal's, tx_id Fabric's transaction id. A repeat
    has position and time of the first call; its tx_id is empty, which only the blocks know.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity | None = None,
        clock: Clock = system_clock,
        patience_s: float | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`path`: the connection file. Without an identity its own is taken; where it names none, only `authorities`
        answers: peers ask who is there.

        ``patience_s``: seconds for a call with all its tries (`Patience`). Raises ConfigError when the connection file
        is wrong, or another organisation's than the identity.
        """
        connection = read_connection(path)
        self._organisations, self._deadlines = connection.organisations, connection.deadlines
        self._patience_s, self._wait = patience_s, wait
        self._envelopes = Envelopes(connection.envelopes)
        if identity is None and connection.identity is not None:
            identity = load_identity(connection.identity)
        if identity is not None and identity.msp_id != connection.organisation:
            raise ConfigError(
                f"{path} is {connection.organisation}'s connection file, and whoever asks is of {identity.msp_id}: an "
                "organisation's people and nodes ask its own peers: name that organisation's connection file"
            )
        self._channel = None if identity is None else Channel(connection, identity, clock)

    def submit(self, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
        """As the port says. Without a nonce it gets a random one, or that of its envelope where one is kept.

        Raises ContractError also when the peers take certificate (NOT_PERMITTED `certificate`: have a new one issued)
        or clock (SKEW `time`) for wrong, as on the embedded ledger; ConfigError without an identity.
        """
        call = Call(function, _text(args), None if nonce is None else nonce.hex())
        return self._tried(Submission(self._member(), self._envelopes, call).run)

    def query(self, function: str, args: Mapping[str, Value]) -> Value:
        """As the port says, by the word of a peer of one's own. Raises as `submit`, but LedgerAway where peers do not
        take certificate or clock: a question needs neither elsewhere, and this is no answer to it.
        """
        text, channel, most_s = _text(args), self._member(), self._deadlines.evaluate_s
        with refused_for_now():
            return self._tried(lambda patience: channel.evaluate(function, text, patience.deadline(most_s)))

    def authorities(self) -> Mapping[str, bytes]:
        """As the port says: the connection file's."""
        return self._organisations

    def close(self) -> None:
        """As the port says."""
        self._envelopes.close()
        if self._channel is not None:
            self._channel.gateway.close()

    def events(self, after: Place | None = None) -> Iterator[Event]:
        """The contract's events in the order of their commits, behind a place (None: from the first), as they come.

        Never ends but by `close`, or by raising LedgerAway when the peer is lost: go on from the last event's place.
        """
        return follow(self._member().gateway, after)

    def anchor_evidence(self, manifest_cid: str) -> Evidence:
        """The answer of GetAnchor, signed by the peers that the channel's endorsement policy asks for.

        Raises as `query`.
        """
        channel, args = self._member(), _text({"manifestCid": manifest_cid})

        def ask(patience: Patience) -> Evidence:
            timeout_s = patience.deadline(self._deadlines.endorse_s)
            return Evidence(channel.endorse("GetAnchor", args, timeout_s=timeout_s)[1])

        return self._tried(ask)

    def _tried(self, ask: Callable[[Patience], T]) -> T:
        """What comes of asking, again and again while the ledger is away and there is patience."""
        patience = Patience(self._patience_s, self._wait)
        while True:
            try:
                return ask(patience)
            except LedgerAway:
                if not patience.again():
                    raise

    def _member(self) -> Channel:
        if self._channel is None:
            raise ConfigError("on Fabric whoever asks signs, too: name an identity here or in the connection file")
        return self._channel


def _text(args: Mapping[str, Value]) -> str:
    """Arguments as they travel. Raises ContractError INVALID with the name of the first that cannot."""
    for name, value in args.items():
        try:
            dagjson.encode({name: value})
        except ValueError as error:
            raise ContractError("INVALID", name, str(error)) from error
    return dagjson.encode(dict(args))

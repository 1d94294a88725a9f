"""A live network's ledgers, and what is anchored there; a wire that loses answers."""

import itertools
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.clock import Clock, system_clock
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.trial import identity_of
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import load_identity


class Ledgers:
    """Ledgers of a network's organisations, closed together."""

    def __init__(self, network: Network, free_port: Callable[[], int]) -> None:
        self.network = network
        self._free_port = free_port
        self._opened: list[FabricLedger] = []
        self._wires: list[Wire] = []
        self._names = itertools.count()

    def open(
        self,
        organisation: str = "hospital",
        patience_s: float = 30.0,
        identity: Path | None = None,
        clock: Clock = system_clock,
        **settings: object,
    ) -> FabricLedger:
        """A ledger as an organisation's node sees it, or as another identity; settings as in a connection file."""
        signer = load_identity(identity or identity_of(self.network, organisation, "node"))
        self._opened.append(FabricLedger(self.connection(organisation, **settings), signer, clock, patience_s))
        return self._opened[-1]

    def connection(self, organisation: str, **settings: object) -> Path:
        """The organisation's connection file, or one with other settings beside it."""
        usual = self.network.connection(organisation)
        if not settings:
            return usual
        path = usual.with_name(f"connection-{next(self._names)}.yaml")
        path.write_text(yaml.safe_dump({**yaml.safe_load(usual.read_text()), **settings}))
        return path

    def wired(self, organisation: str = "hospital") -> "tuple[Wire, list[dict[str, object]]]":
        """A wire to the organisation's first peer, and the `peers` of a connection file that go through it."""
        peer = yaml.safe_load(self.network.connection(organisation).read_text())["peers"][0]
        self._wires.append(Wire(self._free_port(), int(peer["endpoint"].rpartition(":")[2])))
        return self._wires[-1], [{**peer, "endpoint": f"127.0.0.1:{self._wires[-1].port}"}]

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()
        for wire in self._wires:
            wire.close()


def anchoring(study: bytes | None = None) -> dict[str, Any]:
    """Arguments of an Anchor that nobody made yet."""
    return {
        "manifestCid": block_cid(secrets.token_bytes(8)),
        "study": secrets.token_bytes(16) if study is None else study,
        "root": secrets.token_bytes(32),
        "count": 3,
        "kind": "original",
    }


def times_anchored(ledger: Ledger, args: dict[str, Any]) -> int:
    """How often a manifest was anchored, by the history of its key."""
    return len(ledger.query("HistoryOf", {"key": f"anchor/{args['manifestCid']}"}))


class Wire:
    """TCP between a port of its own and a server's, which can lose what the server answers.

    ``through``: nothing goes through until it is set. ``taken``: how many connections were made.
    """

    def __init__(self, port: int, target: int, through: threading.Event | None = None) -> None:
        self.port, self._target = port, target
        self._through = through
        self._losing = threading.Event()
        self.taken = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def lose_answers(self) -> None:
        """From now on nothing comes back on connections that are open."""
        self._losing.set()

    def cut(self) -> None:
        """End the connections that are open; those to come lose nothing."""
        self._losing.clear()
        self._end_all()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _end_all(self) -> None:
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # ended already

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.taken += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [client, server]
            for source, sink, answers in ((client, server, False), (server, client, True)):
                self._threads.append(threading.Thread(target=self._pump, args=(source, sink, answers)))
                self._threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            if self._through is not None:
                self._through.wait()
            while data := source.recv(65_536):
                if not (answers and self._losing.is_set()):
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

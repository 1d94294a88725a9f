"""The gate's world with its HTTPS application, and a research centre that calls it."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import free_ports, wait_until
from gate_world import World
from node_make import drain

from orthanc_ledger.config import Https
from orthanc_ledger.key_client import KeyClient
from orthanc_ledger.key_release import KeyRelease
from orthanc_ledger.ledger import OpenLedger, open_ledger
from orthanc_ledger.ledger.identity import ca_certificate, issue_server, load_identity
from orthanc_ledger.recipient_key import PrivateKey
from orthanc_ledger.web.application import Application
from orthanc_ledger.web.server import Server

PRIVATE = PrivateKey(b"p" * 32)


@dataclass
class KeyWorld:
    """A world whose research centre has an approved request with its public key, and its hospital's address."""

    world: World
    url: str
    private: PrivateKey = field(default=PRIVATE)

    def organisation(self, who: str) -> Path:
        return self.world.folder / "node" / "organisations" / who

    def identity(self, who: str = "research", name: str = "node") -> Path:
        return self.organisation(who) / "identities" / name

    @property
    def owner_ca(self) -> bytes:
        return ca_certificate(self.organisation("owner"))

    def client(self, identity: Path | None = None, **options: Any) -> KeyClient:
        return KeyClient(self.url, identity or self.identity(), [self.owner_ca], **options)

    @property
    def study(self) -> bytes:
        return self.world.node.keyring.ensure_study(self.world.study_uid).token

    def request(self, **changes: Any) -> bytes:
        """An approved request of the study, for RESEARCH1 and its key."""
        request = self.world.request(**{"publicKeyDigest": self.private.public.digest, **changes})
        self.world.approve(request, "owner", "custodian")
        return request

    def ask(self, request: bytes, study: bytes | None = None, client: KeyClient | None = None) -> bytes:
        return (client or self.client()).keys(request, study or self.study, self.private.public.raw)

    def told(self) -> None:
        """Bring to the ledger what waits in the outbox."""
        for _ in range(2):  # what is counted is posted first
            drain(self.world.node)


def make_https(world: World, ports: Iterator[int], name: str = "localhost") -> Https:
    """The hospital's server, with a certificate of the hospital's CA."""
    keys = world.folder / "https"
    shutil.rmtree(keys, ignore_errors=True)
    certificate, key = issue_server(world.folder / "node" / "organisations" / "owner", name, keys)
    return Https(certificate, key, "127.0.0.1", next(ports))


@contextlib.contextmanager
def served(world: World) -> Iterator[KeyWorld]:
    """Serve a world's keys while the block runs, by the world's clock."""
    folder = world.folder / "node" / "organisations" / "owner" / "identities" / "node"
    ledger = open_ledger(world.node.config.ledger, load_identity(folder), world.clock)
    with closing(free_ports()) as ports, closing(ledger):
        https = make_https(world, ports)
        stop, thread = start(https, world, ledger)
        try:
            yield KeyWorld(world, f"https://localhost:{https.port}")
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()


def start(https: Https, world: World, ledger: OpenLedger) -> tuple[threading.Event, threading.Thread]:
    node = world.node
    parts = node.index, node.keyring, node.manifests, node.library, node.outbox
    release = KeyRelease(ledger, world.gate_by(ledger), *parts, load_identity(node.config.identity))
    server = Server(https, Application(release, ledger, world.clock), ledger)
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    wait_until(lambda: server.started, 10, "the server listens")
    return stop, thread

"""``python -m dicom_scp --config FILE clinical|research|forwarder|beside``: a receiver, what forwards, or what answers
Orthanc's plugin, until SIGTERM.

`orthanc-ledger serve` starts them.
"""

import argparse
import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from dicom_scp import beside, forward
from dicom_scp.ports import Level, ListenerConfig, Peer, Plan, Query
from dicom_scp.server import Listener
from orthanc_ledger.assemble import Node
from orthanc_ledger.config import load
from orthanc_ledger.errors import ConfigError, DataError, ServiceAway
from orthanc_ledger.reasons import Reason
from orthanc_ledger.serve import SUPERVISED, quiet_libraries, stop_event
from orthanc_ledger.web.facts import Facts


class NodeArchive:
    """A node's catalogue and retrieval behind the leaf's port."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def find(
        self,
        asker: Peer,
        level: Level,
        uids: Query,
        keys: Mapping[str, str],
        combined: bool,
        meanwhile: Callable[[], object],
    ) -> Iterator[Mapping[str, str]]:
        return self._node.catalogue.find(asker, level, uids, keys, combined, meanwhile)

    def plan(self, asker: Peer, recipient: Peer, level: Level, uids: Query, meanwhile: Callable[[], object]) -> Plan:
        return self._node.retrieval.plan(asker, recipient, level, uids, meanwhile)

    def count_refusal(self, peer: Peer, reason: Reason) -> None:
        self._node.retrieval.count_refusal(peer, reason)


def main() -> int:
    """Do one of these. Exit code 2: the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="python -m dicom_scp")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("work", choices=("clinical", "research", "forwarder", "beside"))
    parser.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    level = logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    quiet_libraries()
    stop = stop_event(args.supervised)
    try:
        node = Node(load(args.config))
        if args.work == "forwarder":
            forward.serve(node.forwarding, node.config.ae_title, node.config.destinations, stop)
        elif args.work == "beside":
            beside.serve(node.config, NodeArchive(node), Facts(lambda: node.chronicle), stop)
        else:
            _receive(node, args.work, stop)
    except DataError as error:
        print(f"orthanc-ledger: {error}", file=sys.stderr)
        return 2
    except ServiceAway as error:
        print(f"orthanc-ledger: {error}", file=sys.stderr)
        return 3
    return 0


def _receive(node: Node, port: Literal["clinical", "research"], stop: threading.Event) -> None:
    """Raises ConfigError when the port cannot be had."""
    config = node.config
    listen = config.clinical if port == "clinical" else config.research
    if listen is None:
        raise ConfigError(f"{port}: this node has no such port: Orthanc's takes its place")
    listener = Listener(
        ListenerConfig(port, config.ae_title, listen.host, listen.port, config.peers, listen.max_associations),
        node.spool,
        NodeArchive(node),
    )
    gc.freeze()  # what is there now stays: pynetdicom's server has all objects looked through time and again
    try:
        listener.start()
    except OSError as error:
        raise ConfigError(f"{port} port {listen.host}:{listen.port}: {error.strerror}") from error
    logging.info("%s receiver listening on port %d", port, listen.port)
    stop.wait()
    listener.shutdown()


if __name__ == "__main__":
    sys.exit(main())

"""serve, and what it starts; demo."""

import argparse
import contextlib
import logging
import math
import os
import sys
from pathlib import Path

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock, system_clock_us
from orthanc_ledger.commands.terminal import keys_of_others, open_node
from orthanc_ledger.errors import ConfigError, ContentAway, LedgerAway
from orthanc_ledger.serve import (
    PREDECESSOR_ENDS_S,
    SERVE_LOCK,
    SUPERVISED,
    quiet_libraries,
    stop_event,
    supervise,
)
from orthanc_ledger.sole import sole

_SERVE_PATIENCE_S = 1.0  # who looks whether it runs holds its lock for a moment
_NICE = 10  # of anchorer and eraser: whoever sends or asks is waiting, nobody waits for an anchor


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = subparsers.add_parser("serve", help="run the node: all its processes, until SIGTERM")
    serve.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)
    anchorer = subparsers.add_parser("anchorer", help="run the anchorer alone (serve starts it)")
    anchorer.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    anchorer.set_defaults(run=_anchorer)
    courier = subparsers.add_parser("courier", help="bring checkpoints and alarms to their sinks (serve starts it)")
    courier.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    courier.set_defaults(run=_courier)
    web = subparsers.add_parser("web", help="answer the HTTPS calls of research centres (serve starts it)")
    web.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    web.set_defaults(run=_web)
    eraser = subparsers.add_parser("eraser", help="carry out erasures (serve starts it)")
    eraser.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    eraser.set_defaults(run=_eraser)
    demo = subparsers.add_parser("demo", help="show a scan's whole way on real MR files, in a temporary folder")
    demo.add_argument(
        "--consortium", action="store_true", help="on a network of Fabric and Kubo, started for it (from a clone only)"
    )
    demo.add_argument("--orthanc", action="store_true", help="with the plugin in this machine's Orthanc")
    demo.add_argument("--keep", action="store_true", help="keep the folder and say where it is")
    demo.set_defaults(run=_demo)


def _serve(args: argparse.Namespace) -> int:
    node = open_node(args)
    _ = node.keyring, node.spool, node.ledger, node.content  # a wrong configuration stops the start here, named
    try:
        others = keys_of_others(args, node.config)
        if others:
            raise ConfigError("; ".join(others))
    except LedgerAway as error:
        logging.warning("ledger away, research and anchoring wait, whose keys lie here is not known: %s", error)
    try:
        node.content.check()  # one that must not be used stops the start here, its setting named
    except ContentAway as error:
        logging.warning("content store away, research and anchoring wait: %s", error)
    stop = stop_event(args.supervised)
    clinical = "Orthanc's" if node.config.clinical is None else node.config.clinical.port
    logging.info(
        "node %s: clinical port %s, research port %d", node.config.ae_title, clinical, node.config.research.port
    )
    with contextlib.ExitStack() as stack:
        another = ConfigError("another `serve` of this node runs: stop it first")
        # Started with Orthanc it takes over when the other ends: a service, or the last of an Orthanc that was killed.
        patience_s = math.inf if args.supervised else _SERVE_PATIENCE_S
        try:
            stack.enter_context(sole(node.config.data_dir / SERVE_LOCK, another, patience_s, stop.wait))
        except ConfigError:
            if stop.is_set():
                return 0
            raise
        supervise(node.config, Path(args.config), stop, args.verbose)
    return 0


def _anchorer(args: argparse.Namespace) -> int:
    quiet_libraries()
    node: Node = open_node(args)
    stop = stop_event(args.supervised)
    os.nice(_NICE)
    node.anchorer().run(stop, system_clock_us, PREDECESSOR_ENDS_S if args.supervised else 0.0)
    return 0


def _courier(args: argparse.Namespace) -> int:
    node = open_node(args)
    node.courier().run(stop_event(args.supervised))
    return 0


def _web(args: argparse.Namespace) -> int:
    from orthanc_ledger.web.application import Application  # here, as no other command needs a server
    from orthanc_ledger.web.server import Server

    quiet_libraries()
    node = open_node(args)
    if node.config.https is None:
        raise ConfigError(f"{args.config}: https: missing; config/orthanc-ledger.yaml tells its keys")
    ledger = node.ledger_as()
    Server(node.config.https, Application(node.key_release, ledger, system_clock), ledger).run(
        stop_event(args.supervised)
    )
    return 0


def _eraser(args: argparse.Namespace) -> int:
    quiet_libraries()
    node = open_node(args)
    os.nice(_NICE)
    node.eraser().run(stop_event(args.supervised), node.config.ledger_retry_s)
    return 0


def _demo(args: argparse.Namespace) -> int:
    options = [f"--{name}" for name in ("consortium", "orthanc", "keep") if getattr(args, name)]
    command = [sys.executable, "-m", "dicom_scp.demo", *options]
    os.execv(sys.executable, command)  # the demo becomes this process, so that a signal ends it and what it started

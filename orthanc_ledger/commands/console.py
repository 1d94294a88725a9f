"""console: the web application for hospital staff and for people who approve."""

import argparse
import logging

from orthanc_ledger.commands.terminal import add_party
from orthanc_ledger.config import Party, check_data_dir, load_either
from orthanc_ledger.serve import SUPERVISED, quiet_libraries, stop_event


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "console",
        help="run the web application for people (serve starts it on a node)",
        description="Show hospital staff what is under custody, and have people approve what research asks for, in a "
        "browser. The configuration's `console:` says where. Runs until SIGTERM.",
    )
    add_party(parser)
    parser.add_argument(SUPERVISED, action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from orthanc_ledger.web.console.house import console_of, open_house  # here, as no other command needs a server
    from orthanc_ledger.web.console.server import Server

    quiet_libraries()
    config = load_either(args.config)
    if isinstance(config, Party):
        check_data_dir(config)
    console = console_of(config, args.config)
    server = Server(console, open_house(config))
    scheme = "http" if console.certificate is None else "https"
    logging.info("console at %s://%s:%d/", scheme, console.host, console.port)
    server.run(stop_event(args.supervised))
    return 0

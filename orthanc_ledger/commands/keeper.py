"""keeper: the custodian's process that keeps a copy of all that is anchored, checks it and confirms it."""

import argparse

from orthanc_ledger import assemble
from orthanc_ledger.commands.terminal import add_party
from orthanc_ledger.config import load_party
from orthanc_ledger.serve import quiet_libraries, stop_event

KEEPER_LOCK = "keeper.lock"
_RETRY_S = 5.0


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "keeper",
        help="keep a copy of all that is anchored, checked, and confirm it (custodian)",
        description="Pin what is anchored on the custodian's own Kubo, check it whole, and confirm it on the ledger; "
        "verify all of it again every sweep_every_h hours, repair it, erase what is erased. Runs until SIGTERM.",
    )
    add_party(parser)
    parser.set_defaults(run=_keeper)


def _keeper(args: argparse.Namespace) -> int:
    quiet_libraries()
    party, stop = load_party(args.config), stop_event()
    assemble.keeper(party, stop.wait).run(stop, party.data_dir / KEEPER_LOCK, _RETRY_S)
    return 0

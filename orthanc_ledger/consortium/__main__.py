"""``python -m orthanc_ledger.consortium``: the trial network of this machine, up and down."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from orthanc_ledger.commands.terminal import add_json, show
from orthanc_ledger.config import load_party
from orthanc_ledger.consortium import ipfs
from orthanc_ledger.consortium.binaries import chaincode_binary, cluster_binary, fabric_binaries, kubo_binary
from orthanc_ledger.consortium.compose import ENVIRONMENT, WHOLE, compose_files, prepare_compose
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.page import fabric_table, ipfs_table, with_table
from orthanc_ledger.consortium.topology import FABRIC_VERSION, KUBO_VERSION, Server, Topology, trial
from orthanc_ledger.consortium.trial import (
    https_files,
    identity_of,
    party_file,
    put_in_use,
    start_trial,
    trial_policy_sha256,
)
from orthanc_ledger.errors import DataError, ServiceAway

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
PAGES: dict[Path, Callable[[Topology], str]] = {
    ROOT / "docs" / "fabric.md": fabric_table,
    ROOT / "docs" / "ipfs.md": ipfs_table,
}
DEFAULT_DIRECTORY = Path(".consortium")

_NEXT = """\
Hyperledger Fabric {fabric} and Kubo {kubo}: {count} servers run in {directory}; {leader} leads, policy and chaincode
are in force.
People sign, each at their own peer, in a folder without a node, with

{lines}
The hospital's node (docs/parties.md), the only one there has to be:

  orthanc-ledger init node --key-backup FILE {content}--ledger {ledger} --identity {identity}

{ipfs}What runs: `.venv/bin/python -m orthanc_ledger.consortium status`. `make consortium-down` ends it; what is on
ledger and Kubo stays, and who wants a new network removes the folder."""
_IPFS = """\
The custodian's keeper, which keeps a second copy of all on the custodian's Kubo, checks it and confirms it:

  orthanc-ledger keeper --config {keeper}

A research centre that fetches sealed objects from its own Kubo, for its node {ae_title}:

  orthanc-ledger keypair --out keys
  orthanc-ledger request … --node {ae_title} --public-key keys/public.key …
  orthanc-ledger pull REQUEST --config {pull} --hospital https://127.0.0.1:8443 --key keys/private.key --out studies

The hospital's node gives it the keys, with this in its orthanc-ledger.yaml:

  https: {{port: 8443, certificate: {certificate}, key: {key}}}

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        code: int = args.run(args)
    except DataError as error:
        print(f"consortium: {error}", file=sys.stderr)
        return 2
    except ServiceAway as error:
        print(f"consortium: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orthanc_ledger.consortium",
        description="A trial network of Hyperledger Fabric and Kubo on this machine, for trying out and for tests.",
        epilog="Exit codes: 0 done; 1 not all servers run; 2 wrong input; 3 a server did not come up; 130 interrupted.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("up", _up, "start it; the first time build, join, deploy and put the policy in force"),
        ("build", _build, "only build the programs, where they are not in the cache"),
        ("down", _down, "end its servers, and no other process; what they keep stays"),
        ("status", _status, "show its servers; exit 1 when one does not run"),
        ("prepare", _prepare, "write the files for the containers of docker/ instead; nothing is started"),
        ("join", _join, "once those containers run: join, deploy and put the policy in force"),
        ("render", _render, "write docker/*.yaml and the tables of docs/fabric.md and docs/ipfs.md anew"),
    ):
        command = subparsers.add_parser(name, help=text)
        command.add_argument(
            "--dir", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR", help="its folder (default: %(default)s)"
        )
        command.set_defaults(run=run)
    subparsers.choices["up"].add_argument(
        "--cluster", action="store_true", help="a new one with two Kubo nodes for the hospital, and ipfs-cluster"
    )
    add_json(subparsers.choices["status"])
    return parser


def _up(args: argparse.Namespace) -> int:
    network = start_trial(args.dir, args.cluster)
    lines = "".join(
        f"  {each.name}: --ledger fabric:{network.connection(each.name)} "
        f"--as {identity_of(network, each.name, 'person')}\n"
        for each in network.topology.organisations
    )
    hospital, custodian, research, *_ = network.topology.organisations
    connection = ipfs.connection(network.directory, hospital.name)
    has_ipfs = connection.exists()  # a folder of before has none
    certificate, key = https_files(network, hospital.name)
    print(
        _NEXT.format(
            fabric=FABRIC_VERSION,
            kubo=KUBO_VERSION,
            count=len(network.topology.servers),
            directory=network.directory,
            leader=network.wait_for_leader(),
            lines=lines,
            content=f"--content kubo:{connection} " if has_ipfs else "",
            ledger=f"fabric:{network.connection(hospital.name)}",
            identity=identity_of(network, hospital.name, "node"),
            ipfs=_IPFS.format(
                keeper=party_file(network, custodian.name),
                certificate=certificate,
                key=key,
                ae_title=load_party(party_file(network, research.name)).ae_title,
                pull=party_file(network, research.name),
            )
            if has_ipfs
            else "",
        )
    )
    return 0


def _build(_: argparse.Namespace) -> int:
    for build in (fabric_binaries, chaincode_binary, kubo_binary, cluster_binary):
        print(build())
    return 0


def _down(args: argparse.Namespace) -> int:
    network = Network(args.dir)
    network.down()
    print(f"{network.directory}: its servers have ended; `make consortium` starts them again with what they keep")
    return 0


def _status(args: argparse.Namespace) -> int:
    network = Network(args.dir)
    rows = [_row(network, server) for server in network.topology.servers]
    show(rows, args.json, ("name", "port", "pid", "leads", "log"))
    return 0 if all(row["pid"] for row in rows) else 1


def _prepare(args: argparse.Namespace) -> int:
    topology = trial()
    prepare_compose(args.dir.resolve(), topology, trial_policy_sha256(topology))
    print(f"docker compose --env-file {args.dir / ENVIRONMENT} -f docker/{WHOLE} up -d")
    return 0


def _join(args: argparse.Namespace) -> int:
    network = Network(args.dir)
    network.establish()
    put_in_use(network)
    return 0


def _render(_: argparse.Namespace) -> int:
    for name, text in compose_files(trial()).items():
        (DOCKER / name).write_text(text)
    for page, table in PAGES.items():
        page.write_text(with_table(page.read_text(), table(trial())))
    return 0


def _row(network: Network, server: Server) -> dict[str, object]:
    processes = network.processes
    pid, log = processes.pid(server.name), str(processes.log(server.name))
    leads = pid is not None and server.name == network.leader()
    return {"name": server.name, "port": server.port, "pid": pid, "leads": leads, "log": log}


if __name__ == "__main__":
    sys.exit(main())

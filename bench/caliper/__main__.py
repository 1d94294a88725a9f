"""`make caliper`: the contract on Fabric, twenty minutes: under Hyperledger Caliper, then from C-STORE to the commit.

    python -m bench.caliper [--seconds N] [--out FILE]

Prints the report; with --out, into that file too. npm has put Caliper into this folder. Nothing else should run.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from bench.batches import measure_batches, measure_growth, measure_series
from bench.conditions import PACE, machine, pace_s
from bench.peers import BenchError
from bench.report import table
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.topology import CHAINCODE, CHANNEL, trial
from orthanc_ledger.consortium.trial import identity_of, put_in_use, trial_policy_sha256
from orthanc_ledger.ledger.fabric.ledger import FabricLedger
from orthanc_ledger.ledger.identity import load_identity

HERE = Path(__file__).resolve().parent
OPERATIONS = ("upload", "request", "approve", "check", "release")
RATES = (10, 50, 100)
AT_ONCE = 100  # calls in flight in the rounds without a rate
MOST_CALLS = 2000
NODES = tuple(f"RESEARCH{number}" for number in range(100))  # AE titles that requests are for, in turn
_WITHOUT_KEEPER = {"require_stored": False}  # or no release was given
COLUMNS = ("round", "succeeded", "failed", "sent/s", "slowest s", "fastest s", "mean s", "done/s")
REPORT = """\
# Results of `make caliper`

Generated. The trial network runs on one machine with everything that asks it: three Raft orderers, four peers, three
chaincode services, TLS everywhere, endorsement by hospital and custodian, BatchTimeout 100 ms. Aims, reported and not
asserted: no failure at 50/s; 95 % of series anchored within 2 s of their last object; Fabric not the limit of the whole
way with batches of 256 and more.

## Hyperledger Caliper

Caliper 0.6.0 sends the operations of the published design. Each round with a rate lasts {seconds} s; *maximum* keeps
{at_once} of {most_calls:,} calls in flight. Upload is Anchor of a manifest of 256 objects, check is the query
CheckAccess, approve is the custodian's, then, 100 requests behind, the hospital's; {nodes} research nodes ask in turn.

{caliper}

## From C-STORE to the commit

dcmsend sends 10 kB slices over one association to a node on the embedded ledger and to one on Fabric.

{batches}

A series of 20 slices, from its last Success until it is anchored; 0.75 s of it wait for another object.

{series}

## Growth

Anchors of 16 instances each, 50 calls in flight, over 1,000 studies; queries by one client afterwards.

{growth}

## Conditions

{conditions}
"""
_ROW = re.compile(r"^\|\s*(\w+ \S+)\s*" + r"\|\s*([\d.-]+)\s*" * 7 + r"\|", re.MULTILINE)


def rounds(seconds: int) -> Iterator[dict[str, Any]]:
    """Each operation at each rate, then as fast as it goes."""
    for operation in OPERATIONS:
        for rate in RATES:
            control = {"type": "fixed-rate", "opts": {"tps": rate}}
            yield {"label": f"{operation} {rate}/s", "txDuration": seconds, "rateControl": control}
        control = {"type": "fixed-load", "opts": {"transactionLoad": AT_ONCE}}
        yield {"label": f"{operation} maximum", "txNumber": MOST_CALLS, "rateControl": control}


def benchmark(network: Network, seconds: int) -> dict[str, Any]:
    """Caliper's benchmark file."""
    parties = {each.name: {"name": "node", "mspId": each.msp_id} for each in network.topology.organisations}
    told = {"contract": CHAINCODE, "parties": parties, "nodes": [node_of(title) for title in NODES]}
    module = str(HERE / "operations.js")
    found = []
    for each in rounds(seconds):
        operation = each["label"].split()[0]
        found.append({**each, "workload": {"module": module, "arguments": {**told, "operation": operation}}})
    return {"test": {"name": "custody", "workers": {"number": 1}, "rounds": found}}


def caliper_network(network: Network) -> dict[str, Any]:
    """Caliper's network file: every organisation with its node's identity, by way of its first peer."""
    organisations = []
    for each in network.topology.organisations:
        identity = identity_of(network, each.name, "node")
        connection = yaml.safe_load(network.connection(each.name).read_text())
        peer = connection["peers"][0]
        tls_ca = network.connection(each.name).parent / peer["tls_ca"]
        certificate = {
            "name": "node",
            "clientPrivateKey": {"path": str(identity / "keystore" / "key.pem")},
            "clientSignedCert": {"path": str(identity / "signcerts" / "cert.pem")},
        }
        organisations.append(
            {
                "mspid": each.msp_id,
                "identities": {"certificates": [certificate]},
                "peers": [{"endpoint": peer["endpoint"], "tlsCACerts": {"path": str(tls_ca)}}],
            }
        )
    channel = {"channelName": CHANNEL, "contracts": [{"id": CHAINCODE}]}
    return {
        "name": "custody",
        "version": "2.0.0",
        "caliper": {"blockchain": "fabric"},
        "channels": [channel],
        "organizations": organisations,
    }


def node_of(ae_title: str) -> dict[str, str]:
    """A research node as the contract names it."""
    return {"organisation": "ResearchMSP", "aeTitle": ae_title}


def make_network(folder: Path) -> Network:
    """A trial network whose research nodes may ask."""
    topology = trial()
    network = Network.create(folder, trial_policy_sha256(topology, _WITHOUT_KEEPER), topology)
    network.up()
    put_in_use(network, _WITHOUT_KEEPER)
    registrations = [{"aeTitle": title, "role": "research", "certDigests": []} for title in NODES]
    _submit_all(network, "research", "RegisterNode", registrations)
    confirmations = [{"node": node_of(title), "version": 1} for title in NODES]
    _submit_all(network, "custodian", "ConfirmNode", confirmations)
    return network


def _submit_all(network: Network, name: str, function: str, calls: Sequence[Mapping[str, Any]]) -> None:
    ledger = FabricLedger(network.connection(name), load_identity(identity_of(network, name, "node")))
    with closing(ledger), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda args: ledger.submit(function, args), calls))


def measure(seconds: int) -> str:
    """The report as Markdown. Raises BenchError when Caliper fails."""
    with tempfile.TemporaryDirectory(prefix="orthanc-ledger-caliper-") as name:
        folder, pace = Path(name), pace_s()
        network = make_network(folder / "network")
        try:
            (folder / "network.yaml").write_text(yaml.safe_dump(caliper_network(network)))
            (folder / "benchmark.yaml").write_text(yaml.safe_dump(benchmark(network, seconds)))
            said = _caliper(folder)
            tables = [table(measure(network)) for measure in (measure_batches, measure_series, measure_growth)]
        finally:
            network.down()
    rows = {match[1]: dict(zip(COLUMNS, match.groups(), strict=True)) for match in _ROW.finditer(said)}
    expected = [each["label"] for each in rounds(seconds)]
    if list(rows) != expected:
        raise BenchError(f"expected the rounds {expected}, Caliper told of {list(rows)}:\n{said[-2000:]}")
    facts = {**machine(), PACE: f"{pace * 1e3:.0f} ms before, {pace_s() * 1e3:.0f} ms after"}
    conditions = table([{"condition": name, "value": value} for name, value in facts.items()])
    return REPORT.format(
        seconds=seconds,
        at_once=AT_ONCE,
        most_calls=MOST_CALLS,
        nodes=len(NODES),
        caliper=table([*rows.values()]),
        batches=tables[0],
        series=tables[1],
        growth=tables[2],
        conditions=conditions,
    )


def _caliper(folder: Path) -> str:
    command = ["npx", "--no-install", "caliper", "launch", "manager", "--caliper-flow-only-test"]
    for option, value in (
        ("workspace", folder),
        ("networkconfig", "network.yaml"),
        ("benchconfig", "benchmark.yaml"),
        ("report-path", folder / "report.html"),
    ):
        command += [f"--caliper-{option}", str(value)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"Caliper ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.caliper", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each round with a rate (default: 20)")
    parser.add_argument("--out", type=Path, help="write the report here, too")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        text = measure(args.seconds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(text)
    if args.out:
        args.out.write_text(text)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

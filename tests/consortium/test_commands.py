"""`python -m orthanc_ledger.consortium`, as `make consortium` and `make consortium-down` run it."""

import json
import re
import ssl
from pathlib import Path

import pytest
import yaml

from orthanc_ledger.config import load_party
from orthanc_ledger.consortium.__main__ import main
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.content import open_store
from orthanc_ledger.ledger.fabric.connection import read_connection
from orthanc_ledger.ledger.identity import load_identity

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time


def run(network: Network, command: str, *options: str) -> int:
    return main([command, "--dir", str(network.directory), *options])


def test_down_ends_it_up_starts_it_and_tells_how_people_sign_and_a_node_is_made(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(network, "down") == 0
    assert run(network, "status", "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert {row["pid"] for row in rows} == {None}
    assert run(network, "up") == 0
    told = capsys.readouterr().out
    ways = [line.split() for line in told.splitlines() if "--ledger" in line]
    for words, name in zip(ways, ("Hospital", "Custodian", "Research", "Hospital"), strict=True):
        ledger, identity = words[words.index("--ledger") + 1], words[-1]
        assert load_identity(Path(identity)).msp_id == f"{name}MSP"
        assert f"{name}MSP" in read_connection(Path(ledger.removeprefix("fabric:"))).organisations
    assert f"--content kubo:{network.party('hospital') / 'kubo.yaml'} " in told
    for program, role in (("keeper", "Custodian"), ("pull", "Research")):
        (path,) = re.findall(rf"orthanc-ledger {program} .*?--config (\S+)", told)
        party = load_party(Path(path))
        assert load_identity(party.identity).msp_id == party.organisation == f"{role}MSP"
        assert open_store(party.content).check() is None
    (https,) = re.findall(r"^  https: (.+)$", told, re.MULTILINE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(yaml.safe_load(https)["certificate"], yaml.safe_load(https)["key"])
    assert run(network, "up") == 0  # and once more is nothing
    assert run(network, "up", "--cluster") == 2
    assert "made without a cluster" in capsys.readouterr().err
    assert run(network, "join") == 0
    capsys.readouterr()
    assert run(network, "status") == 0
    shown = capsys.readouterr().out
    assert sum("True" in line or "yes" in line for line in shown.splitlines()) == 1  # one leads


def test_a_folder_that_is_no_network_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--dir", str(tmp_path)]) == 2
    assert "expected the folder of a network" in capsys.readouterr().err


def test_a_server_that_does_not_come_up_is_a_service_away(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    log = network.processes.log("chaincode.research")
    network.stop("chaincode.research")
    keys = network.directory / "crypto" / "chaincode" / "research"
    (keys / "server.key").rename(keys / "lost")
    try:
        assert run(network, "up") == 3
        assert f"{log} ends:" in capsys.readouterr().err
    finally:
        (keys / "lost").rename(keys / "server.key")
    assert len(network.processes.names()) == len(network.topology.servers) - 1  # what ran before runs on

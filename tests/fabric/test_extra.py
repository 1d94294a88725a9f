"""Who keeps to the embedded ledger needs nothing of Fabric's; who uses Fabric sees nothing of gRPC."""

import subprocess
import sys
from pathlib import Path

import pytest

from orthanc_ledger.clock import system_clock
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger import open_ledger
from orthanc_ledger.ledger.identity import create_organisation, issue
from tests.conftest import ROOT

EMBEDDED = """
import sys
from orthanc_ledger.cli import main
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import open_ledger
try:
    open_ledger("embedded:nowhere.db").query("GetPolicy", {})
except LedgerAway:
    print(sorted({"grpc", "fabric_protos", "google.rpc"} & sys.modules.keys()))
"""

AWAY = """
import sys
from pathlib import Path
from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger import open_ledger
from orthanc_ledger.ledger.identity import load_identity
try:
    open_ledger(f"fabric:{sys.argv[1]}", load_identity(Path(sys.argv[2])), patience_s=0.0).query("GetPolicy", {})
except LedgerAway:
    print("away")
"""


def run(program: str, *words: object) -> tuple[str, str]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout, done.stderr


def test_the_embedded_ledger_loads_nothing_of_fabrics() -> None:
    assert run(EMBEDDED) == ("[]\n", "")


@pytest.mark.parametrize("missing", ["grpc", "fabric_protos", "google.rpc"])
def test_without_the_extra_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [each for each in sys.modules if each.startswith(("orthanc_ledger.ledger.fabric", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]  # as import has it
    with pytest.raises(ConfigError, match=rf"{missing}.* is not installed: pip install 'orthanc-ledger\[consortium\]'"):
        open_ledger("fabric:connection.yaml")


def test_a_peer_that_is_away_is_told_by_the_error_alone(tmp_path: Path) -> None:
    create_organisation(tmp_path / "hospital", "HospitalMSP", system_clock)
    (tmp_path / "connection.yaml").write_text(
        "channel: custody\nchaincode: custody\norganisation: HospitalMSP\n"
        "peers: [{endpoint: '127.0.0.1:1', tls_ca: hospital/cacerts/ca.pem}]\n"
        "organisations: {HospitalMSP: hospital/cacerts/ca.pem}\n"
    )
    identity = issue(tmp_path / "hospital", "node-1", "node")
    assert run(AWAY, tmp_path / "connection.yaml", identity) == ("away\n", "")

"""The containers' Orthancs: the hospital's with the plugin, a research centre's plain.

Each sees its organisation's folder under the same path as the host.
"""

import json
import secrets
from pathlib import Path
from typing import Any

from orthanc_ledger.consortium.ipfs import PARTIES
from orthanc_ledger.consortium.keys import write
from orthanc_ledger.consortium.topology import LOOPBACK, Organisation, Orthanc
from orthanc_ledger.setup_node import CONFIG_NAME, Plan

PACKAGES = Path("/opt/orthanc-ledger")
"""Where docker/orthanc.Dockerfile installs this project, for the Python of the image."""

_SCRIPT = PACKAGES / "orthanc_ledger" / "plugin" / "start" / "orthanc_ledger_plugin.py"
_PYTHON = "/usr/bin/python3"
_STAFF, _USER = "radiology", "ledger"

# Explorer 2's button for the panel's own page (docs/orthanc.md).
_BUTTON = {
    "HttpMethod": "GET",
    "Id": "ledger",
    "Tooltip": "Chain of custody",
    "Target": "_blank",
    "Icon": "bi bi-shield-check",
    "Url": "../../ledger/studies/{UUID}",
}


def prepare(directory: Path, organisation: Organisation, orthanc: Orthanc) -> None:
    """Write an Orthanc's configuration; its users' passwords are there and nowhere else."""
    party = directory / PARTIES / organisation.name
    own = _plugin(party) if organisation.role == "owner" else _destination()
    users = {"RegisteredUsers": {name: secrets.token_urlsafe(24) for name in (_STAFF, _USER)}}
    content = {**_settings(party, organisation, orthanc), **users, **own}
    write(configuration(directory, organisation), json.dumps(content, indent=1).encode(), 0o600)


def configuration(directory: Path, organisation: Organisation) -> Path:
    """Where an organisation's Orthanc has its configuration."""
    return directory / PARTIES / organisation.name / "orthanc" / "orthanc.json"


def _settings(party: Path, organisation: Organisation, orthanc: Orthanc) -> dict[str, Any]:
    """HTTP on this machine alone, with a password; scans from AEs that are named, at their addresses."""
    storage = str(party / "orthanc" / "storage")
    return {
        "Name": orthanc.name,
        "StorageDirectory": storage,
        "IndexDirectory": storage,
        "DicomAet": organisation.ae_title,
        "DicomPort": orthanc.port,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowStore": False,
        "HttpPort": orthanc.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "DicomWeb": {"Enable": True},
    }


def _plugin(party: Path) -> dict[str, Any]:
    section = {"Configuration": str(party / "node" / CONFIG_NAME), "Python": _PYTHON, "Staff": [_STAFF], "User": _USER}
    explorer = {"UiOptions": {"CustomButtons": {"study": [_BUTTON]}}}
    return {"PythonScript": str(_SCRIPT), "OrthancExplorer2": explorer, "Ledger": section}


def _destination() -> dict[str, Any]:
    """It asks the hospital's node on the research port, and takes what that sends."""
    node = {"AET": Plan.ae_title, "Host": LOOPBACK, "Port": Plan.research_port, "AllowStore": True}
    return {"DicomModalities": {"hospital": node}}

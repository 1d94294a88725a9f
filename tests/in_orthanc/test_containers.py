"""The Orthancs of docker/: their configurations, as `prepare` writes them, with real Orthancs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orthanc_ledger.consortium import orthanc
from orthanc_ledger.consortium.topology import Organisation, trial
from orthanc_ledger.setup_node import Plan, create_node
from tests.in_orthanc.live import ROOT, SCRIPT, STAFF, USERS, LiveOrthanc, Version, python_of

HOSPITAL, _, RESEARCH = trial().organisations
DOCKERFILE = (ROOT / "docker" / "orthanc.Dockerfile").read_text(encoding="utf-8")
Orthancs = Callable[..., LiveOrthanc]


def prepared(directory: Path, organisation: Organisation) -> dict[str, Any]:
    """What the container is told, with a user of the tests', and without its ports, which the tests choose."""
    assert organisation.orthanc is not None
    orthanc.prepare(directory, organisation, organisation.orthanc)
    settings: dict[str, Any] = json.loads(orthanc.configuration(directory, organisation).read_text(encoding="utf-8"))
    assert settings.pop("DicomPort") == organisation.orthanc.port
    assert settings.pop("HttpPort") == organisation.orthanc.http_port
    settings["RegisteredUsers"] |= USERS
    return settings


def test_the_hospital_s_starts_with_the_plugin_and_the_node_beside_it(
    tmp_path: Path, orthancs: Orthancs, version: Version
) -> None:
    settings = prepared(tmp_path, HOSPITAL)
    ledger = settings.pop("Ledger")
    node = Path(ledger["Configuration"]).parent
    create_node(Plan(node, tmp_path / "node.key", all_roles=True, orthanc=True))
    assert (ledger.pop("Python"), settings.pop("PythonScript")) == ("/usr/bin/python3", str(in_the_image(SCRIPT)))
    ledger |= {"Python": python_of(version), "Staff": [*ledger["Staff"], STAFF]}
    running = orthancs(version, ledger=ledger, settings=settings, shared=(node.parent,))
    running.start()
    assert running.call("GET", "/system").json()["DicomAet"] == HOSPITAL.ae_title


def test_a_research_centre_s_asks_the_hospital_s_node_and_stores_nothing_of_strangers(
    tmp_path: Path, orthancs: Orthancs, version: Version
) -> None:
    settings = prepared(tmp_path, RESEARCH)
    running = orthancs(version, settings=settings, shared=(orthanc.configuration(tmp_path, RESEARCH).parent,))
    running.start()
    asked = running.call("GET", "/modalities/hospital/configuration").json()
    assert (asked["AET"], asked["Host"], asked["Port"]) == (Plan.ae_title, "127.0.0.1", Plan.research_port)
    assert running.call("GET", "/system").json()["DicomAet"] == RESEARCH.ae_title


def test_the_image_has_the_packages_where_the_configuration_names_them() -> None:
    assert set(re.findall(r"--target (\S+)", DOCKERFILE)) == {str(orthanc.PACKAGES)}
    assert re.search(rf"PYTHONPATH={orthanc.PACKAGES}\s", DOCKERFILE)


def in_the_image(path: Path) -> Path:
    """Where a file of this project is there."""
    return orthanc.PACKAGES / path.relative_to(ROOT)

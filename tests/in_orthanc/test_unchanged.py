"""Orthanc with the plugin beside a plain one: whoever works with it gets the same answers, ledger and IPFS there or
not.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread

from tests.in_orthanc.conftest import Hospitals
from tests.in_orthanc.day import a_day
from tests.in_orthanc.live import LiveOrthanc, Version
from tests.in_orthanc.peers import Peers
from tests.test_outage import away

pytestmark = pytest.mark.timeout(600)
LAB = {"ae_title": "RESEARCH1", "role": "research", "organisation": "ResearchMSP", "host": "127.0.0.1", "port": 104}


@pytest.fixture
def files(samples_dir: Path) -> list[Path]:
    return sorted((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))


@pytest.fixture
def altered(files: list[Path], tmp_path: Path) -> Path:
    changed = dcmread(files[0])
    changed.StationName = "ELSEWHERE"
    changed.save_as(tmp_path / "altered.dcm")
    return tmp_path / "altered.dcm"


@pytest.mark.parametrize("reached", [True, False], ids=["all there", "ledger and IPFS away"])
def test_a_days_work_has_the_answers_that_a_plain_orthanc_gives(
    version: Version,
    orthancs: Callable[..., LiveOrthanc],
    hospital: Hospitals,
    free_port: Callable[[], int],
    files: list[Path],
    altered: Path,
    reached: bool,
) -> None:
    port = free_port()
    plain = orthancs(version, "plain")
    plain.settings = {"DicomModalities": Peers(plain, port).modalities(), "StableAge": 600}
    plain.start()
    expected = list(a_day(Peers(plain, port), files, altered))
    node = {"peers": [LAB], **({} if reached else {"content": "kubo:kubo.yaml"})}
    made = hospital({"Move": True}, plain.settings, node)
    folder = made.node.config.parent
    kubo_that_is_away(folder, free_port())
    with nullcontext() if reached else away(folder / "data" / "ledger.db"):
        made.start()
        got = list(a_day(Peers(made.orthanc, port), files, altered))
    assert [step for step, *_ in got] == [step for step, *_ in expected]
    differing = {
        step: (told, was)
        for (step, *told), (_, *was) in zip(got, expected, strict=True)
        if [but_what_differs(step, each, version) for each in told]
        != [but_what_differs(step, each, version) for each in was]
    }
    assert differing == {}


def but_what_differs(step: str, told: Any, version: Version) -> Any:
    """An answer without what docs/orthanc.md says is another with the plugin: research peers are shown among the
    modalities, and Orthanc 1.10.1 does not let it count what a C-MOVE has sent, or tell how it failed.
    """
    if step in ("GET /modalities", "GET /modalities?expand"):
        return told | {"body": [each for each in entries(told["body"]) if each[0] != LAB["ae_title"]]}
    if step.startswith("C-MOVE") and version == "1.10.1" and told.get("status"):
        return told["status"]["Status"] == 0x0000, told["arrived"]
    return told


def entries(listed: Any) -> list[tuple[str, Any]]:
    return list(listed.items()) if isinstance(listed, dict) else [(each, None) for each in listed]


def kubo_that_is_away(folder: Path, port: int) -> None:
    """The file that `content: kubo:kubo.yaml` names, of a node where nobody listens."""
    (folder / "kubo").mkdir()
    (folder / "kubo" / "config").write_text("{}")
    (folder / "kubo.token").write_text("nobody:asks")
    api = f"http://127.0.0.1:{port}"
    node = {"name": "kubo0", "api": api, "token": "kubo.token", "kubo_repo": "kubo"}
    (folder / "kubo.yaml").write_text(yaml.safe_dump({"nodes": [node], "local": "data/objects"}))

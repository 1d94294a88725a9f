"""Orthanc with the plugin beside a plain one: whoever works with it gets the same answers, ledger and IPFS there or
not.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.in_orthanc.conftest import Hospitals
from tests.in_orthanc.day import Peers, a_day
from tests.in_orthanc.live import LiveOrthanc, Version
from tests.test_outage import away

pytestmark = pytest.mark.timeout(600)


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
    made = hospital(settings=plain.settings)
    with nullcontext() if reached else away(made.node.folder / "node" / "data" / "ledger.db"):
        made.start()
        got = list(a_day(Peers(made.orthanc, port), files, altered))
    assert [step for step, *_ in got] == [step for step, *_ in expected]
    differing = {step: (told, was) for (step, *told), (_, *was) in zip(got, expected, strict=True) if told != was}
    assert differing == {}

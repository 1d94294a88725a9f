"""The bench: one scenario of a quick run with real peers, and how figures become tables and a chart."""

import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from bench import plugin, report, retrieve, store
from bench.peers import PEERS, SEARCH_PATH, BenchError, Orthanc, OrthancLedger
from bench.sender import send_together
from bench.slices import LARGE, MEDIUM, SMALL, Size, copies, huge_object
from bench.store import Huge, Rates, Scenario

RATES = Rates(
    {"dcmtk storescp": [900.0, 1000.0], Orthanc.name: [250.0, 200.0, 190.0], OrthancLedger.name: [300.0, 500.0, 400.0]},
    {OrthancLedger.name: [150.0, 100.0, 120.0]},
)
FETCHED = {Orthanc.name: [1000.0], retrieve.OURS_CLINICAL: [900.0, 1100.0, 800.0], retrieve.OURS_RESEARCH: [600.0]}


@pytest.fixture(name="_installed")
def _installed(dcmtk: Callable[[str], str]) -> None:
    dcmtk("dcmsend")
    if shutil.which("Orthanc", path=SEARCH_PATH) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Orthanc is not installed")


@pytest.mark.usefixtures("_installed")
def test_a_scenario_gives_the_rates_of_every_peer_and_what_ours_anchored() -> None:
    rates = store.measure(Scenario("few", SMALL, 12, associations=2), [Orthanc, OrthancLedger], repeats=1)
    assert rates.acknowledged.keys() == {Orthanc.name, OrthancLedger.name}
    assert rates.anchored.keys() == {OrthancLedger.name}
    assert 0 < rates.anchored[OrthancLedger.name][0] < rates.acknowledged[OrthancLedger.name][0]


@pytest.mark.usefixtures("_installed")
def test_orthanc_is_measured_plain_with_the_plugin_and_with_the_node() -> None:
    taken = plugin.measure(Scenario("few", SMALL, 12, associations=2), repeats=1)
    rows = plugin.rows(taken)
    assert [row[""] for row in rows] == [peer.name for peer in plugin.PEERS]
    assert rows[0]["time"] == "1.00×"
    assert all(each > 0 for times in taken.time.values() for each in times)


@pytest.mark.usefixtures("_installed")
def test_one_association_for_each_image_is_acknowledged() -> None:
    rates = store.measure(Scenario("alone", MEDIUM, 3, alone=True), [Orthanc], repeats=1)
    assert rates.acknowledged[Orthanc.name][0] > 0


def test_what_is_not_acknowledged_ends_the_bench(dcmtk: Callable[[str], str], tmp_path: Path) -> None:
    dcmtk("dcmsend")
    never_started = Orthanc(tmp_path / "peer")
    with pytest.raises(BenchError, match="Orthanc acknowledged 0 of 2 objects"):
        send_together(never_started, copies(SMALL, tmp_path / "copies", 2), tmp_path)


def test_a_peer_that_ends_at_once_ends_the_bench_with_what_it_said(tmp_path: Path) -> None:
    class Broken(Orthanc):
        def command(self) -> list[str]:
            return [sys.executable, "-c", "import sys; sys.exit('no such disk')"]

    with pytest.raises(BenchError, match="no such disk"), Broken(tmp_path / "peer").running():
        pytest.fail("it runs")


@pytest.mark.parametrize(("size", "about"), [(SMALL, 10_000), (MEDIUM, 131_000), (LARGE, 525_000)])
def test_copies_have_the_size_that_is_said_and_nothing_twice(tmp_path: Path, size: Size, about: int) -> None:
    studies = copies(size, tmp_path / "copies", 6, studies=2)
    files = [file for study in studies for file in study.iterdir()]
    objects = [dcmread(file) for file in files]
    assert all(abs(file.stat().st_size - about) < about / 50 for file in files)
    assert len({each.SOPInstanceUID for each in objects}) == len({each.PixelData for each in objects}) == 6
    assert len({each.StudyInstanceUID for each in objects}) == 2
    assert all(each.pixel_array.shape == (size.rows, size.columns) for each in objects)


def test_the_huge_object_is_read_as_so_many_frames(tmp_path: Path) -> None:
    size = huge_object(tmp_path / "huge.dcm", 2)
    ds = dcmread(tmp_path / "huge.dcm")
    assert size == pytest.approx(2_000_000, rel=0.3)
    assert ds.pixel_array.shape == (ds.NumberOfFrames, LARGE.rows, LARGE.columns)


def test_in_three_repeats_no_peer_is_twice_the_first() -> None:
    assert len({store.rotated(PEERS, repeat)[0] for repeat in range(3)}) == 3
    assert all(sorted(kind.name for kind in store.rotated(PEERS, n)) == sorted(k.name for k in PEERS) for n in range(9))


def test_a_peer_s_median_and_its_ratio_to_orthanc_s_median_are_in_the_table() -> None:
    lines = report.store_table(RATES).splitlines()
    assert lines[-1] == f"| {OrthancLedger.name} | 400 (300–500) | 2.00× | 120 (100–150) | 0.60× |"
    assert lines[2] == "| dcmtk storescp | 950 (900–1,000) | 4.75× | – | – |"


def test_an_aim_is_reached_by_the_median() -> None:
    ratios = report.store_ratios("MR", RATES) + report.retrieve_ratios(FETCHED)
    assert [line.split("|")[-2].strip() for line in report.aims_table(ratios).splitlines()[2:]] == [
        "yes",  # acknowledged 2.0 of 2
        "no",  # anchored 0.6 of 1
        "no",  # clinical 0.9 of 1
        "yes",  # research 0.6 of 0.5
    ]


def test_megabytes_a_second_count_from_the_first_byte_to_the_answer() -> None:
    table = report.huge_table(1_000_000_000, {OrthancLedger.name: Huge(4.0, 10.0, 107_000_000, 600_000_000)})
    assert table.splitlines()[-1] == f"| {OrthancLedger.name} | 250 | 100 | 107 | 600 |"


def test_the_chart_has_a_bar_and_an_aim_for_every_ratio_within_its_frame() -> None:
    ratios = report.store_ratios("10 kB & more", RATES) + report.retrieve_ratios(FETCHED)
    svg = ET.fromstring(report.chart(ratios, "caption"))
    space = "{http://www.w3.org/2000/svg}"
    width = float(svg.attrib["viewBox"].split()[2])
    bars = [rect for rect in svg.iter(f"{space}rect") if rect.get("x")]
    assert len(bars) == len([path for path in svg.iter(f"{space}path") if path.get("stroke") == "black"]) == 4
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) < width for bar in bars)
    assert "10 kB & more: acknowledged" in {text.text for text in svg.iter(f"{space}text")}

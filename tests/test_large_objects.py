"""Objects of hundreds of megabytes: received, anchored and retrieved in bounded memory, and nothing in clear left
behind.
"""

import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from live_node import LiveNode, dcmtk_environment, make_live_node
from pydicom import dcmread

PEAK_MB = 256
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def make_large(source: Path, target: Path, size: int, number: int) -> str:
    """An Enhanced MR object of about ``size`` bytes, its frames those of a real slice, each numbered; its Study
    Instance UID.
    """
    ds = dcmread(source)
    frame = ds.PixelData
    ds.NumberOfFrames = size // len(frame)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.10.2.{number}"
    ds.StudyInstanceUID = f"1.2.826.0.1.3680043.10.3.{number}"
    for tag in [tag for tag in ds if tag.tag >= 0x7FE00010]:
        del ds[tag.tag]
    ds.save_as(target)
    with target.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, ds.NumberOfFrames * len(frame)))
        for index in range(ds.NumberOfFrames):
            file.write(struct.pack("<I", index) + frame[4:])
    return str(ds.StudyInstanceUID)


def peaks_mb(node: LiveNode) -> dict[int, int]:
    """Peak resident set of each of the node's processes."""
    found = {}
    for pid in (*node.children(), *node.workers()):
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        found[pid] = int(line.split()[1]) // 1024
    return found


@pytest.fixture
def node(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[LiveNode]:
    live = make_live_node(tmp_path, free_port)
    live.start()
    yield live
    live.stop()
    shutil.rmtree(tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size_mb", [300, 2000])
def test_received_anchored_and_retrieved_within_256_mb(
    node: LiveNode,
    samples_dir: Path,
    dcmtk: Callable[[str], str],
    tmp_path: Path,
    size_mb: int,
    figure: Callable[[str], None],
) -> None:
    source = min((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))
    large = tmp_path / "large.dcm"
    study = make_large(source, large, size_mb * 1_000_000, size_mb)
    command = [dcmtk("storescu"), "-aet", "MRI1", "-aec", "NODE", "127.0.0.1", str(node.ports["clinical"]), str(large)]
    subprocess.run(command, check=True, env=dcmtk_environment(), timeout=300, capture_output=True)
    node.wait_anchored(1, timeout_s=270)
    node.approve(study)
    for caller, port in (("VIEWER", "clinical"), ("RESEARCH1", "research")):
        folder = tmp_path / caller
        folder.mkdir()
        command = [dcmtk("getscu"), "-S", "+B", "-od", str(folder), "-aet", caller, "-aec", "NODE", "127.0.0.1"]
        command += [str(node.ports[port]), "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
        subprocess.run(command, check=True, env=dcmtk_environment(), timeout=300, capture_output=True)
        (received,) = folder.iterdir()
        assert subprocess.run(["cmp", "--quiet", *data_sets(large, received)]).returncode == 0
        shutil.rmtree(folder)
    peaks = peaks_mb(node)
    figure(f"{size_mb} MB: peak resident sets of the node's processes {sorted(peaks.values())} MB")
    assert max(peaks.values()) <= PEAK_MB


def data_sets(left: Path, right: Path) -> list[str]:
    """Arguments for cmp: both files, and how many bytes of each come before its data set."""
    offsets = []
    for path in (left, right):
        with path.open("rb") as file:
            file.seek(140)
            offsets.append(144 + int.from_bytes(file.read(4), "little"))
    return [str(left), str(right), *map(str, offsets)]


def test_a_receiver_killed_in_the_middle_leaves_no_file(
    node: LiveNode,
    samples_dir: Path,
    dcmtk: Callable[[str], str],
    tmp_path: Path,
    start_process: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    source = min((samples_dir / "ge-discovery-mr750").rglob("*.dcm"))
    large = tmp_path / "large.dcm"
    make_large(source, large, 300_000_000, 7)
    before = set(node.folder.rglob("*"))
    command = [dcmtk("storescu"), "-aet", "MRI1", "-aec", "NODE", "127.0.0.1", str(node.ports["clinical"]), str(large)]
    sender = start_process(command, env=dcmtk_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    receivers = [pid for pid in node.children() if "clinical" in Path(f"/proc/{pid}/cmdline").read_text()]

    def receiving() -> bool:
        return any(unnamed_size(pid) > 10_000_000 for pid in receivers)

    wait_until(receiving, 60, "ten megabytes have arrived")
    for pid in receivers:
        os.kill(pid, signal.SIGKILL)
    sender.wait(60)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in receivers), 30, "the receiver is gone")
    left = [path for path in set(node.folder.rglob("*")) - before if path.is_file() and path.stat().st_size > 100_000]
    assert left == []


def unnamed_size(pid: int) -> int:
    """Bytes in the unnamed files that a process holds open."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "/inbox/#" in os.readlink(link):
                total += link.stat().st_size
        except OSError:  # closed since
            continue
    return total

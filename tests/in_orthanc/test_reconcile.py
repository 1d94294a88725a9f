"""What came to Orthanc without its hooks comes under custody by itself, exactly once, whoever is killed meanwhile; what
was there before comes on demand.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import wait_until

from orthanc_ledger.outbox import MISSED
from orthanc_ledger.spool import CONFLICTS, INBOX
from tests.in_orthanc.conftest import Hospital, Hospitals
from tests.in_orthanc.kept import ANCHORED_S, Kept, Scan, data_set_of, instances, store, study
from tests.in_orthanc.live import STUDENT, LiveOrthanc
from tests.in_orthanc.test_ingest import MODALITIES


@pytest.fixture
def sources(samples_dir: Path) -> list[Path]:
    return sorted(samples_dir.rglob("*.dcm"))


@pytest.fixture
def served(hospital: Hospitals) -> Iterator[Hospital]:
    """A hospital whose node runs as a service of its own, over all of Orthanc's restarts; nothing is started yet."""
    made = hospital(ledger={"Serve": False}, settings={"DicomModalities": MODALITIES})
    yield made
    made.node.stop()


def plain(made: Hospital) -> LiveOrthanc:
    """The same Orthanc without the plugin."""
    return replace(made.orthanc, ledger=None, process=None)


def upload(orthanc: LiveOrthanc, scans: list[Scan]) -> None:
    for each in scans:
        assert orthanc.call("POST", "/instances", each.content).status == 200


def without_the_plugin(made: Hospital, *scans: Scan, forget: bool = False) -> None:
    """They come by C-STORE while Orthanc runs without it; ``forget``: staff delete its changes."""
    orthanc = plain(made)
    orthanc.start()
    try:
        assert set(store(orthanc, scans)) == {0x0000}
        if forget:
            assert orthanc.call("DELETE", "/changes").status == 200
    finally:
        orthanc.stop()


def origins(kept: Kept, scans: list[Scan]) -> set[str]:
    """How they came, once they are anchored."""
    return {row.origin for row in kept.anchored(scans)}


def members(kept: Kept) -> Counter[str]:
    """How often each object is on the ledger, by its instance token."""
    ledger, found = kept.node.ledger, Counter[str]()
    for anchor in ledger.query("Anchors", {}):
        records = kept.node.manifests.read(anchor["manifestCid"], anchor["study"]).records
        found.update(record.instance.hex() for record in records)
    return found


def test_what_hooks_missed_is_taken_by_itself_and_what_was_before_on_demand(
    served: Hospital, sources: list[Path]
) -> None:
    before, hooked, missed, forgotten = (study(sources[n : n + 3]) for n in (0, 3, 6, 9))
    before[2:] = study(sources[2:3])
    kept = Kept(served.node)
    without_the_plugin(served, *before)
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second, 5, "it is a second later")
    served.node.launch()
    orthanc = served.orthanc
    orthanc.start()
    upload(orthanc, hooked)
    assert origins(kept, hooked) == {"rest-user"}
    wait_until(lambda: kept.node.pacs.earlier() == 3, ANCHORED_S, "what was before is counted")

    inbox = kept.node.spool.folder / INBOX
    inbox.rename(inbox.with_name("gone"))
    inbox.symlink_to("nowhere")  # or a process that starts late makes another
    upload(orthanc, missed)
    inbox.unlink()
    inbox.with_name("gone").rename(inbox)
    wait_until(lambda: kept.node.outbox.standing(MISSED, MISSED), ANCHORED_S, "the hooks' alarm is raised")
    assert origins(kept, missed) == {"rest-user"}, "the policy knows what came over HTTP by its origin"
    wait_until(lambda: not kept.node.outbox.alarms(), ANCHORED_S, "no alarm stands")

    orthanc.stop()
    without_the_plugin(served, *forgotten, forget=True)
    orthanc.start()
    [row] = served.node.rows("reconcile")
    assert (row["untaken"], row["earlier"], row["to_decide"]) == (0, 3, 0)
    assert origins(kept, forgotten) == {"reconciled"}

    [done] = served.node.rows("backfill", "--study", before[0].study_uid)
    assert (done["total"], done["taken"], done["left"]) == (2, 2, 0)
    assert kept.node.pacs.earlier() == 1
    assert re.search(r"1 of 1 objects, [\d.]+ a second", at_a_terminal(served, "backfill"))
    assert origins(kept, before) == {"backfill"}
    assert kept.node.pacs.earlier() == 0
    assert set(members(kept).values()) == {1}
    assert len(members(kept)) == 12
    assert not kept.node.spool.names(CONFLICTS)
    assert not kept.node.outbox.alarms()
    served.node.command("sweep")


def at_a_terminal(made: Hospital, *words: str) -> str:
    """What a command says there, besides its result."""
    ours, its = os.openpty()
    with open(ours, "rb") as terminal, open(its, "wb") as stderr:
        line = [sys.executable, "-m", "orthanc_ledger", "--config", str(made.node.config), *words]
        subprocess.run(line, stdout=subprocess.DEVNULL, stderr=stderr, timeout=120, check=True)
        return terminal.read1().decode()


def reconcilers(made: Hospital) -> list[int]:
    """Process ids of the node's reconcilers."""
    found = []
    for pid in made.node.all_processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [pid] if b"reconciler" in words else []
    return found


def test_whoever_is_killed_while_it_is_taken_nothing_is_lost_or_taken_twice(
    served: Hospital, sources: list[Path]
) -> None:
    scans = [each for _ in range(4) for each in study(sources)]
    served.orthanc.start()  # the plugin's first start
    served.orthanc.stop()
    without_the_plugin(served, *scans)
    kept = Kept(served.node)
    served.orthanc.start()
    served.node.launch()

    def taken() -> int:
        return sum(kept.node.pacs.held(uid) for uid in {each.study_uid for each in scans})

    wait_until(lambda: taken() > len(scans) // 8, ANCHORED_S, "some are taken")
    for pid in reconcilers(served):
        os.kill(pid, signal.SIGKILL)
    served.orthanc.kill()
    served.orthanc.start()  # it lets in with another secret
    assert origins(kept, scans) == {"reconciled"}
    assert members(kept) == Counter(dict.fromkeys(members(kept), 1))
    assert len(members(kept)) == len(scans)
    assert not kept.node.spool.names(CONFLICTS)


def test_what_orthanc_cannot_read_is_listed_with_the_reason_until_staff_delete_it(
    served: Hospital, sources: list[Path]
) -> None:
    served.orthanc.start()  # the plugin's first start
    served.orthanc.stop()
    damaged, whole = study(sources[:1]), study(sources[1:2])
    without_the_plugin(served, *damaged, *whole)
    stored = (served.orthanc.folder / "storage").glob("*/*/*")
    [file] = (path for path in stored if damaged[0].sop_uid.encode() in path.read_bytes()[:1024])
    file.unlink()
    served.orthanc.start()
    [row] = served.node.rows("reconcile")
    assert (row["taken"], row["untaken"]) == (1, 1)
    [row] = served.node.rows("pacs", "untaken")
    assert (row["study_instance_uid"], row["reason"]) == (
        damaged[0].study_uid,
        "Orthanc cannot read it: its log says why",
    )
    assert "not taken from Orthanc" in {alarm["kind"] for alarm in served.node.status()["alarms"]}
    [at] = served.orthanc.call("POST", "/tools/lookup", damaged[0].study_uid).json()
    assert served.orthanc.call("DELETE", at["Path"]).status == 200
    [row] = served.node.rows("reconcile")
    assert row["untaken"] == 0
    assert served.node.rows("pacs", "untaken") == []


def test_without_the_plugin_orthanc_is_as_ever_and_its_node_can_go_on_alone(
    served: Hospital, sources: list[Path], free_port: Callable[[], int]
) -> None:
    node, scans = served.node, study(sources[:3])
    served.orthanc.start()
    upload(served.orthanc, scans)
    served.orthanc.stop()
    orthanc = plain(served)
    orthanc.start()
    assert instances(orthanc) == 3
    assert orthanc.call("GET", "/studies", user=STUDENT).status == 200
    orthanc.stop()
    node.ports["clinical"] = free_port()
    raw = yaml.safe_load(node.config.read_text())
    del raw["orthanc"]
    peers = [{"ae_title": "WS1", "role": "clinical"}, {"ae_title": "MRI1", "role": "modality"}]
    raw |= {"clinical": {"port": node.ports["clinical"]}, "peers": peers}
    node.config.write_text(yaml.safe_dump(raw))
    node.launch()
    wait_until(lambda: node.echo("WS1", "clinical"), ANCHORED_S, "the node answers")
    node.wait_anchored(3)
    status, _, received = node.get("WS1", "clinical", QueryRetrieveLevel="STUDY", StudyInstanceUID=scans[0].study_uid)
    assert (status.Status, received) == (0, {each.sop_uid: data_set_of(each.content) for each in scans})

"""What came to Orthanc without its hooks comes under custody by itself, exactly once, whoever is killed meanwhile; what
was there before comes on demand.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import wait_until

from orthanc_ledger.outbox import MISSED
from orthanc_ledger.spool import CONFLICTS, INBOX
from tests.in_orthanc.conftest import Hospital, Hospitals
from tests.in_orthanc.kept import ANCHORED_S, Kept, Scan, store, study
from tests.in_orthanc.live import LiveOrthanc
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
    upload(orthanc, missed)
    inbox.with_name("gone").rename(inbox)
    assert MISSED in {alarm.kind for alarm in kept.node.outbox.alarms()}
    assert origins(kept, missed) == {"rest-user"}, "the policy knows what came over HTTP by its origin"
    wait_until(lambda: not kept.node.outbox.alarms(), ANCHORED_S, "no alarm stands")

    orthanc.stop()
    without_the_plugin(served, *forgotten, forget=True)
    orthanc.start()
    [row] = served.node.rows("reconcile")
    assert (row["untaken"], row["earlier"], row["to_decide"]) == (0, 3, 0)
    assert origins(kept, forgotten) == {"reconciled"}

    [done] = served.node.rows("backfill", "--study", before[0].study_uid)
    assert (done["total"], done["taken"], done["left"]) == (3, 3, 0)
    assert origins(kept, before) == {"backfill"}
    assert kept.node.pacs.earlier() == 0
    assert set(members(kept).values()) == {1}
    assert len(members(kept)) == 12
    assert not kept.node.spool.names(CONFLICTS)
    assert not kept.node.outbox.alarms()
    served.node.command("sweep")


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

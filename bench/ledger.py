"""How fast the embedded ledger appends, by one process and by three at once, and how long fsck takes for it all.

    python bench/ledger.py [ENTRIES]

Anchor, LogRelease and LogOutcome in turn, each durable (synchronous=FULL) before the next; half of the entries by one
process, half by three. The ledger lies in a temporary folder of the disk that TMPDIR names.
"""

import multiprocessing
import resource
import secrets
import sys
import tempfile
import time
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.ledger.contract.policy import default_policy
from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.fsck import check
from orthanc_ledger.ledger.identity import ca_certificate, create_organisation, issue, load_identity

OWNER, CUSTODIAN, LAB = "OwnerMSP", "CustodianMSP", "LabMSP"
NODE = {"organisation": LAB, "aeTitle": "LAB1"}
TURN = 3  # entries of a writer's turn: an anchor, a release, its outcome
WRITERS = 3


def prepare(folder: Path) -> None:
    """A ledger with a confirmed node, and an identity for each writer."""
    for msp_id in (OWNER, CUSTODIAN, LAB):
        create_organisation(folder / msp_id, msp_id)
        for number in range(WRITERS):
            issue(folder / msp_id, f"node-{number}", "node")
    policy = default_policy({OWNER: "owner", CUSTODIAN: "custodian", LAB: "research"})
    organisations = {msp_id: ca_certificate(folder / msp_id) for msp_id in (OWNER, CUSTODIAN, LAB)}
    create_ledger(folder / "ledger.db", organisations, policy)
    with closing(open_as(folder, OWNER)) as owner:
        owner.submit("InitPolicy", {"policy": policy})
    with closing(open_as(folder, LAB)) as lab:
        lab.submit("RegisterNode", {"aeTitle": "LAB1", "role": "research", "certDigests": []})
    with closing(open_as(folder, CUSTODIAN)) as custodian:
        custodian.submit("ConfirmNode", {"node": NODE, "version": 1})


def open_as(folder: Path, msp_id: str, number: int = 0) -> EmbeddedLedger:
    return EmbeddedLedger(folder / "ledger.db", load_identity(folder / msp_id / "identities" / f"node-{number}"))


def approved_request(folder: Path, study: bytes) -> bytes:
    """A request for a study, approved for the hour."""
    arguments = {
        "studies": [study],
        "sopClasses": ["1.2.840.10008.5.1.4.1.1.4"],
        "duo": ["DUO:0000042"],
        "days": 1,
        "node": NODE,
        "release": "identified",
        "future": True,
        "descriptionDigest": bytes(32),
    }
    with closing(open_as(folder, LAB)) as lab:
        request: bytes = lab.submit("RequestAccess", arguments).result["id"]
    for msp_id in (OWNER, CUSTODIAN):
        with closing(open_as(folder, msp_id)) as approver:
            until = int(time.time()) + 3600
            approver.submit("Approve", {"id": request, "until": until, "release": "identified"})
    return request


def write(folder: Path, number: int, turns: int, start: Barrier) -> None:
    """A process: so many anchors, releases and outcomes of a study of its own."""
    study = secrets.token_bytes(16)
    request = approved_request(folder, study)
    with closing(open_as(folder, OWNER, number)) as ledger:
        start.wait()
        for _ in range(turns):
            manifest = block_cid(secrets.token_bytes(32))
            anchor = {"manifestCid": manifest, "study": study, "root": bytes(32), "count": 200, "kind": "original"}
            ledger.submit("Anchor", anchor)
            release = {
                "request": request,
                "study": study,
                "anchors": [manifest],
                "instancesRoot": bytes(32),
                "count": 200,
                "standingVersion": 0,
                "node": NODE,
            }
            released: bytes = ledger.submit("LogRelease", release).result["release"]
            outcome = {"release": released, "sent": 200, "withheld": 0, "bitmapDigest": bytes(32)}
            ledger.submit("LogOutcome", outcome)
        start.wait()


def append(folder: Path, writers: int, turns: int) -> float:
    """Entries a second that so many processes append together, each so many turns."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(writers + 1)
    processes = [spawn.Process(target=write, args=(folder, number, turns, barrier)) for number in range(writers)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return writers * turns * TURN / seconds


def main(entries: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for writers in (1, WRITERS):
            rate = append(folder, writers, entries // 2 // TURN // writers)
            print(f"appended by {writers} at once: {rate:,.0f} entries/s", flush=True)
        began = time.perf_counter()
        report = check(folder / "ledger.db")
        seconds = time.perf_counter() - began
        megabytes = (folder / "ledger.db").stat().st_size / 1e6
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        assert not report.findings, report.findings[0]
        print(
            f"fsck: {report.size:,} entries, {report.state_rows:,} state rows, {megabytes:,.0f} MB in {seconds:.1f} s "
            f"({report.size / seconds:,.0f} entries/s), {memory:,.0f} MB of memory at most"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

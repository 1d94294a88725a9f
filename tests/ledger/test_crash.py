"""A process killed while it appends leaves whole entries only."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.fsck import check
from tests.ledger.channel import DIGEST, OWNER, START, STUDY, People, cid, policy

ROOT = Path(__file__).resolve().parents[2]
APPEND_FOREVER = """
import itertools, sys
from pathlib import Path
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import load_identity
from tests.ledger.channel import DIGEST, START, STUDY, cid
ledger = EmbeddedLedger(Path(sys.argv[1]), load_identity(Path(sys.argv[2])), lambda: START)
for number in itertools.count():
    args = {"manifestCid": cid(f"m{number}"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    ledger.submit("Anchor", args)
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill_and_nothing_is_half_written(
    tmp_path: Path, people: People, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    path = tmp_path / "ledger.db"
    create_ledger(path, people.ca_certificates, policy(), lambda: START)
    ledger = EmbeddedLedger(path, people.identities[OWNER], lambda: START)
    ledger.submit("InitPolicy", {"policy": policy()})
    folder = people.folder / OWNER / "identities" / "person-1"
    for kill_after in (5, 40, 90):
        command = [sys.executable, "-c", APPEND_FOREVER, path, folder]
        process = start_process(command, stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(kill_after):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        acknowledged = int(last[-1]) if last else acknowledged
        assert ledger.query("GetAnchor", {"manifestCid": cid(f"m{acknowledged}")})["stored"] is False
        report = check(path)
        assert (report.size, report.findings) == (ledger.size, ())
    args = {"manifestCid": cid("m0"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}
    assert ledger.submit("Anchor", args).position == 2
    ledger.close()

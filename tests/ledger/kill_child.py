"""What test_crash.py runs under strace, which ends or fails a process's call of a system call at a fixed number.

``python -m tests.ledger.kill_child MODE TEMPLATE TARGET PEOPLE CALL=NUMBER…`` forks one child for each point, on a
copy of the ledger's file TEMPLATE. With CALL=NUMBER strace acts on a child's NUMBER-th such call: the child spends
NUMBER − n of them on nothing, then works, and so is hit at the n-th of its work, n from 1 to NUMBER; mode *kill*: until
a child survives; *fail some*: every fifth. Prints the points as JSON.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from orthanc_ledger.errors import LedgerAway
from orthanc_ledger.ledger.contract.policy import default_policy
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity, load_identity
from orthanc_ledger.ledger.transaction import sign
from tests.ledger.channel import CUSTODIAN, LAB, OWNER, ROLES, START, Channel, cid

NO_FILE = 1_000_000
IDLE_CALLS: dict[str, Callable[[], object]] = {
    "pwrite64": lambda: os.pwrite(NO_FILE, b"", 0),
    "write": lambda: os.write(NO_FILE, b""),
    "fsync": lambda: os.fsync(NO_FILE),
    "fdatasync": lambda: os.fdatasync(NO_FILE),
    "ftruncate": lambda: os.ftruncate(NO_FILE, 0),
    "unlink": lambda: os.unlink("/nowhere/at/all"),
}
ENTRIES = 12  # that the work leaves, the genesis included


def work(path: Path, people: Mapping[str, Identity], note: Callable[[str], object]) -> int:
    """Append a story in two sessions, each ended by SQLite's WAL checkpoint; the same transactions whenever it is run.

    Each is noted by its id once it is acknowledged, and tried again while the ledger is away: how often it was.
    """
    away = 0

    def submit(ledger: EmbeddedLedger, organisation: str, function: str, **args: Any) -> Any:
        nonlocal away
        nonce = f"{function:16.16}".encode()
        transaction = sign(people[organisation], ledger.log_id, function, args, nonce, START)
        while True:
            try:
                committed = ledger.append(transaction)
                break
            except LedgerAway:
                away += 1
        note(committed.tx_id.hex())
        return committed.result

    manifest = {"manifestCid": cid("m0"), "study": b"s" * 16, "root": b"d" * 32, "count": 3, "kind": "original"}
    with contextlib.closing(EmbeddedLedger(path, None, lambda: START)) as ledger:
        submit(ledger, OWNER, "InitPolicy", policy=default_policy(ROLES))
        submit(ledger, OWNER, "Anchor", **manifest)
        submit(ledger, OWNER, "Anchor", **{**manifest, "manifestCid": cid("m1")})
    with contextlib.closing(EmbeddedLedger(path, None, lambda: START)) as ledger:
        registered = submit(ledger, LAB, "RegisterNode", aeTitle="LAB1", role="research", certDigests=[])
        submit(ledger, CUSTODIAN, "ConfirmNode", **registered)
        request = submit(ledger, LAB, "RequestAccess", **Channel.access())["id"]
        for organisation in (OWNER, CUSTODIAN):
            submit(ledger, organisation, "Approve", id=request, until=START + 60, release="identified")
        release = submit(ledger, OWNER, "LogRelease", **Channel.release(request, cid("m0")))["release"]
        submit(ledger, OWNER, "LogOutcome", release=release, sent=3, withheld=0, bitmapDigest=b"d" * 32)
        submit(ledger, CUSTODIAN, "Revoke", id=request, reason="completed")
    return away


def load_people(folder: Path) -> dict[str, Identity]:
    return {name: load_identity(folder / name / "identities" / "person-1") for name in (OWNER, CUSTODIAN, LAB)}


def run_child(folder: Path, people: Mapping[str, Identity], spend: Callable[[], object], number: int) -> NoReturn:
    """Spend a number of calls, then work; ends the process with how often the ledger was away."""
    for _ in range(number):
        with contextlib.suppress(OSError):
            spend()
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os._exit(work(folder / "ledger.db", people, lambda tx_id: os.write(acknowledged, f"{tx_id}\n".encode())))


def main(mode: str, template: Path, target: Path, people_folder: Path, calls: Mapping[str, int]) -> None:
    people, points = load_people(people_folder), []
    for name, hit in calls.items():
        for number in range(1, hit + 1, 5 if mode == "fail some" else 1):
            folder = target / f"{name}-{number}"
            folder.mkdir()
            shutil.copy(template, folder / "ledger.db")
            child = os.fork()
            if child == 0:
                run_child(folder, people, IDLE_CALLS[name], hit - number)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            points.append({"call": name, "folder": str(folder), "status": status})
            if mode == "kill" and status == 0:
                break
    print(json.dumps(points))  # at once: this process' own writes are counted too


if __name__ == "__main__":
    words = dict(word.split("=") for word in sys.argv[5:])
    main(sys.argv[1], *map(Path, sys.argv[2:5]), {name: int(words[name]) for name in words})

"""A ledger's file in the hands of an attacker who knows the formats: what he can write into it without being asked."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc_ledger.ledger.admission import judge, read_genesis
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.ledger.log import LogFile, Row
from orthanc_ledger.ledger.transaction import SignedTransaction, sign
from orthanc_ledger.merkle import Tree, leaf_hash
from tests.ledger.channel import CUSTODIAN, DIGEST, OWNER, START, STUDY, Channel, Embedded, People, cid, policy

SIZE = 12
END = START + 10  # the time of the last entries


@dataclass(frozen=True)
class World:
    """A ledger's file to tamper with, the keys that an attacker may have, and his own folder."""

    path: Path
    people: People
    folder: Path

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as db:
            yield db
            db.commit()

    def run(self, statement: str, *values: object) -> None:
        """One statement that must change something."""
        with self.database() as db:
            assert db.execute(statement, values).rowcount > 0

    def define(self, *statements: str) -> None:
        """Change the file's schema."""
        with self.database() as db:
            for statement in statements:
                db.execute(statement)

    def rebuild_tree(self) -> None:
        """Make the tree anew over the entries as they are now, at positions without a gap."""
        tree = Tree()
        with self.database() as db:
            db.execute("DELETE FROM subtrees")
            for position, entry in db.execute("SELECT position, entry FROM entries ORDER BY position").fetchall():
                assert position == tree.size
                for level, digest in enumerate(tree.add(leaf_hash(entry))):
                    db.execute("INSERT INTO subtrees VALUES (?, ?, ?)", (level, position >> level, digest))

    def sign(
        self, function: str, identity: Identity | None = None, log: bytes = b"", time: int = END, **args: Any
    ) -> Any:
        """A transaction for this log (or another), by the owner (or somebody else)."""
        with closing(EmbeddedLedger(self.path)) as ledger:
            log = log or ledger.log_id
        return sign(identity or self.people.identities[OWNER], log, function, args, b"n" * 16, time)

    def append(self, transaction: SignedTransaction, time: int = END) -> None:
        """Append a transaction's entry and tree nodes without asking anybody."""
        with closing(LogFile(self.path)) as log, log.transaction("IMMEDIATE"):
            log.append(Row(log.last()[0] + 1, time, transaction.tx_id, transaction.entry(time)), {})

    def append_with_state(self, transaction: SignedTransaction, time: int = END) -> None:
        """Append a transaction that the contract accepts, and all it changes."""
        with closing(LogFile(self.path)) as log:
            append_accepted(log, transaction, time)


def append_accepted(log: LogFile, transaction: SignedTransaction, time: int) -> None:
    position = log.last()[0] + 1
    with log.transaction("IMMEDIATE"):
        genesis, membership = read_genesis(log)
        applied = judge(genesis, membership, log, transaction, position, time)
        assert applied.repeats is None
        log.append(Row(position, time, transaction.tx_id, transaction.entry(time)), applied.changes)


def tell_story(path: Path, people: People) -> None:
    """A ledger: 1 InitPolicy, 2 Anchor, 3 and 4 a node, 5 RequestAccess, 6 and 7 Approve, ten seconds later 8
    LogRelease, 9 Revoke, 10 Anchor, 11 RevokeCertificate.
    """
    host = Embedded(path, people, policy())
    channel = Channel(host, policy()).init()
    request, manifest = channel.approved()
    channel.wait(END - START)
    channel.call(OWNER, "LogRelease", **channel.release(request, manifest))
    channel.call(CUSTODIAN, "Revoke", id=request, reason="breach")
    channel.anchor()
    channel.call(CUSTODIAN, "RevokeCertificate", serial="1f")
    assert host.entries() == SIZE
    host.close()


def rewrite(source: Path, target: Path, keep: Callable[[int], bool]) -> None:
    """What the owner of a ledger can do: a new file, whole in itself, of some of its transactions."""
    with closing(LogFile(source)) as old:
        first, *rows = old.page(0)
    with closing(LogFile.create(target, first)) as new:
        for row in rows:
            if keep(row.position):
                time, transaction = SignedTransaction.decode_entry(row.entry)
                append_accepted(new, transaction, time)


def anchor(name: str) -> dict[str, Any]:
    return {"manifestCid": cid(name), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"}

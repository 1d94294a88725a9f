"""What an attacker with the ledger's file, and with some keys, can write into it: each is found, by kind and entry."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dag_cbor
import pytest
from cryptography import x509

from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.fsck import Kind, check
from orthanc_ledger.ledger.identity import Identity, create_organisation, issue, load_identity
from orthanc_ledger.ledger.transaction import SignedTransaction
from tests.ledger.channel import DAY, LAB, OWNER, START, STUDY, People
from tests.ledger.tampered import END, SIZE, World, anchor, tell_story


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, people: People) -> Path:
    path = tmp_path_factory.mktemp("honest") / "ledger.db"
    tell_story(path, people)
    return path


@pytest.fixture
def world(honest: Path, people: People, tmp_path: Path) -> World:
    return World(Path(shutil.copy(honest, tmp_path / "ledger.db")), people, tmp_path)


# Entries


def change_entry(world: World, position: int, field: str, value: Any) -> None:
    """Change an argument inside a signed transaction, and its id with it."""
    with world.database() as db:
        (entry,) = db.execute("SELECT entry FROM entries WHERE position = ?", (position,)).fetchone()
        time, transaction = SignedTransaction.decode_entry(entry)
        fields = dag_cbor.decode(transaction.payload)
        fields["args"][field] = value
        changed = SignedTransaction._of(dag_cbor.encode(fields), transaction.signature)
        db.execute(
            "UPDATE entries SET entry = ?, tx_id = ? WHERE position = ?", (changed.entry(time), changed.tx_id, position)
        )


def changed_count(world: World) -> None:
    change_entry(world, 2, "count", 4)


def changed_count_and_tree(world: World) -> None:
    changed_count(world)
    world.rebuild_tree()


def changed_bytes_and_tree(world: World) -> None:
    world.run("UPDATE entries SET entry = ? WHERE position = 9", b"\x5b" + b"\xff" * 8)
    world.rebuild_tree()


def changed_time_and_tree(world: World) -> None:
    """Backdate the last Anchor, where the signature does not cover it."""
    with world.database() as db:
        (entry,) = db.execute("SELECT entry FROM entries WHERE position = 10").fetchone()
        fields = {**dag_cbor.decode(entry), "time": END + 1}
        values = (dag_cbor.encode(fields), END + 1)
        db.execute("UPDATE entries SET entry = ?, time = ? WHERE position = 10", values)
    world.rebuild_tree()


def swap(world: World, one: int, other: int) -> None:
    with world.database() as db:
        for old, new in ((one, -5), (other, one), (-5, other)):
            db.execute("UPDATE entries SET position = ? WHERE position = ?", (new, old))


def swapped(world: World) -> None:
    swap(world, 5, 6)


def swapped_and_tree(world: World) -> None:
    """The owner's approval after the release that needed it: times and contract do not fit."""
    swap(world, 7, 8)
    world.rebuild_tree()


def removed(world: World, close_up: bool = False, tree: bool = False) -> None:
    world.run("DELETE FROM entries WHERE position = 4")
    for position in range(5, SIZE) if close_up else ():
        world.run("UPDATE entries SET position = ? WHERE position = ?", position - 1, position)
    if tree:
        world.rebuild_tree()


def backdated(world: World) -> None:
    world.append_with_state(world.sign("Anchor", time=START, **anchor("late")), START)


def numbered_below_zero(world: World) -> None:
    world.run("INSERT INTO entries SELECT -1, time, x'00', entry FROM entries WHERE position = 3")


# Signers


def foreign(world: World) -> None:
    world.append(world.sign("Anchor", log=b"l" * 32, **anchor("stolen")))


def replayed(world: World) -> None:
    """A node's registration once more, after the node was revoked: its id must be hidden in the column."""
    registration = world.sign("RegisterNode", aeTitle="PACS", role="clinical", certDigests=[])
    node = {"organisation": OWNER, "aeTitle": "PACS"}
    world.append_with_state(registration)
    world.append_with_state(world.sign("RevokeNode", node=node))
    with world.database() as db:
        (honest,) = db.execute("SELECT tx_id FROM entries WHERE position = ?", (SIZE,)).fetchone()
        db.execute("UPDATE entries SET tx_id = x'00' WHERE position = ?", (SIZE,))
    world.append_with_state(registration)
    world.run("UPDATE entries SET tx_id = x'01' WHERE position = ?", SIZE + 2)
    world.run("UPDATE entries SET tx_id = ? WHERE position = ?", honest, SIZE)


def impostor(world: World) -> None:
    """A CA of the owner's name that is not the owner's."""
    create_organisation(world.folder / "impostor", OWNER, lambda: START)
    identity = load_identity(issue(world.folder / "impostor", "person-1", "person", lambda: START))
    world.append(world.sign("Anchor", identity, **anchor("forged")))


def brief(world: World) -> Identity:
    """An identity of the owner, valid for two days."""
    organisation = shutil.copytree(world.people.folder / OWNER, world.folder / OWNER)
    return load_identity(issue(organisation, "brief", "person", lambda: START, days=2))


def expired(world: World) -> None:
    time = START + 2 * DAY + 1
    world.append(world.sign("Anchor", brief(world), time=time, **anchor("late")), time)


def revoked(world: World) -> None:
    signer = brief(world)
    serial = x509.load_der_x509_certificate(signer.certificate).serial_number
    world.append_with_state(world.sign("RevokeCertificate", serial=f"{serial:x}"))
    world.append(world.sign("Anchor", signer, **anchor("revoked")))


def forged_signature(world: World) -> None:
    honest, other = world.sign("Anchor", **anchor("m")), world.sign("Anchor", **anchor("n"))
    world.append(SignedTransaction._of(honest.payload, other.signature))


def refused(world: World) -> None:
    world.append(world.sign("Anchor", world.people.identities[LAB], **anchor("forged")))


def signed_long_before(world: World) -> None:
    world.append(world.sign("Anchor", time=END - 8 * DAY, **anchor("old")))


def repeated(world: World) -> None:
    with closing(EmbeddedLedger(world.path)) as ledger:
        first = ledger.query("AnchorsOfStudy", {"study": STUDY})[0]
    world.append(world.sign("Anchor", **{name: first[name] for name in anchor("")}))


# The state


def unrevoke(world: World) -> None:
    """Set a request back to approved in the state."""
    with world.database() as db:
        for key, position, value in db.execute("SELECT key, position, value FROM state WHERE key LIKE 'request/%'"):
            record = dag_cbor.decode(value)
            if record["state"] == "revoked":
                values = (dag_cbor.encode({**record, "state": "approved"}), key, position)
                db.execute("UPDATE state SET value = ? WHERE key = ? AND position = ?", values)
                return
    pytest.fail("no revoked request in the state")


def broken_policy_of_a_changed_entry(world: World) -> None:
    """Records of an entry at fault may be anything: the ones behind it are read nevertheless."""
    changed_bytes_and_tree(world)
    world.run("INSERT INTO state VALUES ('policy', 9, ?)", dag_cbor.encode([]))


def undecodable_row_of_a_changed_entry(world: World) -> None:
    changed_bytes_and_tree(world)
    world.run("INSERT INTO state VALUES ('policy', 9, ?)", b"\xff")


def odd_authority(certificate: Any) -> Callable[[World], None]:
    """The genesis with another CA certificate of the owner."""

    def attack(world: World) -> None:
        with world.database() as db:
            genesis = dag_cbor.decode(db.execute("SELECT entry FROM entries WHERE position = 0").fetchone()[0])
        genesis["organisations"] = {**genesis["organisations"], OWNER: certificate}
        world.run("UPDATE entries SET entry = ? WHERE position = 0", dag_cbor.encode(genesis))

    return attack


def run(statement: str, *values: object) -> Callable[[World], None]:
    return lambda world: world.run(statement, *values)


Found = list[tuple[int | None, Kind]]
TAMPERED: dict[str, tuple[Callable[[World], None], Found]] = {
    "an entry's bytes": (changed_count, [(2, Kind.CHANGED)]),
    "an entry's bytes and the tree": (changed_count_and_tree, [(2, Kind.FORGED)]),
    "an entry that is no transaction": (changed_bytes_and_tree, [(9, Kind.CHANGED)]),
    "an entry's time and the tree": (
        changed_time_and_tree,
        [*[(10, Kind.STATE_CHANGED)] * 2, (11, Kind.REORDERED)],
    ),
    "an entry's time column": (run("UPDATE entries SET time = time + 1 WHERE position = 10"), [(10, Kind.COLUMNS)]),
    "an entry's id": (run("UPDATE entries SET tx_id = ? WHERE position = 3", b"x" * 32), [(3, Kind.COLUMNS)]),
    "the genesis' columns": (run("UPDATE entries SET time = 1 WHERE position = 0"), [(0, Kind.COLUMNS)]),
    "the genesis": (run("UPDATE entries SET entry = ? WHERE position = 0", b"\xa0"), [(0, Kind.GENESIS)]),
    "a genesis whose CA certificate is none": (odd_authority(b"\x30\x00"), [(0, Kind.GENESIS)]),
    "a genesis whose CA certificate is a number": (odd_authority(7), [(0, Kind.GENESIS)]),
    "no genesis": (run("DELETE FROM entries WHERE position = 0"), [(0, Kind.GENESIS)]),
    "a reordered pair": (swapped, [(5, Kind.REORDERED), (6, Kind.REORDERED)]),
    "a reordered pair and the tree": (
        swapped_and_tree,
        [(7, Kind.REFUSED), (8, Kind.REORDERED), (8, Kind.REPEATED)],
    ),
    "a removed middle": (removed, [(4, Kind.MISSING)]),
    "a removed middle, closed up": (
        lambda world: removed(world, close_up=True),
        [*((position, Kind.REORDERED) for position in range(4, SIZE - 1)), (SIZE - 1, Kind.MISSING)],
    ),
    "a removed end": (run("DELETE FROM entries WHERE position >= 9"), [(9, Kind.MISSING)]),
    "an entry before the one it follows": (backdated, [(SIZE, Kind.REORDERED)]),
    "an entry before the first": (numbered_below_zero, [(-1, Kind.REORDERED)]),
    "a leaf of the tree": (
        run("UPDATE subtrees SET hash = ? WHERE level = 0 AND number = 7", b"x" * 32),
        [(7, Kind.CHANGED)],
    ),
    "an inner node of the tree": (
        run("UPDATE subtrees SET hash = ? WHERE level = 2 AND number = 1", b"x" * 32),
        [(7, Kind.TREE)],
    ),
    "a removed node of the tree": (run("DELETE FROM subtrees WHERE level = 1 AND number = 2"), [(5, Kind.TREE)]),
    "a removed leaf of the tree": (run("DELETE FROM subtrees WHERE level = 0 AND number = 2"), [(2, Kind.TREE)]),
    "an added node of the tree": (run("INSERT INTO subtrees VALUES (5, 0, ?)", b"x" * 32), [(None, Kind.TREE)]),
    "a transaction of another log": (foreign, [(SIZE, Kind.FOREIGN)]),
    "a transaction replayed": (replayed, [(SIZE + 2, Kind.COLUMNS)]),
    "an impostor's signature": (impostor, [(SIZE, Kind.UNKNOWN_SIGNER)]),
    "an expired signer's": (expired, [(SIZE, Kind.EXPIRED_SIGNER)]),
    "a revoked signer's": (revoked, [(SIZE + 1, Kind.REVOKED_SIGNER)]),
    "another call's signature": (forged_signature, [(SIZE, Kind.FORGED)]),
    "a call the contract refuses": (refused, [(SIZE, Kind.REFUSED)]),
    "a transaction kept back for long": (signed_long_before, [(SIZE, Kind.REFUSED)]),
    "a repeated call": (repeated, [(SIZE, Kind.REPEATED)]),
    "a state row": (unrevoke, [(9, Kind.STATE_CHANGED)]),
    "a removed state row": (run("DELETE FROM state WHERE key LIKE 'revocation/%'"), [(9, Kind.STATE_MISSING)]),
    "an added state row": (
        run("INSERT INTO state VALUES ('standing/00', 3, ?)", dag_cbor.encode(7)),
        [(3, Kind.STATE_EXTRA)],
    ),
    "an added state row that later entries read": (
        run("INSERT INTO state VALUES (?, 7, ?)", f"standing/{STUDY.hex()}", dag_cbor.encode(7)),
        [(7, Kind.STATE_EXTRA)],
    ),
    "a removed state row that later entries read": (
        run("DELETE FROM state WHERE key LIKE 'request/%' AND position = 7"),
        [(7, Kind.STATE_MISSING)],
    ),
    "a removed state row that a later entry writes anew": (
        run("DELETE FROM state WHERE key LIKE 'request/%' AND position = 5"),
        [(5, Kind.STATE_MISSING)],
    ),
    "a state row of the future": (
        run("INSERT INTO state SELECT key, 99, value FROM state WHERE key LIKE 'request/%' AND position = 7"),
        [(99, Kind.STATE_EXTRA)],
    ),
    "a state row before the first": (
        run("INSERT INTO state VALUES (?, -1, ?)", f"standing/{STUDY.hex()}", dag_cbor.encode(7)),
        [(-1, Kind.STATE_EXTRA)],
    ),
    "a state row that is no dag-cbor": (
        run("INSERT INTO state VALUES (?, 2, ?)", f"standing/{STUDY.hex()}", b"\xff"),
        [(2, Kind.STATE_EXTRA)],
    ),
    "a state row whose key is no text": (
        run("INSERT INTO state VALUES (CAST(x'ff' AS TEXT), 2, ?)", b"\xf6"),
        [(2, Kind.STATE_EXTRA)],
    ),
    "what a changed entry wrote, no policy": (
        broken_policy_of_a_changed_entry,
        [(9, Kind.CHANGED), (10, Kind.REFUSED), (11, Kind.REFUSED)],
    ),
    "what a changed entry wrote, no dag-cbor": (
        undecodable_row_of_a_changed_entry,
        [(9, Kind.CHANGED), (10, Kind.REFUSED), (11, Kind.REFUSED)],
    ),
    "a trigger": (
        lambda world: world.define(
            "CREATE TRIGGER forget AFTER INSERT ON state BEGIN DELETE FROM state WHERE key LIKE 'flag/%'; END"
        ),
        [(None, Kind.FILE)],
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_fsck_finds(world: World, what: str) -> None:
    tamper, expected = TAMPERED[what]
    tamper(world)
    assert [(finding.position, finding.kind) for finding in check(world.path).findings] == expected


def test_every_kind_has_its_attack() -> None:
    """Those that need a checkpoint are in test_fsck.py."""
    shown = {kind for _, expected in TAMPERED.values() for _, kind in expected}
    assert shown == set(Kind) - {Kind.ROLLED_BACK, Kind.OTHER_LOG, Kind.NOTE}


def test_every_kind_is_explained() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert [kind for kind in Kind if f"`{kind}`" not in page] == []

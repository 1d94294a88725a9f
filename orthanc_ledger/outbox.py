"""What still has to be told: alarms to people, and calls to the ledger that nobody waits for (denials, outcomes).

Whoever notices something posts it here and goes on; the anchorer submits the calls, the courier brings notices of the
alarms to whom the configuration names. Nothing posted is lost while one of them is away.
"""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dag_cbor

from orthanc_ledger.clock import Clock
from orthanc_ledger.database import Database

LOGGER = logging.getLogger(__name__)

CONFLICT, SUPERSESSION, QUARANTINED, LOST, BAD_MANIFEST = "conflict", "supersession", "quarantine", "lost", "manifest"
"""Kinds of alarms about objects: raised in one place, told to people in others."""

MISSED = "missed"
"""The kind of alarm that Orthanc stored what its plugin could not keep; whoever fetched all of that takes it back."""

_WORD = re.compile("[0-9a-z]{20,}")  # claims and CIDs

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, claim TEXT NOT NULL, text TEXT NOT NULL,
    UNIQUE (kind, claim, text));
CREATE TABLE IF NOT EXISTS notices (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, function TEXT NOT NULL, args BLOB NOT NULL, nonce BLOB);
CREATE TABLE IF NOT EXISTS once (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unanswered (name TEXT PRIMARY KEY, call INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS denials (
    organisation TEXT NOT NULL, ae_title TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (organisation, ae_title, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS denial_reports (seq INTEGER PRIMARY KEY AUTOINCREMENT);
"""


@dataclass(frozen=True)
class LedgerCall:
    """A call the ledger has not yet had."""

    id: int
    function: str
    args: dict[str, Any]
    nonce: bytes | None


@dataclass(frozen=True)
class Alarm:
    """Something a person must look at. ``claim`` names the object (spool.py); ``time`` in seconds of UTC."""

    time: int
    kind: str
    claim: str
    text: str


@dataclass(frozen=True)
class Notice:
    """That an alarm was raised; it stays until it is dropped, also when the alarm is taken back. Ids rise."""

    id: int
    time: int
    kind: str
    text: str


class Outbox:
    """Durable queue of alarms, their notices and ledger calls; shared by the node's processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._db = Database(path, _SCHEMA)
        self._clock = clock

    def close(self) -> None:
        """Close this thread's connection."""
        self._db.close()

    def alarm(self, kind: str, claim: str, text: str) -> None:
        """Raise an alarm with its notice, and log its kind; the same one stands only once."""
        with self._db.write() as db:
            now = self._clock()
            values = (now, kind, claim, text)
            new = db.execute("INSERT OR IGNORE INTO alarms (time, kind, claim, text) VALUES (?, ?, ?, ?)", values)
            if new.rowcount:
                db.execute("INSERT INTO notices (time, kind, text) VALUES (?, ?, ?)", (now, kind, text))
        if new.rowcount:
            LOGGER.warning("alarm: %s", kind)

    def alarms(self) -> list[Alarm]:
        """All alarms, oldest first."""
        return [Alarm(*row) for row in self._db.rows("SELECT time, kind, claim, text FROM alarms ORDER BY id")]

    def standing(self, kind: str, claim: str) -> list[Alarm]:
        """The alarms of a kind about a claim, in whatever words."""
        return [alarm for alarm in self.alarms() if (alarm.kind, alarm.claim) == (kind, claim)]

    def settle(self, claim: str, unit: str = "", kind: str | None = None) -> None:
        """Take back a claim's alarms: those that name a unit of quarantine or conflict queue, about which a person
        decided, or those of a kind.
        """
        with self._db.write() as db:
            sql = "DELETE FROM alarms WHERE claim = ? AND instr(text, ?) AND kind = COALESCE(?, kind)"
            db.execute(sql, (claim, unit, kind))

    def forget(self, names: Collection[str], study: bytes | None = None) -> None:
        """Drop alarms that are about one of these names, claims and CIDs, or say one; their notices; and what the
        ledger was still to be told of a study.
        """
        with self._db.write() as db:
            alarms = db.execute("SELECT id, claim, text FROM alarms").fetchall()
            about = {(id, text) for id, claim, text in alarms if claim in names or _says(text, names)}
            texts = {text for _, text in about}
            notices = db.execute("SELECT id, text FROM notices").fetchall()
            told = [(id,) for id, text in notices if text in texts or _says(text, names)]
            calls = db.execute("SELECT id, args FROM calls").fetchall()
            queued = [(id,) for id, args in calls if study and _decode(args).get("study") == study]
            once = [(name,) for (name,) in db.execute("SELECT name FROM once").fetchall() if _says(name, names)]
            db.executemany("DELETE FROM alarms WHERE id = ?", [(id,) for id, _ in about])
            db.executemany("DELETE FROM notices WHERE id = ?", told)
            db.executemany("DELETE FROM calls WHERE id = ?", queued)
            db.executemany("DELETE FROM unanswered WHERE call = ?", queued)
            db.executemany("DELETE FROM once WHERE name = ?", once)

    def scrub(self) -> None:
        """Leave nothing of what was dropped in the file."""
        self._db.scrub()

    def notices(self, after: int, limit: int = 100) -> list[Notice]:
        """Notices with an id above ``after``, oldest first."""
        sql = "SELECT id, time, kind, text FROM notices WHERE id > ? ORDER BY id LIMIT ?"
        return [Notice(*row) for row in self._db.rows(sql, after, limit)]

    def drop_notices(self, up_to: int) -> None:
        """Drop the notices up to an id, that one included; no id is given again."""
        with self._db.write() as db:
            db.execute("DELETE FROM notices WHERE id <= ?", (up_to,))

    def post(
        self,
        function: str,
        args: Mapping[str, Any],
        nonce: bytes | None = None,
        once: str | None = None,
        unanswered: str | None = None,
    ) -> None:
        """Queue a ledger call.

        With ``once``, only the first call under that name is ever queued; with ``unanswered``, none while another one
        under that name waits.
        """
        with self._db.write() as db:
            if once is not None and db.execute("INSERT OR IGNORE INTO once VALUES (?)", (once,)).rowcount == 0:
                return
            if unanswered is not None and _waits(db.execute, unanswered):
                return
            call = _queue(db.execute, function, args, nonce)
            if unanswered is not None:
                db.execute("INSERT INTO unanswered VALUES (?, ?)", (unanswered, call))

    def posted(self, limit: int = 100) -> list[LedgerCall]:
        """Queued ledger calls, oldest first."""
        rows = self._db.rows("SELECT id, function, args, nonce FROM calls ORDER BY id LIMIT ?", limit)
        return [LedgerCall(number, function, _decode(args), nonce) for number, function, args, nonce in rows]

    def waits(self, name: str) -> bool:
        """Whether a call posted as ``unanswered`` under that name is still queued."""
        return _waits(self._db.connection().execute, name)

    def amend(self, call: LedgerCall, args: Mapping[str, Any]) -> LedgerCall:
        """Give a queued call other arguments, to be submitted with these however often."""
        with self._db.write() as db:
            db.execute("UPDATE calls SET args = ? WHERE id = ?", (dag_cbor.encode(dict(args)), call.id))
        return replace(call, args=dict(args))

    def done(self, call: LedgerCall) -> None:
        """Drop a call that was answered."""
        with self._db.write() as db:
            db.execute("DELETE FROM calls WHERE id = ?", (call.id,))
            db.execute("DELETE FROM unanswered WHERE call = ?", (call.id,))

    def deny(self, organisation: str, ae_title: str, reason: str) -> None:
        """Count a refusal to a peer."""
        with self._db.write() as db:
            db.execute(
                "INSERT INTO denials VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                (organisation, ae_title, reason),
            )

    def post_denials(self, node: Mapping[str, str]) -> None:
        """Turn the refusals counted so far into queued LogDenials calls, their numbers rising."""
        if not self._db.rows("SELECT 1 FROM denials LIMIT 1"):
            return
        with self._db.write() as db:
            for organisation, ae_title, reason, count in db.execute(
                "SELECT organisation, ae_title, reason, count FROM denials"
            ).fetchall():
                seq = db.execute("INSERT INTO denial_reports DEFAULT VALUES").lastrowid
                peer = {"organisation": organisation, "aeTitle": ae_title}
                args = {"reportingNode": dict(node), "peer": peer, "reason": reason, "seq": seq, "count": count}
                _queue(db.execute, "LogDenials", args, None)
            db.execute("DELETE FROM denials")
            db.execute("DELETE FROM denial_reports")  # AUTOINCREMENT never gives a number again


def _queue(execute: Any, function: str, args: Mapping[str, Any], nonce: bytes | None) -> int:
    values = (function, dag_cbor.encode(dict(args)), nonce)
    call: int = execute("INSERT INTO calls (function, args, nonce) VALUES (?, ?, ?)", values).lastrowid
    return call


def _waits(execute: Any, name: str) -> bool:
    return execute("SELECT 1 FROM unanswered WHERE name = ?", (name,)).fetchone() is not None


def _says(text: str, names: Collection[str]) -> bool:
    """Whether a claim or CID among ``names`` stands in a text."""
    return any(word in names for word in _WORD.findall(text))


def _decode(blob: bytes) -> dict[str, Any]:
    value = dag_cbor.decode(blob)
    if not isinstance(value, dict):
        raise TypeError(f"outbox: expected a map of arguments, got {type(value).__name__}")
    return value

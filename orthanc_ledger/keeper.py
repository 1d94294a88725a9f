"""The custodian's keeper: has a copy of all that is anchored, checked, and says so (ConfirmStored).

One process, one thread. What the hospital anchors is pinned on the custodian's own content store and read back whole:
the manifest's blocks, its form, study, root and count as anchored, each object's CID and size. Only then it is
confirmed. All that was confirmed is verified again, round by round; a bad copy is fetched anew from whoever has it.
Every step may be repeated, so it may be killed anywhere: what the ledger does not call stored is done again.
"""

import contextlib
import heapq
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orthanc_ledger.clock import Clock
from orthanc_ledger.content import ContentStore
from orthanc_ledger.custody import Anchor, agreed_on
from orthanc_ledger.erasures import BLOCK, ROOT, Erasures
from orthanc_ledger.errors import ConfigError, ContentAway, IntegrityError, NotHeld, ServiceAway
from orthanc_ledger.forgetting import Forgetting
from orthanc_ledger.ledger import Ledger, all_rows, first_record, first_row, is_erased
from orthanc_ledger.library import Manifests, flag_name
from orthanc_ledger.manifest import Record, check_anchored
from orthanc_ledger.manifest import read as read_manifest
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.repair import DAMAGED, UNDECIDED, Repairs
from orthanc_ledger.sole import sole
from orthanc_ledger.sweep import Round, Rounds
from orthanc_ledger.teller import Teller

LOGGER = logging.getLogger(__name__)

NOT_CONFIRMED = "not confirmed"
"""Kind of the alarm that a manifest is not confirmed, as it is not what was anchored, or did not come whole in time."""

LATE_S = 3600.0
"""Seconds after which it is an alarm that a manifest, or what lies under it, could not be fetched."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0
_TICK_S = 1.0
_DAY_S = 86_400
_MIB = 1 << 20
_OTHER = "another keeper works in this data_dir: stop it first"


class _Stopped(Exception):
    """The process is to end; nothing was decided."""


@dataclass
class _Waiting:
    """A manifest that is not confirmed: since when (monotonic seconds), and how often it was tried."""

    since_s: float
    tries: int = 0


class Keeper:
    """See the module. ``ledger`` signs as the custodian."""

    def __init__(
        self,
        ledger: Ledger,
        content: ContentStore,
        manifests: Manifests,
        repairs: Repairs,
        outbox: Outbox,
        erasures: Erasures,
        rounds: Rounds,
        organisation: str,
        every_s: float,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``organisation``: the custodian's MSP ID; ``every_s``: from a round's end to the next one, 0: there are none.

        Raises ConfigError for a store that has nobody to fetch from.
        """
        if len(content.places) == 1:
            raise ConfigError("content: a keeper fetches what the hospital has: expected kubo:FILE.yaml")
        self._ledger = ledger
        self._content = content
        self._manifests = manifests
        self._repairs = repairs
        self._outbox = outbox
        self._teller = Teller(ledger, outbox)
        self._erasures = erasures
        self._rounds = rounds
        self._organisation = organisation
        self._every_s = every_s
        self._clock = clock
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._has_begun = False
        self._forgetting = Forgetting(erasures, content, outbox, clock)
        self._waiting: dict[str, _Waiting] = {}  # by manifest CID
        self._queue: list[tuple[float, str]] = []  # the same, by the time when they are due

    def run(self, stop: threading.Event, lock: Path, retry_s: float) -> None:
        """Work until ``stop`` is set; tried again ``retry_s`` after a service was away, or a disk full.

        Raises ConfigError when another keeper holds ``lock``, the content store must not be used, or the ledger knows
        this organisation as no custodian.
        """
        self._stop = stop
        said = ""
        with sole(lock, ConfigError(_OTHER)):
            while not stop.is_set():
                pause_s = 0.0
                try:
                    if not self.step():
                        pause_s = _TICK_S
                    said = ""
                except _Stopped:
                    return
                except (ServiceAway, sqlite3.OperationalError) as error:
                    pause_s = retry_s
                    if said != (said := str(error)):
                        LOGGER.warning("the keeper waits: %s", error)
                stop.wait(pause_s)

    def step(self) -> bool:
        """Do what is next; whether there was something. Raises ServiceAway: ledger or content store are."""
        self._begin()
        self._teller.submit()
        self._look()
        self._content.check(to_read=True)
        self._erase()
        tried = self._try_next()
        is_due = bool(self._every_s) and self._rounds.is_due(self._clock(), self._every_s)
        return (is_due and self._go_on()) or tried  # what nobody sends keeps no round waiting

    # What the ledger says

    def _begin(self) -> None:
        if not self._has_begun:
            # a research centre's keeper would say ErasureDone of what `pull` has still in the clear
            if self._ledger.query("GetPolicy", {})["organisations"].get(self._organisation) != "custodian":
                raise ConfigError(f"organisation: expected the ledger's custodian, got {self._organisation}")
            self._content.recover()
            self._await_all()
            self._has_begun = True

    def _await_all(self) -> set[bytes]:
        """Note what is not stored; the studies of all that is anchored."""
        studies = set()
        for anchor in all_rows(self._ledger, "Anchors", {}):
            studies.add(anchor["study"])
            if not anchor["stored"]:
                self._await(anchor["manifestCid"])
        return studies

    def _look(self) -> None:
        """Note what was anchored and erased since the last look; once a day all is asked for, as on Fabric an event may
        come to lie before one that was seen.
        """
        before, checked = self._erasures.place()
        place, now = before, self._clock()
        for event in all_rows(self._ledger, "Audit", {} if before is None else {"after": before}):
            place = event["sequence"]
            if event["function"] == "Anchor":
                self._await(event["args"]["manifestCid"])
            elif event["function"] == "ConfirmErase":
                self._note_erased(event["args"]["study"])
        if not 0 <= now - checked < _DAY_S:
            for study in self._await_all():
                self._is_erased(study)
            checked = now
        if (place, checked) != self._erasures.place():
            self._erasures.keep_place(place, checked)

    def _await(self, cid: str) -> None:
        if cid not in self._waiting:
            self._waiting[cid] = _Waiting(self._monotonic())
            heapq.heappush(self._queue, (0.0, cid))

    def _is_erased(self, study: bytes) -> bool:
        """Whether the ledger calls a study erased; then it is carried out, unless it was."""
        erased = is_erased(self._ledger, study)
        if erased:
            self._note_erased(study)
        return erased

    def _note_erased(self, study: bytes) -> None:
        if first_record(self._ledger, f"erasureDone/{study.hex()}/{self._organisation}") is None:
            confirmation = first_record(self._ledger, f"erasureConfirmation/{study.hex()}")
            self._erasures.begin(study, confirmation["time"])

    # Erased studies

    def _erase(self) -> None:
        """Delete what the ledger calls erased, and say so. Raises LedgerAway, ContentAway."""
        for erasure in self._erasures.in_state("erased"):
            anchors = all_rows(self._ledger, "AnchorsOfStudy", {"study": erasure.token})
            self._erasures.collect(erasure, anchors, self._content.get_block)
            self._erasures.advance(erasure, "collected")
        for erasure in self._erasures.in_state("collected"):
            if self._forgetting.is_done(erasure):
                cids = self._erasures.parts(erasure, ROOT) | self._erasures.parts(erasure, BLOCK)
                self._outbox.forget(cids, erasure.token)
                self._erasures.advance(erasure, "cleared")
                LOGGER.info("erased: study %s", erasure.token.hex())
        for erasure in self._erasures.in_state("cleared"):
            self._ledger.submit("ErasureDone", {"study": erasure.token})
            self._erasures.end(erasure)

    # What waits to be confirmed

    def _try_next(self) -> bool:
        """Try the manifest that is due first; whether one was."""
        if not self._queue or self._queue[0][0] > self._monotonic():
            return False
        _, cid = heapq.heappop(self._queue)
        due_s: float | None = 0.0  # at once, when a service was away
        try:
            due_s = self._confirm(cid)
        finally:
            if due_s is None:
                del self._waiting[cid]
            else:
                heapq.heappush(self._queue, (due_s, cid))
        return True

    def _check_form(self, anchor: Anchor) -> None:
        """Whether the CID is of a manifest as anchored, before that is pinned: it may be anything, of any size.

        Raises IntegrityError; ContentAway, also while nobody sends a block.
        """
        cid = anchor["manifestCid"]

        def block(each: str) -> bytes:
            with contextlib.suppress(IntegrityError, NotHeld):
                return self._content.get_block(each)
            try:
                self._repairs.mend(each, cid, anchor["study"])
                return self._content.get_block(each)
            except NotHeld as error:
                raise ContentAway(str(error)) from error

        check_anchored(read_manifest(cid, block, anchor["study"]), anchor)

    def _confirm(self, cid: str) -> float | None:
        """Fetch a manifest with all under it, check it, and say that it is stored. When it is to be tried again
        (monotonic seconds); None: it is done, or for the next round.
        """
        anchor = self._ledger.query("GetAnchor", {"manifestCid": cid})
        if anchor["stored"] or self._is_erased(anchor["study"]):
            return None
        try:
            self._check_form(anchor)
            self._content.keep(cid)
            faults = [f"object {record.object}: {fault}" for record, fault in self._faults(anchor) if fault]
        except ContentAway as error:
            self._content.check(to_read=True)  # else it is not this one that waits
            return self._later(cid, error)
        except (IntegrityError, NotHeld) as fault:
            faults = [str(fault)]
        if faults:
            more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
            self._alarm(NOT_CONFIRMED, cid, f"manifest {cid} is not confirmed: {faults[0]}{more}")
            with contextlib.suppress(ContentAway):  # the next round refuses it again
                self._content.release(cid)
            return None
        self._ledger.submit("ConfirmStored", {"manifestCid": cid})
        self._outbox.settle(cid, kind=NOT_CONFIRMED)
        LOGGER.info("confirmed %d objects of manifest %s", anchor["count"], cid)
        return None

    def _later(self, cid: str, error: ContentAway) -> float:
        waiting, now_s = self._waiting[cid], self._monotonic()
        if now_s - waiting.since_s > LATE_S:
            self._alarm(NOT_CONFIRMED, cid, f"manifest {cid} is not confirmed, as it did not come whole: {error}")
        waiting.tries += 1
        return now_s + min(_FIRST_PAUSE_S * waiting.tries, _LONGEST_PAUSE_S)

    def _faults(self, anchor: Anchor) -> Iterator[tuple[Record, IntegrityError | NotHeld | None]]:
        """Each object of an anchor with what is wrong with it, when no copy is healthy, own copies mended.

        Raises IntegrityError and NotHeld when that is the manifest; ContentAway; _Stopped.
        """
        manifest = self._manifests.anchored(anchor, every_copy=True)
        for record in manifest.records:
            if self._stop.is_set():
                raise _Stopped
            try:
                self._repairs.repair(record, manifest.cid, anchor["study"])
                if not anchor["stored"]:
                    self._check_size(record)
            except (IntegrityError, NotHeld) as fault:
                yield record, fault
            else:
                yield record, None

    def _check_size(self, record: Record) -> None:
        with self._content.open(record.object, record.sealed_size) as sealed:
            if (size := sealed.seek(0, 2)) != record.sealed_size:
                raise IntegrityError(f"expected {record.sealed_size} bytes by its record, got {size}")

    # What was confirmed

    def _go_on(self) -> bool:
        """Verify the next anchor of the round, or end it."""
        round_ = self._rounds.unfinished() or Round(self._clock())
        behind = {"after": round_.place} if round_.place else {}
        begun_s = self._monotonic()
        anchor = first_row(self._ledger, "Anchors", behind)
        if anchor is None:
            self._rounds.keep(replace(round_, finished=self._clock()))
            self._tell(round_)
        else:
            round_ = self._verify(anchor, round_)
            seconds = round_.seconds + self._monotonic() - begun_s
            place, anchors = anchor["manifestCid"], round_.anchors + 1
            self._rounds.keep(replace(round_, place=place, anchors=anchors, seconds=seconds))
        return True

    def _verify(self, anchor: Anchor, round_: Round) -> Round:
        """The round after one more anchor."""
        cid = anchor["manifestCid"]
        if self._is_erased(anchor["study"]):
            return round_
        if not anchor["stored"]:
            self._await(cid)
            return replace(round_, not_held=round_.not_held + 1)
        objects, alarmed = [], {alarm.claim for alarm in self._outbox.alarms()}
        try:
            for record, fault in self._faults(anchor):
                objects.append(record.object)
                if fault is None:
                    if record.object in alarmed:
                        self._outbox.settle(record.object)
                    round_ = replace(round_, bytes=round_.bytes + record.sealed_size)
                else:
                    self._report(anchor, record, fault, round_)
                    round_ = replace(round_, damaged=round_.damaged + 1)
        except ContentAway as error:
            self._content.check(to_read=True)
            self._alarm(UNDECIDED, cid, f"not all of manifest {cid} could be verified: {error}")
            return replace(round_, objects=round_.objects + len(objects))
        except (IntegrityError, NotHeld) as fault:
            text = f"manifest {cid} of {anchor['count']} objects differs from its anchor or is lost, and nobody has it"
            self._alarm(DAMAGED, cid, f"{text}: {fault}")
            count = anchor["count"]
            return replace(round_, objects=round_.objects + count, damaged=round_.damaged + count)
        if cid in alarmed:
            self._outbox.settle(cid)
        self._repairs.tend(cid, objects, self._clock() * 1_000_000, lambda: self._is_erased(anchor["study"]))
        return replace(round_, objects=round_.objects + len(objects))

    def _report(self, anchor: Anchor, record: Record, fault: Exception, round_: Round) -> None:
        """Alarm of an object without a healthy copy; flag it when an earlier round found the same: a flag stands until
        both parties lift it, and the hospital may have a copy that it does not share, with which its sweep mends the
        one that it does.
        """
        cid = anchor["manifestCid"]
        standing = self._ledger.query("StandingOf", {"study": anchor["study"]})
        if agreed_on(standing).get(record.instance, cid) != cid:
            return
        if any(alarm.time < round_.started for alarm in self._outbox.standing(DAMAGED, record.object)):
            args: dict[str, Any] = {"study": anchor["study"], "instance": record.instance, "manifestCid": cid}
            self._outbox.post(
                "FlagTampered", {**args, "observed": None, "what": []}, unanswered=flag_name(record.instance)
            )
        self._alarm(DAMAGED, record.object, f"object {record.object} of manifest {cid} has no healthy copy: {fault}")

    def _tell(self, round_: Round) -> None:
        figures = round_.anchors, round_.objects, round_.bytes // _MIB, round_.damaged, len(self._waiting)
        alarms = self._outbox.alarms()
        LOGGER.info(
            "verified %d manifests, %d objects, %d MiB: %d damaged; %d manifests wait; %d alarms", *figures, len(alarms)
        )
        for alarm in alarms:
            LOGGER.warning("alarm stands: %s: %s", alarm.kind, alarm.text)

    def _alarm(self, kind: str, claim: str, text: str) -> None:
        """Raise an alarm, unless one of this kind stands about the claim."""
        if not self._outbox.standing(kind, claim):
            self._outbox.alarm(kind, claim, text)
            LOGGER.warning("%s", text)

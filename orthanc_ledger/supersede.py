"""A unit of the conflict queue that a person decided shall replace the current record.

decided (by command) → prepared as a batch of its own → anchored → proposed on the ledger (Supersede) → confirmed there
by the custodian: only then does this node serve it. Until that moment everybody gets the first content. What cannot go
on is refused, with the reason in its state.
"""

import secrets
from dataclasses import replace

from orthanc_ledger import tokens
from orthanc_ledger.batch import Preparer, describe
from orthanc_ledger.errors import DataError
from orthanc_ledger.forwards import Forwards
from orthanc_ledger.index import Index, Supersession
from orthanc_ledger.keyring import Keyring, StudyKeys
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.outbox import SUPERSESSION, Outbox
from orthanc_ledger.spool import CONFLICTS, Spool


class Supersessions:
    """Moves every supersession one state on when it can."""

    def __init__(
        self,
        spool: Spool,
        index: Index,
        outbox: Outbox,
        forwards: Forwards,
        keyring: Keyring,
        preparer: Preparer,
        ledger: Ledger,
    ) -> None:
        self._spool = spool
        self._index = index
        self._outbox = outbox
        self._forwards = forwards
        self._keyring = keyring
        self._preparer = preparer
        self._ledger = ledger

    def prepare_decided(self) -> None:
        """Prepare a batch for every new decision. Raises ContentAway."""
        for decision in self._index.supersessions("decided"):
            try:
                self._prepare(decision)
            except DataError as error:
                self._refuse(decision, str(error))

    def advance(self) -> None:
        """Propose what is anchored, and serve what is confirmed. Raises LedgerAway."""
        for prepared in self._index.supersessions("prepared"):
            try:
                self._propose(prepared)
            except DataError as error:
                self._refuse(prepared, str(error))
        for proposed in self._index.supersessions("proposed"):
            try:
                self._serve_if_confirmed(proposed)
            except DataError as error:  # the ledger has it: it stays proposed until a person mended this
                self._alarm(proposed, f"confirmed, but cannot be served: {error}")

    def _prepare(self, decision: Supersession) -> None:
        holder = self._index.instance(decision.claim)
        with self._spool.open(decision.conflict, CONFLICTS) as unit:
            instance, _ = describe(unit, decision.conflict)
        if holder is None or instance.study_uid != holder.study_uid:
            self._refuse(
                decision, "it is of another study than the first content, and replaces records of its own only"
            )
            return
        study_uid = instance.study_uid
        seq = self._index.next_seq(study_uid)
        prepared, rejected = self._preparer.prepare(study_uid, seq, [instance], CONFLICTS)
        if prepared is None:
            self._refuse(decision, rejected[0].reason)
            return
        ready = replace(
            decision,
            state="prepared",
            new_manifest=prepared.manifest.cid,
            object=prepared.objects[decision.claim],
            nonce=secrets.token_bytes(16),
        )
        self._index.keep_prepared(study_uid, prepared.manifest, {}, ready)

    def _propose(self, prepared: Supersession) -> None:
        found = self._holder(prepared)
        if found is None or not self._index.anchored_batch(prepared.new_manifest):
            return
        study, token = found
        args = {
            "study": study.token,
            "instance": token,
            "oldManifest": prepared.old_manifest,
            "newManifest": prepared.new_manifest,
            "reason": prepared.reason,
        }
        committed = self._ledger.submit("Supersede", args, prepared.nonce)
        self._index.keep_supersession(replace(prepared, state="proposed", ledger_id=committed.result["id"]))

    def _serve_if_confirmed(self, proposed: Supersession) -> None:
        found = self._holder(proposed)
        if found is None:
            return
        study, token = found
        superseded = self._ledger.query("StandingOf", {"study": study.token})["superseded"]
        if not any(row["instance"] == token and row["newManifest"] == proposed.new_manifest for row in superseded):
            return
        self._make_current(proposed)
        self._forwards.queue_again(proposed.claim)
        self._index.keep_supersession(replace(proposed, state="confirmed"))
        self._spool.remove(proposed.conflict, CONFLICTS)
        self._outbox.settle(proposed.claim, proposed.conflict)

    def _make_current(self, proposed: Supersession) -> None:
        """A killed anchorer may have done so, and its unit is removed then as a repeat of the current content."""
        holder = self._index.instance(proposed.claim)
        if holder is not None and holder.manifest == proposed.new_manifest:
            return
        with self._spool.open(proposed.conflict, CONFLICTS) as unit:
            instance, attributes = describe(unit, proposed.conflict)
        current = replace(
            instance,
            state="anchored",
            spool_name="",
            batch=self._index.anchored_batch(proposed.new_manifest),
            manifest=proposed.new_manifest,
            object=proposed.object,
        )
        self._index.replace_current(current, attributes)

    def _holder(self, supersession: Supersession) -> tuple[StudyKeys, bytes] | None:
        """Keys of the study and the instance's token; None when the claim was given up."""
        holder = self._index.instance(supersession.claim)
        if holder is None:
            return None
        study = self._keyring.ensure_study(holder.study_uid)
        return study, tokens.instance_token(study.k_study, holder.sop_uid)

    def _refuse(self, supersession: Supersession, reason: str) -> None:
        self._index.keep_supersession(replace(supersession, state=f"refused: {reason}"))
        self._alarm(supersession, f"refused: {reason}; decide again with `orthanc-ledger conflicts`")

    def _alarm(self, supersession: Supersession, text: str) -> None:
        self._outbox.alarm(SUPERSESSION, supersession.claim, f"{supersession.conflict}: {text}")

"""A unit of the conflict queue that a person decided shall replace the current record.

decided (by command) → prepared as a batch of its own → anchored → proposed on the ledger (Supersede) → confirmed there by the custodian: only then does
this node serve it. Until that moment everybody gets the first content.
"""

import secrets
from dataclasses import replace

from orthanc_ledger import tokens
from orthanc_ledger.batch import describe, prepare
from orthanc_ledger.content import ContentStore
from orthanc_ledger.index import Index, Supersession
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.spool import CONFLICTS, Spool


class Supersessions:
    """Moves every supersession one state on when it can."""

    def __init__(self, spool: Spool, index: Index, keyring: Keyring, content: ContentStore, ledger: Ledger) -> None:
        self._spool = spool
        self._index = index
        self._keyring = keyring
        self._content = content
        self._ledger = ledger

    def prepare_decided(self) -> None:
        """Prepare a batch for every new decision. Raises ContentAway."""
        for decision in self._index.supersessions("decided"):
            with self._spool.open(decision.conflict, CONFLICTS) as unit:
                instance, _ = describe(unit, decision.conflict)
            seq = self._index.next_seq(instance.study_uid)
            prepared, rejected = prepare(instance.study_uid, seq, [instance], CONFLICTS, self._spool, self._keyring, self._content)
            if prepared is None:
                self._index.keep_supersession(replace(decision, state=f"refused: {rejected[0].reason}"))
                continue
            self._index.keep_prepared(instance.study_uid, prepared.manifest, {})
            cid = prepared.objects[decision.claim]
            self._index.keep_supersession(
                replace(decision, state="prepared", new_manifest=prepared.manifest.cid, object=cid, nonce=secrets.token_bytes(16))
            )

    def advance(self) -> None:
        """Propose what is anchored, and serve what is confirmed. Raises LedgerAway, ContractError."""
        for prepared in self._index.supersessions("prepared"):
            holder = self._index.instance(prepared.claim)
            if holder is None or not self._index.anchored_batch(prepared.new_manifest):
                continue
            study = self._keyring.ensure_study(holder.study_uid)
            args = {
                "study": study.token,
                "instance": tokens.instance_token(study.k_study, holder.sop_uid),
                "oldManifest": prepared.old_manifest,
                "newManifest": prepared.new_manifest,
                "reason": prepared.reason,
            }
            committed = self._ledger.submit("Supersede", args, prepared.nonce)
            self._index.keep_supersession(replace(prepared, state="proposed", ledger_id=committed.result["id"]))
        for proposed in self._index.supersessions("proposed"):
            self._serve_if_confirmed(proposed)

    def _serve_if_confirmed(self, proposed: Supersession) -> None:
        holder = self._index.instance(proposed.claim)
        if holder is None:
            return
        study = self._keyring.ensure_study(holder.study_uid)
        token = tokens.instance_token(study.k_study, holder.sop_uid)
        superseded = self._ledger.query("StandingOf", {"study": study.token})["superseded"]
        if not any(row["instance"] == token and row["newManifest"] == proposed.new_manifest for row in superseded):
            return
        with self._spool.open(proposed.conflict, CONFLICTS) as unit:
            instance, attributes = describe(unit, proposed.conflict)
        batch = self._index.anchored_batch(proposed.new_manifest)
        current = replace(instance, state="anchored", spool_name="", batch=batch, manifest=proposed.new_manifest, object=proposed.object)
        self._index.replace_current(current, attributes)
        self._index.keep_supersession(replace(proposed, state="confirmed"))
        self._spool.remove(proposed.conflict, CONFLICTS)

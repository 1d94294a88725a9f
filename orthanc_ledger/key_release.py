"""The keys of what one release names, for a research centre that fetches the sealed objects itself (docs/keyfile.md).

The decision is the gate's, as for a retrieve; what leaves here are keys, so that all that was released counts as sent.
"""

import contextlib
from typing import Any

from orthanc_ledger.errors import ContractError, DataError, LedgerAway, NotHeld
from orthanc_ledger.gate import Approval, Gate, Offer, Refused, StandingChanged
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.key_file import InstanceKeys, KeyFile, ReleasedKeys
from orthanc_ledger.keyring import Keyring
from orthanc_ledger.ledger import Ledger
from orthanc_ledger.ledger.identity import Identity
from orthanc_ledger.library import Library, Manifests
from orthanc_ledger.manifest import Record
from orthanc_ledger.outbox import Outbox
from orthanc_ledger.peer import Peer
from orthanc_ledger.reasons import Problem, Reason
from orthanc_ledger.recipient_key import PublicKey
from orthanc_ledger.retrieve import outcome
from orthanc_ledger.tokens import object_keys

_TRIES = 3


class Unfit(DataError):
    """The call itself cannot be answered; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class KeyRelease:
    """Gives keys to an organisation that has shown who it is. A refusal is counted for the request's node."""

    def __init__(
        self,
        ledger: Ledger,
        gate: Gate,
        index: Index,
        keyring: Keyring,
        manifests: Manifests,
        library: Library,
        outbox: Outbox,
        identity: Identity,
    ) -> None:
        self._ledger = ledger
        self._gate = gate
        self._index = index
        self._keyring = keyring
        self._manifests = manifests
        self._library = library
        self._outbox = outbox
        self._identity = identity

    def studies(self, organisation: str, request_id: bytes) -> list[bytes]:
        """Tokens of what this node holds of the studies of a running approval. Raises Refused, LedgerAway."""
        request = self._request(organisation, request_id)
        approvals = self._approvals(request)
        if not approvals:
            raise self._refused(
                request, Reason.APPROVAL_EXPIRED if request["state"] == "expired" else Reason.NO_APPROVAL
            )
        named = {token for approval in approvals for token in approval.studies}
        return sorted(token for token in named if self._index.study_of_token(token) is not None)

    def keys(self, organisation: str, request_id: bytes, study: bytes, public_key: bytes) -> KeyFile:
        """Release a study under a request, and its keys.

        Raises Refused; Unfit: it is not the request's public key, or the request names none; Unreadable: it is none;
        LedgerAway.
        """
        request = self._request(organisation, request_id)
        recipient = PublicKey(public_key)
        if "publicKeyDigest" not in request:
            raise Unfit(Problem.NO_PUBLIC_KEY)
        if request["publicKeyDigest"] != recipient.digest:
            raise Unfit(Problem.OTHER_PUBLIC_KEY)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(StandingChanged):
                return self._released(request, study, recipient)
        return self._released(request, study, recipient)

    def _request(self, organisation: str, request_id: bytes) -> dict[str, Any]:
        """An organisation's own request; another's is as unknown as one that is not there."""
        with contextlib.suppress(ContractError):
            request: dict[str, Any] = self._ledger.query("GetRequest", {"id": request_id})
            if request["node"]["organisation"] == organisation:
                return request
        raise Refused(Reason.NO_APPROVAL)

    def _approvals(self, request: dict[str, Any]) -> list[Approval]:
        return [row for row in self._gate.approvals(_recipient(request)) if row.request == request["id"]]

    def _released(self, request: dict[str, Any], study: bytes, recipient: PublicKey) -> KeyFile:
        study_uid = self._index.study_of_token(study) or ""
        node = _recipient(request)
        offers = self._gate.offers(node, study_uid, self._approvals(request))  # one at most: of this request
        if not offers:
            raise self._refused(request, self._gate.refusal(node, study_uid))
        (offer,) = offers
        for damaged in offer.damaged.values():
            self._library.report(damaged)
        if not offer.releasable:
            raise self._refused(request, next(iter(offer.withheld.values()), Reason.NO_APPROVAL))
        rows = self._keys_of(request, offer)
        try:
            release = self._gate.release(offer, list(offer.releasable))
        except Refused as refused:
            raise self._refused(request, refused.reason) from refused
        file = KeyFile.make(release.id, ReleasedKeys(request["id"], study, rows), recipient, self._identity)
        running = self._gate.running(release)
        self._outbox.post("LogOutcome", outcome(release, release.instances if running else ()))
        if not running:
            raise LedgerAway("the lease ended before its keys were ready: ask again")
        return file

    def _keys_of(self, request: dict[str, Any], offer: Offer) -> tuple[InstanceKeys, ...]:
        """Before the release: when keys are missing here, nothing is logged as given."""
        try:
            rows = [self._row(offer, instance, record) for instance, record in offer.releasable.values()]
        except NotHeld as error:
            raise self._refused(request, Reason.WITHHELD_INTEGRITY) from error
        return tuple(sorted(rows, key=lambda row: row.instance))

    def _row(self, offer: Offer, instance: Instance, record: Record) -> InstanceKeys:
        manifest = str(instance.manifest)
        _, key_id = self._manifests.record(manifest, offer.study.token, record.instance)
        keys = object_keys(self._keyring.batch_key(key_id), record.instance)
        return InstanceKeys(record.instance, manifest, record.object, keys)

    def _refused(self, request: dict[str, Any], reason: Reason) -> Refused:
        self._outbox.deny(request["node"]["organisation"], request["node"]["aeTitle"], reason)
        return Refused(reason)


def _recipient(request: dict[str, Any]) -> Peer:
    return Peer(request["node"]["aeTitle"], "research", request["node"]["organisation"])

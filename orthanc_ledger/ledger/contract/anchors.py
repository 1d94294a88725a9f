"""Anchors: which manifests there are, of which study, and which of them the custodian stores."""

from collections.abc import Mapping

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Effect, Question, State, Transaction, Value, differing
from orthanc_ledger.ledger.contract.paging import page
from orthanc_ledger.ledger.contract.standing import check_not_erased

DATASET_APPROVALS = "datasetApprovals"
_ANCHORS = "anchor/"
_CONTENT = ("study", "root", "count", "kind", "from", "profile")


def anchor(tx: Transaction) -> Effect:
    args = tx.args
    key = anchor_key(args["manifestCid"])
    first = tx.state.get(key)
    if first is not None:
        if name := differing(first, args, _CONTENT):
            raise ContractError("CONFLICT", name, "this manifest is anchored with another value")
        return Effect(_place(first), repeats=key)
    _check_kind(tx)
    study: bytes = args["study"]
    check_not_erased(tx.state, study)
    number = anchors_so_far(tx.state, study)  # puts a study's anchors in order: of two endorsed at once one is refused
    order = {"number": number, "datasetApprovals": dataset_approvals(tx.state)}
    record = {**args, **order, "time": tx.call.time, "sequence": tx.call.sequence}
    changes = {
        key: record,
        _study_anchor_key(study, number): args["manifestCid"],
        _count_key(study): number + 1,
    }
    return Effect(_place(record), changes, studies=(study,))


def confirm_stored(tx: Transaction) -> Effect:
    record = tx.record(anchor_key(tx.args["manifestCid"]), "manifestCid")
    key = _stored_key(tx.args["manifestCid"])
    if tx.state.get(key) is not None:
        return Effect(None, repeats=key)
    return Effect(None, {key: tx.by}, studies=(record["study"],))


def get_anchor(question: Question) -> Value:
    return _shown(question, question.record(anchor_key(question.args["manifestCid"]), "manifestCid"))


def anchors(question: Question) -> Value:
    """All anchors by manifest CID, so that a sweep can go on where it stopped."""
    after = anchor_key(question.args.get("after", ""))
    found = question.records.scan(_ANCHORS, after)
    return page((_shown(question, record) for _, record in found), question.args)


def anchors_of_study(question: Question) -> Value:
    """By number: in the order of their commits."""
    study, after = question.args["study"], question.args.get("after")
    place = "" if after is None else _study_anchor_key(study, after)
    cids = question.records.scan(f"studyAnchor/{study.hex()}/", place)
    found = (question.records.get(anchor_key(cid)) for _, cid in cids)
    return page((_shown(question, record) for record in found if record is not None), question.args)


def check_anchored(tx: Transaction, name: str) -> None:
    """Raises ContractError NOT_FOUND when the manifest an argument names has no anchor, INVALID for another study's."""
    if tx.record(anchor_key(tx.args[name]), name)["study"] != tx.args["study"]:
        raise ContractError("INVALID", name, "anchored for another study")


def anchor_key(manifest_cid: str) -> str:
    return _ANCHORS + manifest_cid


def is_stored(state: State, manifest_cid: str) -> bool:
    return state.get(_stored_key(manifest_cid)) is not None


def anchors_so_far(state: State, study: bytes) -> int:
    """How many anchors a study has: the number of its next one."""
    count: int = state.get(_count_key(study)) or 0
    return count


def dataset_approvals(state: State) -> int:
    """How many approvals there were that cover what a dataset's studies had until then."""
    count: int = state.get(DATASET_APPROVALS) or 0
    return count


def is_covered(anchored: Mapping[str, Value], covered_until: int | Mapping[str, int] | None) -> bool:
    """Whether an approval covers an anchor, by the request's coveredUntil: one that was made before it.

    None: future ones, too. Of named studies the number of each one's next anchor; of a dataset the approval's number.
    """
    if covered_until is None:
        return True
    if isinstance(covered_until, int):
        return int(anchored["datasetApprovals"]) < covered_until
    return int(anchored["number"]) < covered_until[anchored["study"].hex()]


def _check_kind(tx: Transaction) -> None:
    derived = tx.args["kind"] == "derived"
    if ("from" in tx.args) != derived:
        raise ContractError("INVALID", "from", "derived anchors have it, original ones do not")
    if "profile" in tx.args and not derived:
        raise ContractError("INVALID", "profile", "only derived anchors have it")


def _place(record: Value) -> Value:
    return {"sequence": record["sequence"], "time": record["time"]}


def _shown(question: Question, record: Value) -> Value:
    return {**record, "stored": is_stored(question.records, record["manifestCid"])}


def _study_anchor_key(study: bytes, number: int) -> str:
    return f"studyAnchor/{study.hex()}/{number:010d}"


def _count_key(study: bytes) -> str:
    return f"studyAnchors/{study.hex()}"


def _stored_key(manifest_cid: str) -> str:
    return f"stored/{manifest_cid}"

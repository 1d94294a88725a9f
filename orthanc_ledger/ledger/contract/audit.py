"""The trail: one record for every state change, and the history of a key."""

from collections.abc import Iterator

from orthanc_ledger.ledger.contract.call import Question, Value
from orthanc_ledger.ledger.contract.paging import page

_EVENTS = "event/"


def event_key(sequence: int) -> str:
    """Key of the record of the transaction with this sequence."""
    return f"{_EVENTS}{sequence:020d}"


def study_event_key(study: bytes, sequence: int) -> str:
    return f"{_study_events(study)}{sequence:020d}"


def audit(question: Question) -> Value:
    """Records in the order of their commits: of a study, by an organisation, `from` ≤ time < `until`."""
    args = question.args
    organisation, start, end = args.get("organisation"), args.get("from"), args.get("until")
    wanted = (
        event
        for event in _events(question)
        if (organisation is None or event["by"]["organisation"] == organisation)
        and (start is None or event["time"] >= start)
        and (end is None or event["time"] < end)
    )
    return page(wanted, args)


def history_of(question: Question) -> Value:
    """Every value a key had: {sequence, time, value}, first to last."""
    records = question.records
    writes = (
        {"sequence": sequence, "time": (records.get(event_key(sequence)) or {}).get("time"), "value": value}
        for sequence, value in records.history(question.args["key"])
    )
    return page(writes, question.args)


def _events(question: Question) -> Iterator[Value]:
    records, study, after = question.records, question.args.get("study"), question.args.get("after")
    prefix = _EVENTS if study is None else _study_events(study)
    for key, value in records.scan(prefix, "" if after is None else f"{prefix}{after:020d}"):
        yield value if study is None else records.get(_EVENTS + key.rpartition("/")[2])


def _study_events(study: bytes) -> str:
    return f"studyEvent/{study.hex()}/"

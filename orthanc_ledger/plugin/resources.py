"""What Orthanc's ids stand for, as the keys of the C-MOVEs that ask for it (PS3.4 C.4.2.1.4)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orthanc_ledger.errors import DataError
from orthanc_ledger.plugin.loopback import Loopback

_MOST = 1000  # UIDs in one move


class NotThere(DataError):
    """Orthanc has no such resource."""


def resolve(loopback: Loopback, ids: Sequence[str]) -> tuple[int, Iterator[Mapping[str, str]]]:
    """How many objects these ids stand for, and the keys of the moves that ask for them.

    Raises NotThere, OrthancAway.
    """
    rows = loopback.contents(ids)
    if {row["ID"] for row in rows} != set(ids):
        raise NotThere("Orthanc has not all of these resources")
    count = sum(loopback.size(row["Type"], row["ID"]) for row in rows)
    series = _by_id(loopback, [row["ParentSeries"] for row in rows if row["Type"] == "Instance"])
    above = [row["ParentStudy"] for row in (*rows, *series.values()) if row["Type"] == "Series"]
    return count, _moves(rows, series, _by_id(loopback, above))


def _by_id(loopback: Loopback, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {row["ID"]: row for row in loopback.contents(list(dict.fromkeys(ids)))} if ids else {}


def _moves(
    rows: Sequence[Mapping[str, Any]], series: Mapping[str, Mapping[str, Any]], studies: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mapping[str, str]]:
    """Resources of one kind with the same parents make one move; each patient one."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    above: tuple[tuple[str, str], ...]
    for row in rows:
        tags, kind = row["MainDicomTags"], row["Type"]
        if kind == "Patient":
            yield {"QueryRetrieveLevel": "PATIENT", "PatientID": tags["PatientID"]}
        elif kind == "Study":
            groups.setdefault((("QueryRetrieveLevel", "STUDY"),), []).append(tags["StudyInstanceUID"])
        elif kind == "Series":
            study = studies[row["ParentStudy"]]["MainDicomTags"]["StudyInstanceUID"]
            above = (("QueryRetrieveLevel", "SERIES"), ("StudyInstanceUID", study))
            groups.setdefault(above, []).append(tags["SeriesInstanceUID"])
        else:
            parent = series[row["ParentSeries"]]
            study = studies[parent["ParentStudy"]]["MainDicomTags"]["StudyInstanceUID"]
            of_series = ("SeriesInstanceUID", parent["MainDicomTags"]["SeriesInstanceUID"])
            above = (("QueryRetrieveLevel", "IMAGE"), ("StudyInstanceUID", study), of_series)
            groups.setdefault(above, []).append(tags["SOPInstanceUID"])
    for above, uids in groups.items():
        own = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")[len(above) - 1]
        for at in range(0, len(uids), _MOST):
            yield dict(above) | {own: "\\".join(uids[at : at + _MOST])}

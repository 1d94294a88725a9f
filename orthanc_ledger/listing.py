"""What the index holds, level by level, for C-FIND: in pages, each read at once, so that no reader stands in the way
of writers and no answer needs memory for everything.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orthanc_ledger.attributes import INSTANCE, PATIENT, SERIES, STUDY
from orthanc_ledger.database import Database

Row = Mapping[str, str]
"""Keyword → text, every attribute of its level."""

Place = tuple[str, ...]
"""Where a page of studies ends, in the order that its narrowing has."""

STUDY_DATE = "replace(json_extract(attributes, '$.StudyDate'), '.', '')"  # dots: ACR-NEMA (PS3.5 6.2, DA)
ACCESSION_NUMBER = "json_extract(attributes, '$.AccessionNumber')"
INDEXES = f"""
CREATE INDEX IF NOT EXISTS studies_by_date ON studies ({STUDY_DATE});
CREATE INDEX IF NOT EXISTS studies_by_accession ON studies ({ACCESSION_NUMBER});
CREATE INDEX IF NOT EXISTS instances_in_study ON instances (study_uid, series_uid, sop_class);
"""

_PAGE = 256
_ONE_OF = "IN (SELECT value FROM json_each(?))"
_PATIENT_NAME = "json_extract(attributes, '$.PatientName')"

# By attribute: the condition, and the order that its index gives.
_NARROWED = {
    "StudyInstanceUID": (f"study_uid {_ONE_OF}", "study_uid"),
    "PatientID": (f"patient_id {_ONE_OF}", "patient_id, study_uid"),
    "AccessionNumber": (f"{ACCESSION_NUMBER} {_ONE_OF}", f"{ACCESSION_NUMBER}, study_uid"),
    "StudyDate": (f"{STUDY_DATE} BETWEEN ? AND ?", f"{STUDY_DATE}, study_uid"),
    # Read from end to end, but here; what is not ASCII has cases and groups that SQL does not know.
    "PatientName": (f"({_PATIENT_NAME} LIKE '%' || ? || '%' OR {_PATIENT_NAME} GLOB '*[^ -~]*')", "study_uid"),
}


@dataclass(frozen=True)
class Narrowing:
    """What one attribute of the studies must be, so that not all are read.

    ``values``: of StudyInstanceUID, PatientID, AccessionNumber any of them; of StudyDate the first and the last; of
    PatientName ASCII letters that it holds in any case, unless it is not of ASCII.
    """

    attribute: Literal["StudyInstanceUID", "PatientID", "AccessionNumber", "StudyDate", "PatientName"]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """``count`` objects of one SOP class in a series."""

    series_uid: str
    sop_class: str
    count: int


class Listing:
    """Reads the tables of `Index`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def studies(self, narrowing: Narrowing | None) -> Iterator[list[Row]]:
        """Studies, page by page, with their patients' attributes."""
        place: Place = ()
        while True:
            placed = self.page(narrowing, place, _PAGE)
            if placed:
                yield [row for row, _ in placed]
            if len(placed) < _PAGE:
                return
            place = placed[-1][1]

    def page(self, narrowing: Narrowing | None, after: Place, limit: int) -> list[tuple[Row, Place]]:
        """The studies behind a place in the order of the narrowing, ``limit`` at most; empty: from the first on."""
        where, order = ("1", "study_uid") if narrowing is None else _NARROWED[narrowing.attribute]
        values: Sequence[str] = () if narrowing is None else narrowing.values
        if _ONE_OF in where:
            values = [json.dumps(values)]
        width = order.count(", study_uid") + 1
        if narrowing is not None and narrowing.attribute == "StudyDate" and len(after) == width:
            values = max(values[0], after[0]), values[1]  # SQLite enters an index of an expression by this alone
        rows = self._db.rows(
            f"SELECT study_uid, attributes, {order} FROM studies "
            f"WHERE {where} AND ({order}) > ({', '.join('?' * width)}) ORDER BY {order} LIMIT ?",
            *values,
            *(after if len(after) == width else [""] * width),
            limit,
        )
        return [(_row((*PATIENT, *STUDY), text, StudyInstanceUID=uid), tuple(place)) for uid, text, *place in rows]

    def parts(self, study_uids: Sequence[str]) -> Mapping[str, list[Part]]:
        """What studies hold, by Study Instance UID; not in it: nothing any more. Read from an index alone.

        Left out: what could not be read, of which no series is known.
        """
        found: dict[str, list[Part]] = {}
        for study_uid, *part in self._db.rows(
            "SELECT study_uid, series_uid, sop_class, COUNT(*) FROM instances INDEXED BY instances_in_study "
            f"WHERE study_uid {_ONE_OF} AND series_uid != '' GROUP BY study_uid, series_uid, sop_class",
            json.dumps(list(study_uids)),
        ):
            found.setdefault(study_uid, []).append(Part(*part))
        return found

    def states(self, study_uids: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """How many objects of studies are in each state, by Study Instance UID; not in it: nothing is held."""
        found: dict[str, dict[str, int]] = {}
        for study_uid, state, count in self._db.rows(
            f"SELECT study_uid, state, COUNT(*) FROM instances WHERE study_uid {_ONE_OF} GROUP BY study_uid, state",
            json.dumps(list(study_uids)),
        ):
            found.setdefault(study_uid, {})[state] = count
        return found

    def studies_of(self, claims: Collection[str]) -> set[str]:
        """Study Instance UIDs of the objects that hold these claims."""
        sql = f"SELECT DISTINCT study_uid FROM instances WHERE claim {_ONE_OF}"
        return {study_uid for (study_uid,) in self._db.rows(sql, json.dumps(list(claims)))}

    def series(self, study_uids: Sequence[str]) -> Mapping[str, list[Row]]:
        """Series, by Study Instance UID."""
        found: dict[str, list[Row]] = {}
        for study_uid, uid, text in self._db.rows(
            f"SELECT study_uid, series_uid, attributes FROM series WHERE study_uid {_ONE_OF} ORDER BY 1, 2",
            json.dumps(list(study_uids)),
        ):
            found.setdefault(study_uid, []).append(_row(SERIES, text, SeriesInstanceUID=uid))
        return found

    def instances(self, study_uid: str, series_uid: str) -> Iterator[list[Row]]:
        """The objects of a series, page by page."""
        last = 0
        while True:
            rows = self._db.rows(
                "SELECT rowid, sop_uid, sop_class, attributes FROM instances INDEXED BY instances_by_series "
                f"WHERE series_uid = ? AND rowid > ? AND study_uid = ? ORDER BY rowid LIMIT {_PAGE}",
                series_uid,
                last,
                study_uid,
            )
            if rows:
                yield [_row(INSTANCE, text, SOPInstanceUID=uid, SOPClassUID=of) for _, uid, of, text in rows]
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def objects(self, records: Collection[tuple[str, str]]) -> list[Row]:
        """Objects by (claim, manifest CID) with what they say of all levels, in the order they arrived; one that the
        index has from another manifest is not among them.
        """
        rows = self._db.rows(
            "SELECT study_uid, series_uid, sop_uid, sop_class, attributes "
            "FROM json_each(?) AS wanted CROSS JOIN instances "
            "ON claim = json_extract(wanted.value, '$[0]') AND manifest = json_extract(wanted.value, '$[1]') "
            "ORDER BY received_us, sop_uid",
            json.dumps(list(records)),
        )
        return [
            _row(
                (*PATIENT, *STUDY, *SERIES, *INSTANCE),
                text,
                StudyInstanceUID=study_uid,
                SeriesInstanceUID=series_uid,
                SOPInstanceUID=sop_uid,
                SOPClassUID=sop_class,
            )
            for study_uid, series_uid, sop_uid, sop_class, text in rows
        ]


def _row(keywords: Sequence[str], attributes: str, **columns: str) -> Row:
    """Attributes as they were kept; what was not known at the time is empty."""
    kept: dict[str, str] = json.loads(attributes)
    return {keyword: kept.get(keyword, "") for keyword in keywords} | columns

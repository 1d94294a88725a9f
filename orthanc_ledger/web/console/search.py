"""Studies by what staff know of them, a page at a time, however many there are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orthanc_ledger.find import fitting, narrowing
from orthanc_ledger.listing import Listing, Place, Row

PAGE = 50

_MOST_READ = 50_000
_STEP = 500


@dataclass(frozen=True)
class Found:
    """Studies that fit; ``after``: where to go on, None at the end. ``read``: how many were looked at."""

    rows: list[Row]
    after: Place | None
    read: int


def keys_of(asked: Mapping[str, str]) -> dict[str, str]:
    """What was typed as C-FIND has it (PS3.4 C.2.2.2): a name's part counts, and dates are a range."""
    typed = {name: value.replace("\\", " ").strip() for name, value in asked.items()}
    name = typed.get("patient_name", "")
    first, last = (typed.get(each, "").replace("-", "") for each in ("first", "last"))
    keys = {
        "PatientID": typed.get("patient_id", ""),
        "PatientName": name if not name or "*" in name else f"*{name}*",
        "AccessionNumber": typed.get("accession", ""),
        "StudyInstanceUID": typed.get("study", ""),
        "StudyDate": f"{first}-{last}" if first or last else "",
    }
    return {keyword: key for keyword, key in keys.items() if key}


def search(listing: Listing, keys: Mapping[str, str], after: Place) -> Found:
    """At most `PAGE` studies behind a place that fit."""
    narrowed, fits = narrowing(keys), fitting(keys)
    rows: list[Row] = []
    read = 0
    while read < _MOST_READ:
        placed = listing.page(narrowed, after, _STEP)
        for row, place in placed:
            read, after = read + 1, place
            if fits(row):
                rows.append(row)
                if len(rows) == PAGE:
                    return Found(rows, after, read)
        if len(placed) < _STEP:
            return Found(rows, None, read)
    return Found(rows, after, read)


def place_of(text: str) -> Place:
    """A place as a page's address has it; the beginning for anything else."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return ()
    is_place = isinstance(found, list) and len(found) <= 3 and all(isinstance(each, str) for each in found)
    return tuple(found) if is_place else ()


def text_of(place: Place) -> str:
    """A place for a page's address."""
    return json.dumps(place)

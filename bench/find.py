"""C-FIND on an index of synthetic rows: its size, and the time of each kind of query as holdings grow.

``python bench/find.py`` prints 10^4 and 10^6 instances side by side. The rows are entered as the node enters them; a
time is that of `Catalogue.find` to its last answer, without the wire.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from orthanc_ledger.attributes import INSTANCE, PATIENT, SERIES, STUDY, Attributes
from orthanc_ledger.find import Catalogue
from orthanc_ledger.index import Index, Instance
from orthanc_ledger.peer import Peer
from orthanc_ledger.retrieve import Level, Query

ASKER = Peer("VIEWER", "clinical")
STUDIES_OF_PATIENT, SERIES_OF_STUDY, INSTANCES_OF_SERIES = 3, 4, 25
INSTANCES_OF_STUDY = SERIES_OF_STUDY * INSTANCES_OF_SERIES
TIMES = 21
_ENTERED_AT_ONCE = 10_000
_ROOT = "1.2.826.0.1.3680043.10.1"
_MR = "1.2.840.10008.5.1.4.1.1.4"
_MODALITIES = ("MR", "CT", "US", "DX")
_FAMILIES = ("Smith", "Müller", "Yamada", "Garcia", "Novak", "Rossi", "Okafor", "Haddad", "Larsen", "Kim")
_COLUMNS = (("answers", 0), ("median_ms", 2), ("worst_ms", 2))


@dataclass(frozen=True)
class Asked:
    """One kind of query; ``made`` draws its keys for a study's number: level, unique keys above, other keys."""

    name: str
    made: Callable[[int], tuple[Level, Query, Mapping[str, str]]]


QUERIES = (
    Asked("study by its UID", lambda n: ("STUDY", Query(), {"StudyInstanceUID": study_uid(n)})),
    Asked("studies of a patient", lambda n: ("STUDY", Query(), {"PatientID": patient(n)["PatientID"]})),
    Asked("study by accession number", lambda n: ("STUDY", Query(), {"AccessionNumber": f"A{n}"})),
    Asked("studies of a day", lambda n: ("STUDY", Query(), {"StudyDate": date(n)})),
    Asked("MR studies of a month", lambda n: ("STUDY", Query(), {"StudyDate": month(n), "ModalitiesInStudy": "MR"})),
    Asked("studies by name, wildcard", lambda n: ("STUDY", Query(), {"PatientName": f"*{n % 997:03}*"})),
    Asked("patients by name, wildcard", lambda n: ("PATIENT", Query(), {"PatientName": f"smith^*{n % 997:03}*"})),
    Asked("series of a study", lambda n: ("SERIES", Query(studies=(study_uid(n),)), {})),
    Asked("images of a series", lambda n: ("IMAGE", Query(studies=(study_uid(n),), series=(f"{study_uid(n)}.1",)), {})),
    Asked("all studies", lambda n: ("STUDY", Query(), {})),
)


def study_uid(number: int) -> str:
    return f"{_ROOT}.{number}"


def date(number: int) -> str:
    return f"{2010 + number % 10}{1 + number % 12:02}{1 + number % 28:02}"


def month(number: int) -> str:
    return f"{date(number)[:6]}01-{date(number)[:6]}31"


def patient(study: int) -> dict[str, str]:
    """The patient of a study's number."""
    number = study // STUDIES_OF_PATIENT
    return {
        "PatientID": f"PID{number:07}",
        "PatientName": f"{_FAMILIES[number % len(_FAMILIES)]}^Given{number % 997:03}",
        "PatientBirthDate": date(number),
        "PatientSex": "FMO"[number % 3],
    }


def instances(count: int) -> Iterator[tuple[Instance, Attributes]]:
    """What the index is given of so many objects."""
    for number in range(count):
        study, within = divmod(number, INSTANCES_OF_STUDY)
        at, uid = within // INSTANCES_OF_SERIES, study_uid(study)
        series_uid = f"{uid}.{at}"
        of_study = {
            "StudyInstanceUID": uid,
            "StudyDate": date(study),
            "StudyTime": f"{study % 24:02}3000",
            "AccessionNumber": f"A{study}",
            "StudyDescription": "Head without contrast",
            "StudyID": str(study),
        }
        of_series = {"SeriesInstanceUID": series_uid, "SeriesNumber": str(at), "Modality": _MODALITIES[study // 7 % 4]}
        of_instance = {"SOPInstanceUID": f"{series_uid}.{number}", "SOPClassUID": _MR, "InstanceNumber": str(within)}
        row = Instance(
            claim=f"{random.Random(number).getrandbits(256):064x}",
            sop_uid=f"{series_uid}.{number}",
            series_uid=series_uid,
            study_uid=uid,
            sop_class=_MR,
            transfer_syntax="1.2.840.10008.1.2.1",
            size=131_072,
            sha256=bytes(32),
            received_us=number,
            origin="addressed-ae",
            sender="MRI1 at 192.0.2.10",
            state="anchored",
            spool_name="",
        )
        yield (
            row,
            Attributes(
                dict.fromkeys((*PATIENT, *STUDY), "") | patient(study) | of_study,
                dict.fromkeys(SERIES, "") | of_series,
                dict.fromkeys(INSTANCE, "") | of_instance,
            ),
        )


def measure(count: int, folder: Path) -> list[dict[str, object]]:
    """A row for each kind of query on ``count`` instances; times in milliseconds."""
    path = folder / f"index-{count}.db"
    index = Index(path)
    waiting = instances(count)
    while batch := list(islice(waiting, _ENTERED_AT_ONCE)):
        index.enter(batch)
    index.close()  # the last connection empties the write-ahead log
    catalogue = Catalogue(Index(path), gate=None)  # type: ignore[arg-type]  # a clinical peer's query asks no gate
    drawn = random.Random(count)
    rows: list[dict[str, object]] = []
    for asked in QUERIES:
        times, answers = [], []
        for _ in range(TIMES):
            level, uids, keys = asked.made(drawn.randrange(count // INSTANCES_OF_STUDY))
            begin = time.perf_counter()
            answers.append(sum(1 for _ in catalogue.find(ASKER, level, uids, keys, combined=False)))
            times.append(1000 * (time.perf_counter() - begin))
        rows.append(
            {
                "instances": count,
                "index_mb": path.stat().st_size / 1e6,
                "query": asked.name,
                "answers": statistics.median(answers),
                "median_ms": statistics.median(times),
                "worst_ms": max(times),
            }
        )
    return rows


def rows(*counts: int) -> list[dict[str, object]]:
    """A row for each number of instances and kind of query: `measure`; 10^4 and 10^6 unless others are given."""
    with tempfile.TemporaryDirectory() as folder:
        return [row for count in counts or (10**4, 10**6) for row in measure(count, Path(folder))]


def main() -> None:
    """Print both sizes side by side."""
    found = rows()
    few, many = found[: len(QUERIES)], found[len(QUERIES) :]
    print(f"{INSTANCES_OF_STUDY} instances a study in {SERIES_OF_STUDY} series, {STUDIES_OF_PATIENT} studies a patient")
    for half in (few, many):
        print(f"{half[0]['instances']} instances: an index of {half[0]['index_mb']:.0f} MB")
    print(f"{'ms to the last answer':28} {'answers':>14} {'median':>18} {'worst':>18} {'growth':>7}")
    for small, large in zip(few, many, strict=True):
        told = [f"{small[key]:.{digits}f} → {large[key]:.{digits}f}" for key, digits in _COLUMNS]
        growth = float(str(large["median_ms"])) / float(str(small["median_ms"]))
        print(f"{small['query']:28} {told[0]:>14} {told[1]:>18} {told[2]:>18} {growth:6.1f}×")


if __name__ == "__main__":
    main()

"""Choosing the studies of a dataset: DICOM's matching (PS3.4 C.2.2.2) on what this node holds, told as counts only."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from orthanc_ledger import matching
from orthanc_ledger.attributes import VRS
from orthanc_ledger.datasets import StudyList
from orthanc_ledger.errors import ConfigError, NotHeld
from orthanc_ledger.index import Index, Instance

_DEFINED_TERM = re.compile(r"[A-Z0-9]{2,16}")


@dataclass(frozen=True)
class DateRange:
    """A key for Study Date: one date or a range (PS3.4 C.2.2.2.5)."""

    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `DATE`, `DATE-DATE`, `DATE-` or `-DATE`. Raises ConfigError."""
        if matching.dates(text) is None:
            raise ConfigError(f"{text!r}: expected YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD")
        return cls(text)


@dataclass(frozen=True)
class Criteria:
    """Which studies belong in a dataset: those with an anchored object that fits.

    Several values of one key are alternatives; several keys must all fit; an empty key fits everything. Dates,
    descriptions (with `*` and `?`, PS3.4 C.2.2.2.4) and UIDs are the study's, modality and body part the series', the
    SOP class the object's.
    """

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    study_dates: tuple[DateRange, ...] = ()
    descriptions: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()

    def told(self) -> dict[str, list[str]]:
        """What a descriptor says of them: codes alone. A date may be one patient's, a description is free text."""
        codes = {"modality": self.modalities, "body_part": self.body_parts, "sop_class": self.sop_classes}
        return {key: sorted(set(values)) for key, values in codes.items() if values}

    def fit_study(self, attributes: Mapping[str, str]) -> bool:
        """Whether a study's own attributes fit."""
        wanted = (
            ("StudyDate", [dates.key for dates in self.study_dates]),
            ("StudyDescription", self.descriptions),
        )
        return all(
            not keys or any(matching.matcher(VRS[keyword], key)(attributes[keyword]) for key in keys)
            for keyword, keys in wanted
        )

    def fit_object(self, instance: Instance, series: Mapping[str, str]) -> bool:
        """Whether an object and its series' attributes fit."""
        wanted = (
            (series.get("Modality", ""), self.modalities),
            (series.get("BodyPartExamined", ""), self.body_parts),
            (instance.sop_class, self.sop_classes),
        )
        return all(not values or value in values for value, values in wanted)


@dataclass(frozen=True)
class Counts:
    """What the chosen studies hold: objects by number, by modality and by SOP class; ``matching`` fit the criteria."""

    studies: int
    instances: int
    matching: int
    modalities: Mapping[str, int]
    sop_classes: Mapping[str, int]


def select(index: Index, criteria: Criteria, excluded_origins: Collection[str]) -> tuple[StudyList, Counts]:
    """The studies that fit, and what they hold. Counted is what is anchored and not of an excluded origin.

    Raises NotHeld when a study is named that this node does not hold.
    """
    studies = index.studies(criteria.studies or None)
    if missing := set(criteria.studies) - {uid for uid, _, _ in studies}:
        raise NotHeld(f"not held here: {', '.join(sorted(missing))}; `orthanc-ledger studies` lists what is")
    tokens: list[bytes] = []
    matching = 0
    modalities: Counter[str] = Counter()
    sop_classes: Counter[str] = Counter()
    for study_uid, token, attributes in studies:
        if token is None or not criteria.fit_study(attributes):
            continue
        series = dict(index.series_attributes(study_uid))
        held = [
            (instance, series.get(instance.series_uid, {}))
            for instance in index.select(studies=[study_uid])
            if instance.state == "anchored" and instance.origin not in excluded_origins
        ]
        fitting = sum(criteria.fit_object(instance, of_series) for instance, of_series in held)
        if fitting:
            tokens.append(token)
            matching += fitting
            modalities.update(_modality(of_series) for _, of_series in held)
            sop_classes.update(instance.sop_class for instance, _ in held)
    counts = Counts(len(tokens), sop_classes.total(), matching, dict(modalities), dict(sop_classes))
    return StudyList.of(tokens), counts


def _modality(series: Mapping[str, str]) -> str:
    """A series' modality, where it may be one at all (PS3.3 C.7.3.1.1.1): counts are shown to others."""
    modality = series.get("Modality", "")
    return modality if _DEFINED_TERM.fullmatch(modality) else "OT"

"""Whether a value fits a key: attribute matching of PS3.4 C.2.2.2. The only place that decides it.

Both are decoded text without padding. A key of several values (backslash) fits what any of them fits: list of UID,
C.2.2.2.2, and multiple values, C.2.2.2.8. A value that is absent fits universal keys only.
"""

import re
from collections.abc import Callable
from decimal import Decimal

Fits = Callable[[str], bool]

_WILDCARDS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))  # C.2.2.2.4
_ONE_VALUE = frozenset(("LT", "ST", "UR", "UT"))  # a backslash is part of the text (PS3.5 6.2)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)

_MONTH_DAY = r"(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
_MOMENTS = {
    "DA": re.compile(rf"\d{{4}}{_MONTH_DAY})", re.ASCII),
    "TM": re.compile(_TIME, re.ASCII),
    "DT": re.compile(rf"\d{{4}}(?:0[1-9]|1[0-2])?|\d{{4}}{_MONTH_DAY})(?:{_TIME})?", re.ASCII),
}
_EARLIEST = {"DA": "00000101", "TM": "000000000000", "DT": "00000101000000000000"}
_LATEST = {"DA": "99991231", "TM": "235960999999", "DT": "99991231235960999999"}


def is_universal(key: str) -> bool:
    """Whether a key fits everything (C.2.2.2.3; C.2.2.2.4 for ``*``)."""
    return not key.strip("*\\ ")


def matcher(vr: str, key: str) -> Fits:
    """What tells whether a value of this VR fits the key."""
    if is_universal(key):
        return lambda value: True
    keys = [key] if vr in _ONE_VALUE else _values(key)
    if vr == "UI":
        return frozenset(keys).__contains__
    any_of = [_one(vr, each) for each in keys]
    return lambda value: value != "" and any(fits(value) for fits in any_of)


def combined_matcher(date_key: str, time_key: str) -> Callable[[str, str], bool] | None:
    """Date and time as one: what tells whether a (date, time) fits two ranges of the same form (C.2.2.2.5).

    None when they are no such ranges: then each key counts by itself.
    """
    dates, times = _ends("DA", date_key), _ends("TM", time_key)
    if dates is None or times is None or [bool(end) for end in dates] != [bool(end) for end in times]:
        return None
    first, last = (_plain(date) + _plain(time) for date, time in zip(dates, times, strict=True))
    within = _within("DT", first, last)
    return lambda date, time: bool(date) and within(_plain(date) + _plain(time))


def exact(vr: str, key: str) -> tuple[str, ...]:
    """The only values that can fit the key, compared as text; empty when more can."""
    if is_universal(key) or (vr in _WILDCARDS and ("*" in key or "?" in key)):
        return ()
    return tuple(_values(key))


def dates(key: str) -> tuple[str, str] | None:
    """The first and the last date, as YYYYMMDD, that can fit the key; None when others can."""
    spans = [span for each in _values(key) if (span := _span("DA", each))]
    if is_universal(key) or len(spans) < len(_values(key)):
        return None
    firsts = [_fill(first, _EARLIEST["DA"]) for first, _ in spans]
    lasts = [_fill(last, _LATEST["DA"]) for _, last in spans]
    return min(firsts), max(lasts)


def letters(name_key: str) -> str:
    """The longest run of ASCII letters and digits that an ASCII name must hold, in any case, to fit the key."""
    if is_universal(name_key) or "\\" in name_key:
        return ""
    return max(re.findall(r"[A-Za-z0-9]+", name_key), key=len, default="")


def _values(key: str) -> list[str]:
    return [value.strip() for value in key.split("\\") if value.strip()]


def _one(vr: str, key: str) -> Fits:
    if vr == "PN":
        return _name(key)
    if vr in _MOMENTS and (span := _span(vr, key)) is not None:
        return _within(vr, *span)
    if vr in ("IS", "DS") and _NUMBER.fullmatch(key):
        number = Decimal(key)
        return lambda value: _NUMBER.fullmatch(value) is not None and Decimal(value) == number
    return _text(key) if vr in _WILDCARDS else lambda value: value == key


def _text(key: str) -> Fits:
    """`*` is any characters, `?` is one (C.2.2.2.4); without them the text itself (C.2.2.2.1)."""
    if "*" not in key and "?" not in key:
        return lambda value: value == key
    first, *parts = (re.escape(part).replace(r"\?", ".") for part in key.split("*"))
    if parts:  # what was found for a part is never searched again, or a key of many stars would take for ever
        first += "".join(f"(?>.*?{part})" for part in parts[:-1]) + ".*" + parts[-1]
    pattern = re.compile(first, re.DOTALL)
    return lambda value: pattern.fullmatch(value) is not None


def _name(key: str) -> Fits:
    """Person names: by component group (PS3.5 6.2.1), whatever the case, trailing empty components left out."""
    groups = [_name_group(group) for group in key.casefold().split("=")]

    def fits(value: str) -> bool:
        names = [_components(group) for group in value.casefold().split("=")]
        if len(groups) == 1:
            return any(groups[0](name) for name in names if name)
        names += [""] * (len(groups) - len(names))
        return all(group(name) for group, name in zip(groups, names, strict=False))

    return fits


def _name_group(key: str) -> Fits:
    """One group: alone or, where it ends in a component of ``*``, with any further components."""
    components = [component.strip() for component in key.split("^")]
    wild = False
    while components and not components[-1].strip("*"):
        wild |= components.pop() != ""
    if not components:
        return lambda name: True
    known = "^".join(components)
    alternatives = [_text(known), *([_text(known + "^*")] if wild else [])]
    return lambda name: any(fits(name) for fits in alternatives)


def _components(group: str) -> str:
    return "^".join(component.strip() for component in group.split("^")).rstrip("^")


def _within(vr: str, first: str, last: str) -> Fits:
    """Moments from the start of ``first`` to the end of ``last``, either may be empty; a value counts by its start."""
    start = _fill(first, _EARLIEST[vr])
    end = _fill(last, _LATEST[vr])

    def fits(value: str) -> bool:
        moment = _plain(value)
        return _MOMENTS[vr].fullmatch(moment) is not None and start <= _fill(moment, _EARLIEST[vr]) <= end

    return fits


def _span(vr: str, key: str) -> tuple[str, str] | None:
    """The ends of a range, a single value being both; None for what is neither."""
    single = _plain(key)
    return (single, single) if _MOMENTS[vr].fullmatch(single) else _ends(vr, key)


def _ends(vr: str, key: str) -> tuple[str, str] | None:
    """The ends of a range (C.2.2.2.5), one of them empty where it is open; None for what is no range."""
    first, dash, last = (_plain(part) for part in key.partition("-"))
    fit = all(_MOMENTS[vr].fullmatch(end) for end in (first, last) if end)
    return (first, last) if dash and (first or last) and fit else None


def _plain(moment: str) -> str:
    """Without the dots and colons of ACR-NEMA's dates and times (PS3.5 6.2, DA and TM); a fraction's dot stays."""
    moment = moment.strip().replace(":", "")
    return moment.replace(".", "") if re.fullmatch(r"\d{4}\.\d\d\.\d\d", moment) else moment


def _fill(moment: str, pattern: str) -> str:
    digits = moment.replace(".", "")
    return digits + pattern[len(digits) :]

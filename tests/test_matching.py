"""Matching of keys: a table written from PS3.4 C.2.2.2, and what holds for every key."""

import csv
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ledger import matching

TABLE = Path(__file__).parent / "vectors" / "matching.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
VRS = ("AE", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT")
TEXT = st.text(max_size=12)
DATES = st.dates().map(lambda date: f"{date:%Y%m%d}".rjust(8, "0"))
TIMES = st.builds(
    lambda time, digits, fraction: f"{time:%H%M%S}"[:digits] + (f".{fraction}" if digits == 6 and fraction else ""),
    st.times(),
    st.sampled_from((2, 4, 6)),
    st.text(string.digits, max_size=6),
)
NAMES = st.lists(
    st.lists(st.text("aÄß山Б'- ", min_size=1, max_size=5).map(str.strip), min_size=1, max_size=5).map("^".join),
    min_size=1,
    max_size=3,
).map("=".join)


def fits(vr: str, key: str, value: str, combined: bool = False) -> bool:
    if vr != "DA TM":
        return matching.matcher(vr, key)(value)
    (date_key, time_key), (date, time) = key.split(" "), value.split(" ")
    if combined and (together := matching.combined_matcher(date_key, time_key)) is not None:
        return together(date, time)
    return fits("DA", date_key, date) and fits("TM", time_key, time)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['vr']}:{row['key']}:{row['value']}:{row['combined']}")
def test_the_table_of_the_standard(row: dict[str, str]) -> None:
    found = fits(row["vr"], row["key"], row["value"], row["combined"] == "yes")
    assert found == (row["matches"] == "yes"), row["why"]


def test_the_table_is_as_long_as_was_promised() -> None:
    assert len(ROWS) >= 120


@given(st.sampled_from(VRS), st.sampled_from(("", "*", "**", " ", "\\")), TEXT)
def test_a_universal_key_fits_everything(vr: str, key: str, value: str) -> None:
    assert matching.is_universal(key)
    assert fits(vr, key, value)


@given(st.sampled_from(VRS), TEXT.map(str.strip).filter(lambda text: text.strip("=^") and "\\" not in text))
def test_a_value_fits_itself(vr: str, value: str) -> None:
    assert vr in ("DA", "TM", "DT") or fits(vr, value, value)


@given(st.sampled_from(VRS), st.lists(TEXT, min_size=1, max_size=4), TEXT)
def test_a_list_fits_what_any_of_its_values_fits(vr: str, keys: list[str], value: str) -> None:
    keys = [key.replace("\\", "").strip() for key in keys]
    keys = [key for key in keys if not matching.is_universal(key)]
    if keys and vr not in ("LT", "ST", "UT"):
        assert fits(vr, "\\".join(keys), value) == any(fits(vr, key, value) for key in keys)


@given(st.sampled_from(VRS), TEXT)
def test_no_key_is_a_reason_to_fail(vr: str, key: str) -> None:
    assert fits(vr, key, "x") in (True, False)
    assert matching.combined_matcher(key, key) is None


@given(DATES, DATES)
def test_a_range_of_dates_contains_its_ends_and_what_lies_between(one: str, other: str) -> None:
    first, last = sorted((one, other))
    for date in (first, last):
        assert all(fits("DA", key, date) for key in (f"{first}-{last}", f"{date}-", f"-{date}", date))
    assert fits("DA", f"{first}-", last)
    assert fits("DA", f"-{last}", first)
    assert fits("DA", f"{last}-{first}", first) == (first == last)


@given(TIMES, TIMES)
def test_a_range_of_times_contains_its_ends_whatever_their_precision(one: str, other: str) -> None:
    for time_of_day in (one, other):
        assert all(fits("TM", key, time_of_day) for key in (f"{time_of_day}-", f"-{time_of_day}", time_of_day))
    first, last = sorted((one, other), key=_moment)
    assert fits("TM", f"{first}-{last}", first)
    assert fits("TM", f"{first}-{last}", last)


def _moment(time_of_day: str) -> str:
    return time_of_day.replace(".", "").ljust(12, "0")


@given(DATES, TIMES, DATES, TIMES)
def test_a_combined_range_contains_its_ends(date: str, hour: str, other_date: str, other_hour: str) -> None:
    ends = sorted(((date, hour), (other_date, other_hour)), key=lambda end: (end[0], _moment(end[1])))
    key = [f"{ends[0][part]}-{ends[1][part]}" for part in (0, 1)]
    together = matching.combined_matcher(*key)
    assert together is not None
    assert all(together(*end) for end in ends)


@given(NAMES)
def test_a_name_fits_itself_in_any_case_and_by_its_beginning(name: str) -> None:
    if name.strip("=^"):
        assert fits("PN", name.upper(), name)
        assert fits("PN", f"{name.split('=')[0]}*", name) or not name.split("=")[0]


@given(st.sampled_from(("LO", "UI", "SH")), TEXT, TEXT)
def test_exact_values_are_all_that_fit(vr: str, key: str, value: str) -> None:
    exact = matching.exact(vr, key)
    if exact:
        assert fits(vr, key, value) == (value in exact)


@given(st.one_of(DATES, DATES.map(lambda date: f"{date}-"), DATES.map(lambda date: f"-{date}"), TEXT), DATES)
def test_dates_that_fit_lie_between_the_bounds(key: str, date: str) -> None:
    bounds = matching.dates(key)
    if bounds is not None and fits("DA", key, date):
        assert bounds[0] <= date <= bounds[1]


@given(st.text("aAbß*?^=K\\ ", max_size=10), st.text("aAbsSkK^=", max_size=10))
def test_an_ascii_name_that_fits_holds_the_letters(key: str, name: str) -> None:
    if name.strip("^=") and fits("PN", key, name):
        assert matching.letters(key).lower() in name.lower()


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_wildcards_are_those_of_a_plain_pattern(key: str, value: str) -> None:
    plain = re.fullmatch(key.replace("*", ".*").replace("?", "."), value) is not None
    assert fits("LO", key, value) == ((plain and value != "") or matching.is_universal(key))


@pytest.mark.parametrize(
    ("vr", "key", "value", "other"),
    [
        ("LO", "*a" * 511 + "b", "a" * 511 + "b", "a" * 1000),  # backtracking would take longer than anybody waits
        ("PN", "?*a" * 340 + "b", "xa" * 340 + "b", "a" * 1000),
        ("LO", "?" * 1023, "x" * 1023, "x" * 1022),
        ("LO", "\\".join(f"{number}*" for number in range(250)), "249th", "x"),
        ("PN", "\\".join(f"n{number}" for number in range(200)), "N199", "n200"),
        ("PN", "=".join("a" * 511), "=".join("a" * 511), "a=a"),
        ("IS", "\\".join(map(str, range(280))), "0279", "280"),
        ("DA", "\\".join(["19990101-"] * 102), "19990101", "19981231"),
        ("UI", "\\".join(f"1.{number}" for number in range(1024)), "1.1023", "1.1024"),
    ],
    ids=lambda text: text[:12],
)
def test_the_largest_keys_that_a_peer_may_send_are_matched(vr: str, key: str, value: str, other: str) -> None:
    assert (fits(vr, key, value), fits(vr, key, other)) == (True, False)


def test_nothing_of_a_peers_keys_is_kept() -> None:
    assert matching.matcher("LO", "a\\b*") is not matching.matcher("LO", "a\\b*")

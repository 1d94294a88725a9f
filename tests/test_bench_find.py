"""The bench of C-FIND runs; its figures are nobody's promise."""

from bench.find import QUERIES, rows


def test_every_kind_of_query_is_measured_and_finds_something() -> None:
    found = rows(1000)
    assert [row["query"] for row in found] == [asked.name for asked in QUERIES]
    assert {row["instances"] for row in found} == {1000}
    answers = {str(row["query"]): row["answers"] for row in found}
    assert (answers["study by its UID"], answers["images of a series"], answers["all studies"]) == (1, 25, 10)

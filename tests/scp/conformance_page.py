"""Tables of Markdown between marks in a page, and how they are read from it again."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

_MARKED = re.compile(r"(<!-- (\w+): from the code -->\n).*?(<!-- end of \2 -->)", re.DOTALL)

Row = Iterable[object]
Table = tuple[Row, Iterable[Row]]
"""Head and rows."""


def replaced(page: str, tables: Mapping[str, Callable[[], Table]]) -> str:
    """The page with each table between its marks. Raises KeyError for marks of no table."""
    return _MARKED.sub(lambda found: f"{found[1]}{''.join(_lines(*tables[found[2]]()))}{found[3]}", page)


def marked(page: str) -> list[str]:
    """The names of the tables that a page has marks for."""
    return [found[2] for found in _MARKED.finditer(page)]


def rows_of(page: str, name: str) -> list[list[str]]:
    """The cells of a table as they stand on the page, without its head."""
    text = next(found[0] for found in _MARKED.finditer(page) if found[2] == name)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def _lines(head: Row, rows: Iterable[Row]) -> Iterator[str]:
    cells = list(head)
    yield f"| {' | '.join(map(str, cells))} |\n"
    yield f"|{'---|' * len(cells)}\n"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |\n"

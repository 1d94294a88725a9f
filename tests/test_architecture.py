"""ARCHITECTURE.md's table of rooms, held against the imports of every file of the packages."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE, LEAF = "orthanc_ledger", "leaf"
# Foreign package -> the only folder that may import it.
FENCED = {"pynetdicom": "dicom_scp/", "orthanc": "orthanc_ledger/plugin/"}


@dataclass(frozen=True)
class Room:
    """One row: its files as paths from the root (a folder ends in /), and the rooms it may import, itself included."""

    name: str
    files: tuple[str, ...]
    may_import: frozenset[str]


def parse_rooms(page: str) -> list[Room]:
    """The rows under "## The rooms", lowest first. Leave to import a room is leave to import what that room may."""
    section = page.split("## The rooms", 1)[1].split("\n## ", 1)[0]
    # __version__ has no row: everybody may import it, and it imports nothing.
    rooms = [Room("package", (f"{CORE}/__init__.py",), frozenset({"package"}))]
    for name, files, _, imports in re.findall(r"^\| (\w+) \| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:]:
        below = {room.name: room.may_import for room in rooms}
        if imports in ("all above", "core"):
            named = [room for room in below if room != LEAF]
        else:
            named = re.findall(r"\w+", imports)
        reach = frozenset({name, "package"}).union(*(below[room] for room in named))
        rooms.append(Room(name, tuple(_from_root(path) for path in re.findall(r"`([^`]+)`", files)), reach))
    return rooms


def _from_root(path: str) -> str:
    return path if path.startswith(("dicom_scp/", "orthanc_ledger/")) else f"{CORE}/{path}"


def room_of(path: str, rooms: list[Room]) -> Room | None:
    """The room whose row names ``path``, or the folder it is in; a file's own name goes before its folder's."""
    by_entry = {entry: room for room in rooms for entry in room.files}
    if path in by_entry:
        return by_entry[path]
    return next((room for entry, room in by_entry.items() if entry.endswith("/") and path.startswith(entry)), None)


def module_path(module: str, root: Path) -> str | None:
    """``orthanc_ledger.content`` -> ``orthanc_ledger/content/__init__.py``; None if the project has no such module."""
    base = module.replace(".", "/")
    return next((path for path in (f"{base}.py", f"{base}/__init__.py") if (root / path).is_file()), None)


def imported_modules(path: str, root: Path) -> Iterator[str]:
    """Absolute names of the modules a file imports: in functions, under TYPE_CHECKING, by ``import_module``."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = [*package[: len(package) - level + 1], *(module or "").split(".")] if level else [module or ""]
                source = ".".join(part for part in parts if part)
                # `from package import module` means the module; `from module import name` the module it is in.
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    yield inner if module_path(inner, root) else source
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(module)), *_]
            ):
                if called in ("import_module", "__import__"):
                    yield module


def violations(root: Path, page: str) -> list[str]:
    """Every breach of the table under ``root``, one sentence each; empty when the code keeps to it."""
    rooms = parse_rooms(page)
    files = sorted(str(path.relative_to(root)) for top in (CORE, "dicom_scp") for path in (root / top).rglob("*.py"))
    found = [
        f"{entry} is named in room {room.name} and does not exist"
        for room in rooms
        for entry in room.files
        if not (root / entry).exists()
    ]
    for path in files:
        room = room_of(path, rooms)
        if room is None:
            found.append(f"{path} is named in no room")
            continue
        found += [
            f"{path} ({room.name}) imports {module}: {why}"
            for module in sorted(set(imported_modules(path, root)))
            if (why := breach(path, room, module, rooms, root))
        ]
    return found


def breach(path: str, room: Room, module: str, rooms: list[Room], root: Path) -> str | None:
    """Why this import is not allowed, or None when it is."""
    top = module.split(".")[0]
    if top in FENCED and not path.startswith(FENCED[top]):
        return f"only {FENCED[top]} may"
    target = module_path(module, root) or ""
    other = room_of(target, rooms)
    if other is None:  # not of the project, or named as a file without a room
        return None
    if other.name not in room.may_import:
        return f"{room.name} may import {', '.join(sorted(room.may_import))}, not {other.name}"
    if room.name == other.name == LEAF and _leaf(path, room) != _leaf(target, room):
        return "leaves never import each other"
    return None


def _leaf(path: str, room: Room) -> str | None:
    return next((entry for entry in room.files if path.startswith(entry)), None)


def test_every_file_keeps_to_the_table_of_rooms() -> None:
    found = violations(ROOT, (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


PAGE = """
## The rooms

| room | files | knows | may import |
|---|---|---|---|
| words | `errors.py` | the words | - |
| trees | `merkle.py` `content/cid.py` | hashes | words |
| ports | `content/__init__.py` | stores | trees |
| edge | `cli.py` `commands/` | commands | all above |
| leaf | `dicom_scp/` `orthanc_ledger/plugin/` | the wire | core |

## Next
| not | `a.py` | part | of it |
"""

OBEDIENT = {
    "orthanc_ledger/__init__.py": "",
    "orthanc_ledger/errors.py": "import hashlib",
    "orthanc_ledger/merkle.py": "from .errors import DataError",
    "orthanc_ledger/content/__init__.py": "from orthanc_ledger.content import cid\nfrom ..errors import DataError",
    "orthanc_ledger/content/cid.py": "from orthanc_ledger import merkle",
    "orthanc_ledger/cli.py": "from orthanc_ledger.commands import audit\nimport orthanc_ledger.content",
    "orthanc_ledger/commands/audit.py": "from orthanc_ledger import __version__, merkle",
    "orthanc_ledger/plugin/panel.py": "from orthanc_ledger import cli",
    "dicom_scp/__init__.py": "",
    "dicom_scp/status.py": "import pynetdicom.status\nfrom orthanc_ledger.errors import DataError",
}


def tree_at(root: Path, changed: dict[str, str]) -> list[str]:
    for path, source in {**OBEDIENT, **changed}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source, encoding="utf-8")
    return violations(root, PAGE)


def test_an_obedient_tree_has_no_violation(tmp_path: Path) -> None:
    assert tree_at(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("orthanc_ledger/merkle.py", "import pynetdicom", "only dicom_scp/ may"),
        (
            "orthanc_ledger/cli.py",
            "def main():\n    from pynetdicom.ae import ApplicationEntity",
            "only dicom_scp/ may",
        ),
        ("orthanc_ledger/cli.py", "import orthanc", "only orthanc_ledger/plugin/ may"),
        ("orthanc_ledger/cli.py", "from dicom_scp import status", "edge may import"),
        ("orthanc_ledger/cli.py", "import importlib\nimportlib.import_module('dicom_scp.status')", "edge may import"),
        (
            "orthanc_ledger/errors.py",
            "from orthanc_ledger.merkle import root",
            "words may import package, words, not trees",
        ),
        ("orthanc_ledger/merkle.py", "from . import content", "trees may import package, trees, words, not ports"),
        (
            "orthanc_ledger/merkle.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import cli",
            "not edge",
        ),
        ("orthanc_ledger/content/cid.py", "from ..commands.audit import run", "not edge"),
        ("orthanc_ledger/plugin/panel.py", "import dicom_scp.status", "leaves never import each other"),
        ("dicom_scp/status.py", "from orthanc_ledger.plugin import panel", "leaves never import each other"),
        ("orthanc_ledger/__init__.py", "from orthanc_ledger import cli", "package may import package, not edge"),
        ("orthanc_ledger/helpers.py", "", "orthanc_ledger/helpers.py is named in no room"),
        ("orthanc_ledger/content/kubo.py", "", "orthanc_ledger/content/kubo.py is named in no room"),
    ],
)
def test_a_planted_violation_is_named(tmp_path: Path, path: str, source: str, said: str) -> None:
    found = tree_at(tmp_path, {path: source})
    assert len(found) == 1
    assert path in found[0]
    assert said in found[0]


def test_a_file_in_the_table_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert violations(tmp_path, PAGE)[1] == "orthanc_ledger/errors.py is named in room words and does not exist"


def test_every_file_that_the_page_names_exists() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|docs|config|dicom_scp|orthanc_ledger)/[\w./-]+\.\w+)`", page))
    assert len(named) > 10
    assert sorted(name for name in named if not (ROOT / name).exists()) == []

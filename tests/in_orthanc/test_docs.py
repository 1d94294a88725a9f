"""docs/orthanc.md and config/orthanc.json as they are written: real Orthancs start with them."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orthanc_ledger.cli import build_parser
from orthanc_ledger.config import load
from orthanc_ledger.consortium import orthanc
from orthanc_ledger.consortium.topology import trial
from orthanc_ledger.plugin.settings import _KEYS, _NEEDED, SECTION, Settings
from orthanc_ledger.setup_node import Plan, create_node
from tests.in_orthanc.live import LEDGER, ROOT, SCRIPT, STAFF, USERS, LiveOrthanc, Version, python_of, trixie

PAGE = (ROOT / "docs" / "orthanc.md").read_text(encoding="utf-8")
EXPLAINED = (ROOT / "config" / "orthanc.json").read_text(encoding="utf-8")
NODE, INSTALLED, DEBIAN_S = "/var/lib/orthanc-ledger", "/opt/orthanc-ledger", Path("/etc/orthanc")
Orthancs = Callable[..., LiveOrthanc]


def block(language: str, number: int = 0) -> str:
    """One of the page's blocks of code in a language, the first by default."""
    return PAGE.split(f"```{language}\n")[1 + number].split("```", 1)[0]


def lines_with(word: str) -> list[str]:
    return [line for line in block("sh").splitlines() if word in line]


def parsed(commented: str) -> dict[str, Any]:
    """JSON with comments, as Orthanc reads it."""
    content: dict[str, Any] = json.loads(re.sub(r"(^|\s)//.*$", "", commented, flags=re.MULTILINE))
    return content


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The folder of a node for Orthanc, with a research port of its own."""
    folder = tmp_path / "node"
    create_node(Plan(folder, tmp_path / "node.key", all_roles=True, orthanc=True))
    return folder


def with_free_port(folder: Path, port: int) -> None:
    path = folder / "orthanc-ledger.yaml"
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(raw | {"research": raw["research"] | {"port": port}}))


def at_home(text: str, running: LiveOrthanc, node: Path) -> str:
    """A configuration with the paths, ports and users of a test."""
    staff, ledger = json.dumps(STAFF), json.dumps(LEDGER)
    for there, here in {
        f"{INSTALLED}/plugin/{SCRIPT.name}": str(SCRIPT),
        f"{INSTALLED}/bin/python3": python_of(running.version),
        NODE: str(node),
        '"radiology"': staff,
        '"ledger"': ledger,
        "/var/lib/orthanc/db-v6": str(running.folder / "storage"),
    }.items():
        text = text.replace(there, here)
    text = re.sub(r'("HttpPort"\s*:\s*)\d+', rf"\g<1>{running.http_port}", text)
    return re.sub(r'("DicomPort"\s*:\s*)\d+', rf"\g<1>{running.dicom_port}", text)


def test_every_key_of_the_section_is_explained_with_its_default() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    section = EXPLAINED[EXPLAINED.index(f'"{SECTION}" : {{') :]
    comments = {
        key: " ".join(line.strip(" /") for line in comment.splitlines())
        for comment, key in re.findall(r'((?:^ +//.*\n)+) +"(\w+)" :', section, re.MULTILINE)
    }
    assert set(comments) == set(_KEYS) == set(parsed(EXPLAINED)[SECTION])
    for key, (name, _) in _KEYS.items():
        default = defaults[name]
        if key in _NEEDED:
            assert comments[key].endswith("Needed."), key
        elif default is None:
            assert "Default: " in comments[key], key
        else:
            said = json.dumps(list(default) if isinstance(default, frozenset) else default)
            assert comments[key].endswith(f"Default {said}."), key


def test_orthanc_starts_with_the_explained_configuration(
    tmp_path: Path, orthancs: Orthancs, version: Version, node: Path, free_port: Callable[[], int]
) -> None:
    with_free_port(node, free_port())
    running = orthancs(version, shared=(node,))
    running.folder.mkdir()
    text = at_home(EXPLAINED, running, node)
    for password, user in (("change this password", STAFF), ("change this one, too", LEDGER)):
        text = text.replace(password, USERS[user])
    (running.folder / "explained.json").write_text(text)
    running.start(running.folder / "explained.json")
    told = running.call("GET", "/system").json()
    assert told["DicomAet"] == parsed(EXPLAINED)["DicomAet"]
    assert sorted(running.call("GET", "/modalities").json()) == sorted(parsed(EXPLAINED)["DicomModalities"])


def test_the_ten_lines_of_the_page_give_debian_s_orthanc_the_plugin(
    tmp_path: Path, orthancs: Orthancs, version: Version, free_port: Callable[[], int]
) -> None:
    assert len(block("sh").splitlines()) == 10
    node = tmp_path / "node"
    (init,) = lines_with(" init ")
    words = shlex.split(init.replace(NODE, str(node)).replace("/media/usb", str(tmp_path)))[1:]
    alone = [*words[: words.index("--member")], "--all-roles"]
    assert build_parser().parse_args(words).run
    subprocess.run([python_of("1.10.1"), "-m", "orthanc_ledger", *alone], check=True, capture_output=True, timeout=60)
    assert load(node / "orthanc-ledger.yaml").orthanc
    with_free_port(node, free_port())

    running = orthancs(version, shared=(node,))
    system = Path("/") if version == "1.10.1" else trixie()[0]
    etc = running.folder / "etc"
    shutil.copytree(system / DEBIAN_S.relative_to("/"), etc)
    (sed,) = lines_with("sed -i")
    subprocess.run(shlex.split(sed.replace(str(DEBIAN_S), str(etc))), check=True, timeout=60)
    (etc / "credentials.json").write_text(json.dumps({"RegisteredUsers": USERS}))
    plugin = json.loads(block("json"))
    plugin[SECTION]["Python"] = python_of(version)  # no virtual environment here tells it
    (etc / "python.json").write_text(json.dumps(plugin))
    for path in etc.glob("*.json"):
        path.write_text(at_home(path.read_text(), running, node))
    running.start(etc)
    assert running.call("GET", "/system").status == 200
    assert running.call("GET", "/system", user="student").status == 403


def test_the_containers_explorer_2_has_the_page_s_button(tmp_path: Path) -> None:
    hospital = trial().organisations[0]
    assert hospital.orthanc is not None
    orthanc.prepare(tmp_path, hospital, hospital.orthanc)
    content = json.loads(orthanc.configuration(tmp_path, hospital).read_text())
    button = json.loads(block("json", 1))
    assert {key: content[key] for key in button} == button


def test_the_page_s_commands_are_commands() -> None:
    found = re.findall(r"`orthanc-ledger ([^`]+)`", PAGE)
    for words in map(shlex.split, found):
        assert build_parser().parse_args(words).run, words

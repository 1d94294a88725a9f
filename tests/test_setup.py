"""The set-up: metadata against lock, README against command, and nothing of one machine in what is committed."""

import ast
import configparser
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SETUP = (ROOT / "setup.cfg").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
GPL = "pylibjpeg-libjpeg"
# Own packages, the standard library, the module of type stubs that exists for type checkers only, and the one that
# Orthanc's Python plugin gives.
AT_HOME = {"orthanc_ledger", "dicom_scp", "_typeshed", "orthanc", *sys.stdlib_module_names}


def requirements(section: str, key: str) -> list[Requirement]:
    metadata = configparser.ConfigParser()
    metadata.read_string(SETUP)
    return [Requirement(line) for line in metadata[section][key].splitlines() if line]


def product() -> list[Requirement]:
    return requirements("options", "install_requires") + requirements("options.extras_require", "consortium")


def locked() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in re.findall(r"^(\S+)==(\S+) \\$", LOCK, re.MULTILINE)}


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: which files are tracked is unknown")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_every_requirement_has_its_reason_on_the_line_above() -> None:
    always = SETUP.split("install_requires =\n", 1)[1].split("\n\n", 1)[0].splitlines()
    lines = always + SETUP.split("consortium =\n", 1)[1].split("\ndev =", 1)[0].splitlines()
    assert len(lines) == 2 * len(product())
    for reason, requirement in zip(lines[::2], lines[1::2], strict=True):
        assert re.fullmatch(r" {4}# .{10,}", reason), f"no reason above {requirement.strip()}"


def test_every_range_has_an_upper_end_and_the_lock_satisfies_it() -> None:
    for requirement in product() + requirements("options.extras_require", "dev"):
        version = locked()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}: run make lock"
        assert {"<", "=="} & {clause.operator for clause in requirement.specifier}, f"{requirement} has no upper end"


def test_every_locked_package_has_hashes() -> None:
    packages = re.split(r"^(?=\S+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(locked()) > len(product())
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


def test_the_lock_names_no_index_and_no_place_on_this_machine() -> None:
    assert re.findall(r"^.*(?:://|--(?:index|extra|find|trusted)|(?<![\w.])/\w).*$", LOCK, re.MULTILINE) == []


def test_the_gpl_decoder_is_no_dependency() -> None:
    assert GPL not in locked()
    assert GPL not in [canonicalize_name(requirement.name) for requirement in product()]


def test_who_develops_has_what_the_consortium_extra_needs() -> None:
    extra, dev = (set(requirements("options.extras_require", name)) for name in ("consortium", "dev"))
    assert extra <= dev


def test_every_foreign_import_is_a_declared_requirement() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in product()}
    providers, undeclared = packages_distributions(), set()
    for path in [*ROOT.glob("orthanc_ledger/**/*.py"), *ROOT.glob("dicom_scp/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - AT_HOME:
                if declared.isdisjoint(map(canonicalize_name, providers.get(top, [top]))):
                    undeclared.add(f"{path.relative_to(ROOT)} imports {top}")
    assert undeclared == set()


def test_no_tracked_file_names_a_registry_or_a_place_on_one_machine() -> None:
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    hosts = {host.lower() for host in re.findall(r"://(?:[^@/'\s]*@)?([^/:'\s]+)", index)}
    places = {f"{ROOT}/", f"{Path.home()}/"} - {"//"}
    home = re.compile(r"(?<![\w.])/(?:root|home|Users)/\w")
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        if home.search(text) or any(word in text for word in places) or any(host in text.lower() for host in hosts):
            found.append(str(path.relative_to(ROOT)))
    assert found == []


def test_the_samples_are_small_real_and_licensed(samples_dir: Path) -> None:
    assert "BSD 2-Clause" in (samples_dir / "LICENSE.txt").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in samples_dir.rglob("*.dcm")) < 1_000_000
    sources = (samples_dir / "README.md").read_text(encoding="utf-8")
    for folder in {path.parent for path in samples_dir.rglob("*.dcm")}:
        assert f"`{folder.relative_to(samples_dir)}`" in sources


def test_the_readme_shows_the_command_s_own_help() -> None:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    program = "import sys; sys.argv[0] = 'orthanc-ledger'; from orthanc_ledger.cli import main; sys.exit(main())"
    shown = subprocess.run(
        [sys.executable, "-c", program, "--help"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"```\n(usage: orthanc-ledger .*?)```", readme, re.DOTALL)
    assert match is not None
    assert match[1].strip() == shown.strip()


def test_what_the_readme_points_at_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", readme) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
    modules = {path.name for top in ("orthanc_ledger", "dicom_scp") for path in (ROOT / top).rglob("*.py")}
    assert set(re.findall(r"\b\w+\.py\b", readme)) <= modules
    assert len(links) > 5


def test_debian_packages_that_are_missing_are_named_to_a_user_who_is_not_root(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    result = subprocess.run(
        [
            *(ROOT / "scripts" / "debian-packages", "there:sh", "there:/usr"),
            *("dcmtk:no-such-command", "strace:nor-this", "orthanc-python:/no/such/file"),
        ],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "apt-get install dcmtk strace orthanc-python\n" in result.stderr
    assert "there" not in result.stderr

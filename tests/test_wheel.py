"""What an installation outside a clone has: the wheel's files, held against the project's."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.test_setup import ROOT, tracked_files

# The trial network is built from a clone.
CLONE_ONLY = ("orthanc_ledger/consortium/",)


def test_the_wheel_has_every_file_of_both_packages(tmp_path: Path) -> None:
    files = [path.relative_to(ROOT) for path in tracked_files()]
    project = tmp_path / "project"
    for path in files:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, project / path)
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, project]
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path) for path in files if path.parts[0] in ("orthanc_ledger", "dicom_scp")}
    assert {path for path in expected - packed if not path.startswith(CLONE_ONLY)} == set()

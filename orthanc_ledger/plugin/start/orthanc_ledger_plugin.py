"""What Orthanc's "PythonScript" names. Alone in its folder: Orthanc puts that first where modules are looked for."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from orthanc_ledger.plugin.install import install

install()

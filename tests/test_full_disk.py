"""A disk that is full, or fails: no good object goes to quarantine, and what is in the clear fills no other disk."""

import errno
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from node_make import drain, make_node, real_file, store, variant

from orthanc_ledger import intake as intake_module
from orthanc_ledger import serve
from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.spool import QUARANTINE, TEMPORARY

WHERE_A_TEMPORARY_FILE_LIES = """
import os, sys, tempfile
with tempfile.TemporaryFile() as file, open(sys.argv[1], "w") as answer:
    answer.write(os.readlink(f"/proc/self/fd/{file.fileno()}"))
sys.exit(2)
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


def test_full_disk_while_an_object_is_read_sends_it_not_to_quarantine(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    describe = intake_module.describe

    def disk_full(unit: Any, name: str) -> Any:
        found = describe(unit, name)
        if found[0].sop_uid.endswith(".7"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return found

    store(node, variant(SOPInstanceUID="1.2.826.0.7"))
    store(node, real_file())
    anchorer = node.anchorer()
    with monkeypatch.context() as patch:
        patch.setattr(intake_module, "describe", disk_full)
        for _ in range(3):
            drain(node, anchorer)
    assert node.index.counts() == {"anchored": 1}
    assert node.spool.names(QUARANTINE) == []
    assert caplog.text.count("No space left on device") == 1
    drain(node, anchorer)
    assert node.index.counts() == {"anchored": 2}


def test_fault_in_one_object_is_told_by_type_only(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def quotes(unit: Any, name: str) -> Any:
        raise ValueError("Invalid value for VR PN: 'SECRET^PATIENT'")

    monkeypatch.setattr(intake_module, "describe", quotes)
    store(node, real_file())
    drain(node)
    (alarm,) = node.outbox.alarms()
    assert "ValueError" in caplog.text
    assert "ValueError" in alarm.text
    assert "SECRET" not in caplog.text + alarm.text


def test_temporary_files_of_the_nodes_processes_lie_unnamed_in_the_spool(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, folder = tmp_path / "answer", node.spool.folder / TEMPORARY
    child = serve.Child("child", [sys.executable, "-c", WHERE_A_TEMPORARY_FILE_LIES, str(answer)])
    monkeypatch.setattr(serve, "children", lambda *_: [child])
    with pytest.raises(ConfigError, match="child"):
        serve.supervise(node.config, tmp_path / "unused.yaml", threading.Event())
    assert Path(answer.read_text()).parent == folder
    assert answer.read_text().endswith(" (deleted)")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []

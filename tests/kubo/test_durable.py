"""What Kubo has acknowledged is on its disk: every system call by which it puts a batch there."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orthanc_ledger.consortium.running import Command
from orthanc_ledger.consortium.topology import Server
from orthanc_ledger.content.kubo.places import block_path
from tests.conftest import wait_until
from tests.kubo.live import Stray, stray
from tests.kubo.test_store import Batch, fresh, leaves, store_of

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

_CALL = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(f(?:data)?sync|rename\w*)\()(.*)")
_SYNC = re.compile(r"\d+<([^>]+)>")
_RENAME = re.compile(r'"([^"]+)".*"([^"]+)"')


class Traced(Stray):
    """A node whose syncs and renames are written down, each when it is over."""

    def _command(self, server: Server, program: Path | None) -> Command:
        command, environment = super()._command(server, program)
        calls = "trace=fsync,fdatasync,rename,renameat,renameat2"
        strace = [str(shutil.which("strace")), "-f", "-qq", "-y", "-s", "4096", "-e", calls, "-o", str(self.trace)]
        return [*strace, *command], environment

    @property
    def trace(self) -> Path:
        return self.directory / "trace"

    def cut_off(self, name: str) -> str:
        """Kill a node, and what it had done until then: strace writes that down a moment later, and then ends."""
        strace = self.processes.pid(name)
        children = Path(f"/proc/{strace}/task/{strace}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: self.processes.pid(name) is None, 60, "strace ends")
        return self.trace.read_text()


@pytest.fixture(params=[True, False], ids=["sync", "no sync"])
def traced(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    free_port: Callable[[], int],
    strace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Traced, bool]]:
    if not request.param:
        monkeypatch.setattr("orthanc_ledger.content.kubo.store.check_node", lambda *_: None)  # which refuses such a one
    kubos = stray(tmp_path / "kubo", free_port, {"Datastore.Spec.mounts.0.sync": request.param}, kind=Traced)
    try:
        kubos.up()
        yield kubos, request.param
    finally:
        kubos.down()


def ended(trace: str) -> Iterator[tuple[str, str]]:
    """Calls and their arguments, in the order in which they ended well."""
    begun = {}
    for line in trace.splitlines():
        if (call := _CALL.match(line)) is None:
            continue
        thread, resumed, name, rest = call.groups()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest
        elif rest.endswith(" = 0"):
            yield resumed or name, begun.pop(thread) if resumed else rest


def synced(trace: str) -> set[str]:
    """Files that were synced and are under the name that they had then, or were renamed and their folder synced."""
    bytes_of, names, done = set[str](), dict[str, str](), set[str]()
    for call, words in ended(trace):
        if call.startswith("rename"):
            before, after = _RENAME.search(words).groups()  # type: ignore[union-attr]
            if before in bytes_of:
                names[after] = str(Path(after).parent)
        else:
            path = _SYNC.match(words)[1]  # type: ignore[index]
            bytes_of.add(path)
            done |= {path, *(name for name, folder in names.items() if folder == path)}
    return done


def test_every_block_and_its_pin_are_synced_before_a_batch_counts(traced: tuple[Traced, bool], tmp_path: Path) -> None:
    kubos, is_synced = traced
    node = kubos.node()
    store = store_of(tmp_path, node)
    before = len(kubos.trace.read_text())
    batch: Batch = fresh().put(store)
    trace = kubos.cut_off(node.name)[before:]
    kubos.start(node.name)
    blocks = [node.repo / block_path(cid) for cid in {*batch.all_cids, *leaves(node, batch.cids[1])}]
    assert all(path.exists() for path in blocks)
    assert [path for path in blocks if str(path) not in synced(trace)] == ([] if is_synced else blocks)
    assert any("/datastore/" in path for path in synced(trace)), "the pin"

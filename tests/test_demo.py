"""The demo passes on the node as it is, and fails, naming the step, on nodes that break a promise.

A mutation is put into every process of a demo by a `sitecustomize` on PYTHONPATH; the product knows nothing of it.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from pydicom import dcmread

DEADLINE_S = 240
STEPS = 16
COMMAND = [sys.executable, "-m", "orthanc_ledger", "demo"]

LOAD_MUTATED = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class Mutation(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            mutate(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Mutation())
"""

GATE_OPEN = """
MODULE = "orthanc_ledger.retrieve"
def mutate(module):
    def plan(self, asker, recipient, level, query):
        found = self._index.select(query.patient_ids, query.studies, query.series, query.instances)
        return module.ClinicalPlan(self._library, found)
    module.Retrieval.plan = plan
"""

CATALOGUE_OPEN = """
MODULE = "orthanc_ledger.find"
def mutate(module):
    real = module.Catalogue.find_studies
    def find_studies(self, asker, keys):
        return real(self, module.Peer("VIEWER", "clinical"), keys)
    module.Catalogue.find_studies = find_studies
"""

APPROVAL_REMEMBERED = """
MODULE = "orthanc_ledger.gate"
def mutate(module):
    from orthanc_ledger.errors import CustodyError
    offers, release, known = module.Gate.offers, module.Gate.release, {}
    def remembered_offers(self, recipient, study_uid, approvals):
        known[study_uid] = offers(self, recipient, study_uid, approvals) or known.get(study_uid, [])
        return known[study_uid]
    def remembered_release(self, offer, sop_uids, renews=None):
        try:
            return release(self, offer, sop_uids, renews)
        except CustodyError:
            chosen = {uid: offer.releasable[uid] for uid in sop_uids}
            end, request = self._clock() + 60, offer.approval.request
            return module.Release(bytes(32), offer.study_uid, request, end, self._monotonic() + 60, chosen)
    module.Gate.offers, module.Gate.release = remembered_offers, remembered_release
"""

TAMPERING_SKIPPED = """
MODULE = "dicom_scp.demo_node"
def mutate(module):
    module.DemoNode.change_one_byte = lambda self, path: 0
"""

# Decrypts without its tag too: AES-GCM is counter mode from 2 on (NIST SP 800-38D).
VERIFICATION_OFF = """
MODULE = "orthanc_ledger.library"
def mutate(module):
    import contextlib, io
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from orthanc_ledger import tokens
    @contextlib.contextmanager
    def open_unverified(record, study, batch_key, content):
        with content.open(record.object) as file:
            sealed = file.read()
        aad = tokens.seal_aad(study.token, record.instance)
        key = HKDF(SHA256(), 32, sealed[1:33], aad).derive(tokens.seal_key(batch_key, record.instance))
        counter = sealed[33:40] + bytes(4) + bytes([1]) + (2).to_bytes(4, "big")
        unit = io.BytesIO(Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor().update(sealed[40:-16]))
        yield module.read_head(unit).arrival, unit
    module.open_verified = open_unverified
"""

VERIFY_BLIND = """
MODULE = "orthanc_ledger.library"
def mutate(module):
    module.Library._fault = lambda *_: None
"""

FLAG_DROPPED = """
MODULE = "orthanc_ledger.outbox"
def mutate(module):
    post = module.Outbox.post
    def forgetful(self, function, *args, **options):
        if function != "FlagTampered":
            post(self, function, *args, **options)
    module.Outbox.post = forgetful
"""

ALTERED_ON_THE_WAY = """
MODULE = "orthanc_ledger.retrieve"
def mutate(module):
    import contextlib, io
    @contextlib.contextmanager
    def open(self, item):
        with real(self, item) as unit:
            data = unit.read()
        yield io.BytesIO(data[:-1] + bytes([data[-1] ^ 1]))
    real, module.ResearchPlan.open = module.ResearchPlan.open, open
"""

REVOCATION_LOST = """
MODULE = "orthanc_ledger.commands.access"
def mutate(module):
    module._end = lambda args: 0
"""

CHECKPOINTS_LOST = """
MODULE = "orthanc_ledger.sinks"
def mutate(module):
    module.PathSink.deliver = lambda *_: None
"""

RECEIPT_BLIND = """
MODULE = "orthanc_ledger.receipt_check"
def mutate(module):
    module.check_file = lambda *_: None
"""


def run_demo(tmp_path: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo to its end, its temporary folder in ``tmp_path``."""
    return subprocess.run(
        [*COMMAND, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of the running processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace").replace("\0", " "))
        except OSError:  # it ended just now
            continue
    return [line for line in lines if str(folder) in line]


@pytest.mark.timeout(DEADLINE_S + 30)
def test_the_demo_shows_every_step_and_leaves_a_node_that_verifies(tmp_path: Path, samples_dir: Path) -> None:
    done = run_demo(tmp_path, "--keep")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(re.findall("^✓", done.stdout, re.MULTILINE)) == STEPS
    kept = re.search(r"^kept: (.+)$", done.stdout, re.MULTILINE)
    assert kept is not None
    assert processes_of(tmp_path) == []
    config = Path(kept[1]) / "node" / "orthanc-ledger.yaml"
    again = [sys.executable, "-m", "orthanc_ledger", "--config", config, "verify", "--log-only"]
    assert subprocess.run(again, cwd=ROOT, capture_output=True, timeout=60).returncode == 0
    header = dcmread(next(samples_dir.rglob("mr_0004/*.dcm")), stop_before_pixels=True)
    private = [str(header[keyword].value) for keyword in ("PatientName", "StudyInstanceUID", "SeriesInstanceUID")]
    assert [value for value in private if value in done.stdout] == []


@pytest.mark.timeout(DEADLINE_S + 30)
@pytest.mark.parametrize(
    ("mutation", "failure"),
    [
        pytest.param(
            GATE_OPEN,
            "research sees and gets nothing: C-GET: expected nothing, got 10 objects",
            id="gate always open",
        ),
        pytest.param(
            CATALOGUE_OPEN,
            "research sees and gets nothing: C-FIND: expected no study, got 1",
            id="C-FIND shows all",
        ),
        pytest.param(
            ALTERED_ON_THE_WAY,
            "research gets the series: C-GET: 10 objects are not what the modality sent",
            id="altered on the way",
        ),
        pytest.param(
            TAMPERING_SKIPPED,
            "that object is withheld: C-GET: expected 0xB000, got 0x0000",
            id="tampering skipped",
        ),
        pytest.param(
            VERIFICATION_OFF,
            "that object is withheld: C-GET: expected 0xB000, got 0x0000",
            id="verification off",
        ),
        pytest.param(
            VERIFY_BLIND,
            "that object is withheld: `verify`: expected exit code 1, got 0",
            id="verify sees nothing",
        ),
        pytest.param(
            FLAG_DROPPED,
            "the ledger tells of it: waited 20 s in vain until FlagTampered is on the ledger",
            id="flag dropped",
        ),
        pytest.param(
            REVOCATION_LOST,
            "the custodian revokes: expected the request to be revoked, it is approved",
            id="revocation lost",
        ),
        pytest.param(
            APPROVAL_REMEMBERED,
            "research gets nothing again: C-GET: expected nothing, got 9 objects",
            id="approval remembered",
        ),
        pytest.param(
            CHECKPOINTS_LOST,
            "the log verifies: `fsck`: expected exit code 0, got 4",
            id="checkpoints lost",
        ),
        pytest.param(
            RECEIPT_BLIND,
            "a receipt proves one image: `verify-receipt`: expected exit code 1, got 0",
            id="receipts prove anything",
        ),
    ],
)
def test_a_mutated_node_fails_the_demo_at_its_step(tmp_path: Path, mutation: str, failure: str) -> None:
    sites = tmp_path / "sites"
    sites.mkdir()
    (sites / "sitecustomize.py").write_text(mutation + LOAD_MUTATED)
    folders = tmp_path / "folders"
    folders.mkdir()
    done = run_demo(folders, PYTHONPATH=str(sites))
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"✗ {failure}" in done.stdout, done.stdout
    assert (processes_of(folders), list(folders.iterdir())) == ([], [])


def test_without_dcmtk_the_modality_is_pynetdicom_and_an_interrupt_ends_all_that_was_started(
    tmp_path: Path, start_process: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    folders, no_tools = tmp_path / "folders", tmp_path / "no-tools"
    folders.mkdir()
    no_tools.mkdir()
    environment = {**os.environ, "TMPDIR": str(folders), "PATH": str(no_tools)}
    with (tmp_path / "shown").open("wb") as shown:
        demo = start_process(COMMAND, cwd=ROOT, env=environment, stdout=shown, stderr=shown)
    wait_until(lambda: "by pynetdicom" in (tmp_path / "shown").read_text(), 60, "the modality has stored")
    assert processes_of(folders) != []
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 130, (tmp_path / "shown").read_text()
    assert (processes_of(folders), list(folders.iterdir())) == ([], [])

"""The demo fails, naming the step, on a node that hides what was changed, or proves what is not so."""

from pathlib import Path

import pytest
from demo_run import DEADLINE_S, check_it_fails

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


@pytest.mark.timeout(DEADLINE_S + 30)
@pytest.mark.parametrize(
    ("mutation", "failure"),
    [
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
            CHECKPOINTS_LOST,
            "the ledger verifies: `fsck`: expected exit code 0, got 4",
            id="checkpoints lost",
        ),
        pytest.param(
            RECEIPT_BLIND,
            "a receipt proves one image: `verify-receipt`: expected exit code 1, got 0",
            id="receipts prove anything",
        ),
    ],
)
def test_a_node_that_hides_a_change_fails_the_demo_at_its_step(tmp_path: Path, mutation: str, failure: str) -> None:
    check_it_fails(tmp_path, mutation, failure)

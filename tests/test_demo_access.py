"""The demo fails, naming the step, on a node that gives research what it may not have."""

from pathlib import Path

import pytest
from demo_run import DEADLINE_S, check_it_fails

GATE_OPEN = """
MODULE = "orthanc_ledger.retrieve"
def mutate(module):
    def plan(self, asker, recipient, level, query, meanwhile=None):
        found = self._index.select(query.patient_ids, query.studies, query.series, query.instances)
        return module.ClinicalPlan(self._library, found)
    module.Retrieval.plan = plan
"""

CATALOGUE_OPEN = """
MODULE = "orthanc_ledger.find"
def mutate(module):
    real = module.Catalogue.find
    def find(self, asker, *query):
        return real(self, module.Peer("VIEWER", "clinical"), *query)
    module.Catalogue.find = find
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

APPROVAL_REMEMBERED = """
import pickle
from pathlib import Path
MODULE = "orthanc_ledger.gate"
KNOWN = Path(__file__).with_name("known")  # to every receiver of the port: any may answer
def mutate(module):
    from orthanc_ledger.errors import CustodyError
    offers, release = module.Gate.offers, module.Gate.release
    def remembered_offers(self, recipient, study_uid, approvals):
        if found := offers(self, recipient, study_uid, approvals):
            KNOWN.write_bytes(pickle.dumps(found))
        return pickle.loads(KNOWN.read_bytes()) if KNOWN.exists() else []
    def remembered_release(self, offer, sop_uids, renews=None):
        try:
            return release(self, offer, sop_uids, renews)
        except CustodyError:
            chosen = {uid: offer.releasable[uid] for uid in sop_uids}
            end, request = self._clock() + 60, offer.approval.request
            return module.Release(bytes(32), offer.study_uid, request, end, self._monotonic() + 60, chosen)
    module.Gate.offers, module.Gate.release = remembered_offers, remembered_release
"""


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
            REVOCATION_LOST,
            "the custodian revokes: expected the request to be revoked, it is approved",
            id="revocation lost",
        ),
        pytest.param(
            APPROVAL_REMEMBERED,
            "research gets nothing again: C-GET: expected nothing, got 9 objects",
            id="approval remembered",
        ),
    ],
)
def test_a_node_that_lets_research_in_fails_the_demo_at_its_step(tmp_path: Path, mutation: str, failure: str) -> None:
    check_it_fails(tmp_path, mutation, failure)

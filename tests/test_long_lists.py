"""Lists on the ledger that are longer than one answer: whoever asks for all gets all, each row once."""

import re
from typing import Any

import pytest
from command_line import Command, runner
from conftest import ROOT
from node_make import make_node

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.content.cid import block_cid
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.contract import QUERIES
from orthanc_ledger.ledger.contract.arguments import MAX_ROWS
from orthanc_ledger.ledger.contract.requests import DAY_S
from orthanc_ledger.peer import Peer
from orthanc_ledger.setup_node import CONFIG_NAME, ORGANISATIONS

MANY = MAX_ROWS + 3
STUDY = bytes(16)
RESEARCH = {"organisation": "ResearchMSP", "aeTitle": "RESEARCH"}
LISTS: dict[str, dict[str, Any]] = {
    "ApprovedStudies": {"node": RESEARCH},
    "Anchors": {},
    "AnchorsOfStudy": {"study": STUDY},
    "RequestsByState": {},
    "Audit": {},
    "HistoryOf": {"key": f"studyAnchors/{STUDY.hex()}"},
    "Nodes": {},
    "Datasets": {},
    "Pending": {},
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Its ledger has more of everything than one answer holds."""
    made = make_node(tmp_path_factory.mktemp("many"))
    identities = made.config.data_dir.parent / ORGANISATIONS
    owner, custodian, research = (
        made.ledger_as(identities / name / "identities" / "person") for name in ("owner", "custodian", "research")
    )
    title = RESEARCH["aeTitle"]
    research.submit("RegisterNode", {"aeTitle": title, "role": "research", "certDigests": []})
    custodian.submit("ConfirmNode", {"node": RESEARCH, "version": 1})
    policy = owner.query("GetPolicy", {})
    digest = bytes(32)
    for n in range(MANY):
        anchor = {"manifestCid": block_cid(b"%d" % n), "study": STUDY, "root": digest, "count": 1, "kind": "original"}
        owner.submit("Anchor", anchor)
        dataset = {"id": n.to_bytes(16), "version": 1, "root": digest, "count": 1, "descriptorDigest": digest}
        owner.submit("RegisterDataset", {**dataset, "duo": []})
        owner.submit("ProposePolicy", {"policy": {**policy, "max_days": n + 1}})
        research.submit("RegisterNode", {"aeTitle": f"NODE{n}", "role": "research", "certDigests": []})
        asked = {"studies": [STUDY], "sopClasses": ["1.2"], "duo": [], "days": 30, "node": RESEARCH, "future": True}
        request = research.submit("RequestAccess", {**asked, "release": "identified", "descriptionDigest": digest})
        for role in (owner, custodian):
            approval = {"id": request.result["id"], "until": system_clock() + DAY_S, "release": "identified"}
            role.submit("Approve", approval)
    owner.submit("Withdraw", {"study": STUDY, "reason": "113037"})
    return made


@pytest.fixture
def on(capsys: pytest.CaptureFixture[str], node: Node) -> Command:
    """Runs `orthanc-ledger` on the node."""
    return runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)


@pytest.mark.parametrize("query", LISTS)
def test_all_rows_are_those_that_one_answer_after_the_other_gives(node: Node, query: str) -> None:
    every = list(all_rows(node.ledger, query, LISTS[query]))
    assert len(every) >= MANY
    for n in (0, MAX_ROWS - 1, MAX_ROWS, len(every) - 1):
        assert node.ledger.query(query, {**LISTS[query], "offset": n, "limit": 1}) == [every[n]]
    assert node.ledger.query(query, {**LISTS[query], "offset": len(every)}) == []
    assert len(node.ledger.query(query, LISTS[query])) == MAX_ROWS


@pytest.mark.parametrize("command", ["requests", "nodes", "datasets", "pending"])
def test_a_command_lists_all(on: Command, command: str) -> None:
    assert len(on(command, "--json").rows) >= MANY


def test_the_whole_trail_is_exported(on: Command, node: Node) -> None:
    trail = on("audit", "--json").rows
    assert [row["sequence"] for row in trail] == list(range(1, len(trail) + 1))
    assert len(on("audit", "--json", "--organisation", "ResearchMSP").rows) == 2 * MANY + 1
    assert len(on("audit", "--json", "--study", STUDY.hex()).rows) == 4 * MANY + 1


def test_what_is_named_last_is_found(on: Command) -> None:
    assert on("nodes", "confirm", "ResearchMSP", f"NODE{MANY - 1}", "--json").row["version"] == 1
    assert [row["kind"] for row in on("standing", "--json").rows] == ["withdrawn"]


def test_the_gate_sees_every_approval(node: Node) -> None:
    recipient = Peer(RESEARCH["aeTitle"], "research", RESEARCH["organisation"])
    assert len(node.gate.approvals(recipient)) == MANY


def test_a_sweep_meets_every_anchor(node: Node) -> None:
    assert node.sweep(0.0).round(lambda _: True).anchors == MANY


def test_the_product_asks_for_a_list_only_by_pages() -> None:
    """One answer has its first rows only."""
    lists = "|".join(name for name, query in QUERIES.items() if "limit" in query.arguments)
    whole = re.compile(rf'query\(\s*"({lists})"')
    files = [path for folder in ("orthanc_ledger", "dicom_scp") for path in (ROOT / folder).rglob("*.py")]
    assert [str(path) for path in files if whole.search(path.read_text())] == []
    assert sorted(lists.split("|")) == sorted(LISTS)

"""The commands by which owner and custodian agree: policy, withdrawals, flags, certificates."""

from pathlib import Path

import pytest
import yaml
from command_line import Command, runner
from node_make import drain, make_node, real_file, store

from orthanc_ledger import tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.setup_node import CONFIG_NAME, create_member


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node that holds one anchored object, with the keys of all organisations."""
    made = make_node(tmp_path)
    store(made, real_file())
    drain(made)
    return made


@pytest.fixture
def on(capsys: pytest.CaptureFixture[str], node: Node) -> Command:
    """Runs `orthanc-ledger` on the node."""
    return runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)


@pytest.fixture
def study(node: Node) -> str:
    """UID of the study the node holds."""
    return node.index.studies()[0][0]


def standing(on: Command) -> list[tuple[str, object]]:
    return [(row["kind"], row["instances"]) for row in on("standing", "--json").rows]


def test_a_withdrawn_study_comes_back_when_both_say_so(on: Command, study: str) -> None:
    assert on("withdraw", "--study", study, "--reason", "113001").code == 0
    (row,) = on("standing", "--json").rows
    assert (row["kind"], row["instances"], row["study_instance_uid"]) == ("withdrawn", "all", study)
    assert "other organisation" in on("reinstate", row["id"]).out
    assert standing(on) == [("withdrawn", "all")]
    assert "research gets it again" in on("reinstate", row["id"], "--as", "owner").out
    assert standing(on) == []


def test_single_objects_are_withdrawn_by_their_uid(on: Command, node: Node, study: str) -> None:
    (held,) = node.index.select()
    assert on("withdraw", "--study", study, "--instance", held.sop_uid, "--reason", "113037").code == 0
    assert standing(on) == [("withdrawn", 1)]
    refused = on("withdraw", "--study", study, "--instance", "1.2.3", "--reason", "113037")
    assert refused.code == 2
    assert "1.2.3" in refused.err


def test_a_flag_is_lifted_by_both_and_by_no_one_alone(on: Command, node: Node, study: str) -> None:
    (held,) = node.index.select()
    keys = node.keyring.study(study)
    assert keys is not None
    instance = tokens.instance_token(keys.k_study, held.sop_uid)
    flag = {"study": keys.token, "instance": instance, "n": 0, "manifestCid": held.manifest, "observed": None}
    node.ledger.submit("FlagTampered", {**flag, "what": []})
    (row,) = on("standing", "--json").rows
    assert row["kind"] == "flagged"
    assert on("resolve", row["id"], "--as", "owner").code == 0
    assert standing(on) == [("flagged", 1)]
    assert on("resolve", row["id"], "--as", "custodian").code == 0
    assert standing(on) == []
    gone = on("resolve", row["id"])
    assert gone.code == 2
    assert "standing" in gone.err


@pytest.mark.parametrize("bad", ["x", "00/11", "00/zz/0", "00/11/x"])
def test_a_flag_is_named_as_the_list_prints_it(on: Command, bad: str) -> None:
    assert on("resolve", bad).code == 2


def test_an_organisation_joins_when_the_other_party_confirms(on: Command, tmp_path: Path) -> None:
    certificate = create_member(tmp_path / "newcomer", "NewcomerMSP")
    proposed = on("policy", "propose", "--add", f"NewcomerMSP:{certificate}", "--set", "max_days=90", "--json")
    proposal = proposed.rows[0]["id"]
    (pending,) = on("pending", "--json").rows
    assert (pending["kind"], pending["id"], pending["by"]) == ("policy", proposal, "HospitalMSP")
    newcomer = tmp_path / "newcomer" / "identities" / "person"
    assert on("nodes", "register", "NEW1", "--as", newcomer).code == 2
    assert on("policy", "confirm", proposal, "--as", "owner").code == 2
    assert on("policy", "confirm", proposal, "--as", "custodian").code == 0
    shown = yaml.safe_load(on("policy").out)
    assert shown["organisations"]["NewcomerMSP"] == "research"
    assert shown["certificates"] == ["NewcomerMSP"]
    assert shown["max_days"] == 90
    assert on("nodes", "register", "NEW1", "--as", newcomer).code == 0
    assert on("pending", "--json").rows == []


def test_an_organisation_that_was_removed_signs_nothing(on: Command) -> None:
    proposal = on("policy", "propose", "--remove", "ResearchMSP", "--json").rows[0]["id"]
    assert on("nodes", "register", "LAB1", "--as", "research").code == 0
    assert on("policy", "confirm", proposal, "--as", "custodian").code == 0
    assert on("nodes", "register", "LAB2", "--as", "research").code == 2


def test_a_cancelled_proposal_cannot_be_confirmed(on: Command) -> None:
    proposal = on("policy", "propose", "--set", "lease_s=30", "--json").rows[0]["id"]
    assert on("cancel", proposal).code == 0
    refused = on("policy", "confirm", proposal, "--as", "custodian")
    assert refused.code == 2
    assert "cancelled" in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "max_days"], "FIELD=VALUE"),
        (["--add", "NewMSP"], "MSPID:CA.pem"),
        (["--add", "NewMSP:none.pem"], "none.pem"),
        (["--remove", "NoMSP"], "NoMSP"),
        (["--set", "lease_s=61"], "lease_s"),
    ],
)
def test_a_proposal_that_makes_no_sense_is_refused_by_name(on: Command, words: list[str], said: str) -> None:
    done = on("policy", "propose", *words)
    assert done.code == 2
    assert said in done.err


def test_a_revoked_certificate_signs_nothing_more(on: Command, node: Node) -> None:
    folder = node.config.data_dir.parent / "organisations" / "research" / "identities" / "person"
    assert load_identity(folder)
    assert on("nodes", "register", "LAB1", "--as", "research").code == 0
    assert on("revoke-certificate", folder / "signcerts" / "cert.pem", "--as", "research").code == 0
    refused = on("nodes", "register", "LAB2", "--as", "research")
    assert refused.code == 2
    assert "certificate" in refused.err
    assert on("fsck").code == 4

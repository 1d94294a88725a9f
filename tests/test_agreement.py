"""The commands by which owner and custodian agree: policy, withdrawals, flags, certificates."""

import hashlib
from pathlib import Path

import pytest
import yaml
from command_line import Command, runner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from node_make import drain, make_node, real_file, store, variant

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


@pytest.fixture
def flag(node: Node) -> str:
    """A standing flag of the one object the node holds, as `standing` prints it."""
    (held,) = node.index.select()
    keys = node.keyring.study(held.study_uid)
    assert keys is not None
    instance = tokens.instance_token(keys.k_study, held.sop_uid)
    args = {"study": keys.token, "instance": instance, "n": 0, "manifestCid": held.manifest, "observed": None}
    node.ledger.submit("FlagTampered", {**args, "what": []})
    return f"{keys.token.hex()}/{instance.hex()}/0"


def standing(on: Command) -> list[tuple[str, object]]:
    return [(row["kind"], row["instances"]) for row in on("standing", "--json").rows]


def test_a_withdrawn_study_comes_back_when_both_say_so(on: Command, study: str) -> None:
    withdrawn = on("withdraw", "--study", study, "--reason", "113001")
    (row,) = on("standing", "--json").rows
    assert withdrawn.out.endswith(f"`reinstate {row['id']}`\n")
    assert (row["kind"], row["instances"], row["study_instance_uid"]) == ("withdrawn", "all", study)
    said = on("reinstate", row["id"]).out
    assert "other organisation" in said
    assert f" {study}\nobject   all\nreason   113001\n" in said
    assert standing(on) == [("withdrawn", "all")]
    assert on("standing", "--json").rows[0]["agreed"] == ["custodian"]
    assert "research gets it again" in on("reinstate", row["id"], "--as", "owner").out
    assert standing(on) == []
    assert on("reinstate", row["id"], "--json").row["state"] == "reinstated"
    unknown = on("reinstate", "00" * 32)
    assert unknown.code == 2
    assert "`orthanc-ledger standing` lists them" in unknown.err


def test_single_objects_are_withdrawn_by_their_uid(on: Command, node: Node, study: str) -> None:
    (held,) = node.index.select()
    assert on("withdraw", "--study", study, "--instance", held.sop_uid, "--reason", "113037").code == 0
    assert standing(on) == [("withdrawn", 1)]
    refused = on("withdraw", "--study", study, "--instance", "1.2.3", "--reason", "113037")
    assert refused.code == 2
    assert "1.2.3" in refused.err


def test_a_flag_is_lifted_by_both_and_by_no_one_alone(on: Command, node: Node, flag: str) -> None:
    (held,) = node.index.select()
    (row,) = on("standing", "--json").rows
    assert (row["kind"], row["id"], row["sop_instance_uid"], row["agreed"]) == ("flagged", flag, held.sop_uid, [])
    said = on("resolve", flag, "--as", "owner").out
    assert f" {held.sop_uid}\nmanifest {held.manifest}\n" in said
    assert standing(on) == [("flagged", 1)]
    assert on("standing", "--json").rows[0]["agreed"] == ["owner"]
    assert on("resolve", flag, "--as", "custodian").out.endswith("its alarm goes with the next sweep\n")
    assert standing(on) == []
    assert on("resolve", flag, "--as", "owner", "--json").row["state"] == "resolved"
    unknown = on("resolve", f"{flag[:-1]}1")
    assert unknown.code == 2
    assert "`orthanc-ledger standing` lists them" in unknown.err


def test_a_flag_is_not_lifted_while_the_object_is_damaged(on: Command, node: Node, flag: str) -> None:
    (held,) = node.index.select()
    (sealed,) = (node.config.data_dir / "objects").rglob(str(held.object))
    sealed.chmod(0o600)
    sealed.write_bytes(b"damaged")
    refused = on("resolve", flag, "--as", "owner")
    assert refused.code == 2
    assert "restore the object from a backup first" in refused.err
    assert on("standing", "--json").rows[0]["agreed"] == []


def test_a_supersession_is_shown_before_it_is_confirmed(on: Command, node: Node, study: str) -> None:
    store(node, variant(PatientName="Other"))
    drain(node)
    (unit,) = node.spool.names("conflicts")
    assert on("conflicts", "supersede", unit, "--reason", "patient-mismatch").code == 0
    for _ in range(2):
        drain(node)
    (held,) = node.index.select()
    assert on("pending", "--json").row["what"].split()[::2] == ["patient-mismatch;", held.sop_uid]
    said = on("conflicts", "confirm", unit).out
    assert f" {study}\n" in said
    assert f" {held.sop_uid}\nreason   patient-mismatch\nold      {held.manifest}\n" in said


@pytest.mark.parametrize("bad", ["x", "00/11", "00/zz/0", "00/11/x"])
def test_a_flag_is_named_as_the_list_prints_it(on: Command, bad: str) -> None:
    assert on("resolve", bad).code == 2


def test_an_organisation_joins_when_the_other_party_confirms(on: Command, tmp_path: Path) -> None:
    certificate = create_member(tmp_path / "newcomer", "NewcomerMSP")
    proposed = on("policy", "propose", "--add", f"NewcomerMSP:{certificate}", "--set", "max_days=90", "--json")
    proposal = proposed.rows[0]["id"]
    (pending,) = on("pending", "--json").rows
    digest = hashlib.sha256(x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER))
    assert pending["what"].split("; ") == [
        f"certificates NewcomerMSP: nothing → SHA-256 {digest.hexdigest()}",
        "max_days: 365 → 90",
        "organisations NewcomerMSP: nothing → research",
    ]
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
        (["--set", "max_days=365"], "like this already"),
        ([], "like this already"),
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
    certificate = folder / "signcerts" / "cert.pem"
    another = on("revoke-certificate", certificate, "--as", "owner")
    assert another.code == 2
    assert "a certificate of ResearchMSP; HospitalMSP ends its own only" in another.err
    assert " of ResearchMSP signs nothing any more" in on("revoke-certificate", certificate, "--as", "research").out
    refused = on("nodes", "register", "LAB2", "--as", "research")
    assert refused.code == 2
    assert "issue a new identity" in refused.err
    assert on("fsck").code == 4


def test_the_trail_names_ids_by_their_beginning_and_takes_a_study_s_token(on: Command, study: str) -> None:
    assert on("withdraw", "--study", study, "--reason", "113001").code == 0
    (row,) = on("standing", "--json").rows
    for name in (study, row["study"]):
        shown = on("audit", "--study", name).out
        assert f"reason=113001 id={row['id'][:8]}\n" in shown
        assert "Anchor" in shown
    assert on("audit", "--format", "csv", "--json").code == 2


def test_a_new_identity_signs_for_its_organisation(on: Command, node: Node) -> None:
    research = node.config.data_dir.parent / "organisations" / "research"
    assert on("identity", "issue", research, "person-2").code == 0
    assert on("nodes", "register", "LAB1", "--as", research / "identities" / "person-2").code == 0
    assert on("identity", "issue", research, "person-2").code == 2

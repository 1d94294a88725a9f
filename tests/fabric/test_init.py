"""`init` of a node on a channel that is there: keys, store and configuration are made, ledger and identity named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orthanc_ledger.config import load
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.identity import create_organisation, issue
from orthanc_ledger.setup_node import CONFIG_NAME, Plan, create_node
from tests.command_line import runner


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A node's identity of the hospital, beside connection.yaml."""
    create_organisation(tmp_path / "hospital", "HospitalMSP")
    create_organisation(tmp_path / "research", "ResearchMSP")
    connection = {
        "channel": "custody",
        "chaincode": "custody",
        "organisation": "HospitalMSP",
        "peers": [{"endpoint": "127.0.0.1:1", "tls_ca": "hospital/cacerts/ca.pem"}],
        "organisations": {"HospitalMSP": "hospital/cacerts/ca.pem", "ResearchMSP": "research/cacerts/ca.pem"},
    }
    (tmp_path / "connection.yaml").write_text(yaml.safe_dump(connection))
    return issue(tmp_path / "hospital", "node-1", "node")


def plan(tmp_path: Path, **chosen: Any) -> Plan:
    return Plan(tmp_path / "node", tmp_path / "backup", **{"ledger": tmp_path / "connection.yaml", **chosen})


def test_the_node_keeps_no_ledger_and_no_organisation_s_keys(tmp_path: Path, identity: Path) -> None:
    config = create_node(plan(tmp_path, identity=identity))
    assert config == load(tmp_path / "node" / CONFIG_NAME)
    assert (config.organisation, config.identity) == ("HospitalMSP", identity)
    assert config.ledger == f"fabric:{tmp_path / 'connection.yaml'}"
    made = {path.name for path in (tmp_path / "node").rglob("*") if path.is_file()}
    assert {name for name in made if not name.startswith("keyring.db")} == {CONFIG_NAME, "node.key"}


def test_a_node_on_kubo_has_its_local_store_where_the_file_of_the_nodes_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"name": "kubo0", "api": "http://127.0.0.1:1", "token": "token", "kubo_repo": "kubo0"}
    (tmp_path / "token").write_text("secret")
    (tmp_path / "kubo.yaml").write_text(yaml.safe_dump({"nodes": [node], "local": "near"}))
    made = ("--all-roles", "--content", f"kubo:{tmp_path / 'kubo.yaml'}", "--json")
    done = runner(capsys)("init", tmp_path / "node", "--key-backup", tmp_path / "backup", *made)
    assert load(Path(done.row["config"])).content == f"kubo:{tmp_path / 'kubo.yaml'}"
    assert LocalStore(tmp_path / "near").check() is None
    assert not (tmp_path / "node" / "data" / "objects").exists()
    done = runner(capsys)("init", tmp_path / "second", "--key-backup", tmp_path / "second.key", *made)
    assert (done.code, "near: there is something already" in done.err) == (2, True)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"identity": None}, "--ledger needs --identity"),
        ({"all_roles": True}, "leave --member, --organisation and --all-roles out"),
        ({"msp_ids": {"owner": "ClinicMSP"}}, "leave --member, --organisation and --all-roles out"),
        ({"ledger": None}, "--identity goes with --ledger"),
        ({"ledger": Path("nowhere.yaml")}, "nowhere.yaml: cannot be read"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, identity: Path, chosen: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        create_node(plan(tmp_path, **{"identity": identity, **chosen}))
    assert not (tmp_path / "node").exists()


def test_an_identity_of_nobody_on_the_channel_is_refused(tmp_path: Path, identity: Path) -> None:
    create_organisation(tmp_path / "other", "HospitalMSP")
    with pytest.raises(ConfigError, match=r"a certificate that nobody on .*: have the CA of HospitalMSP issue one"):
        create_node(plan(tmp_path, identity=issue(tmp_path / "other", "node-1", "node")))


def test_a_person_s_identity_is_no_node_s(tmp_path: Path, identity: Path) -> None:
    with pytest.raises(ConfigError, match="expected a node's of HospitalMSP, got a person's of HospitalMSP"):
        create_node(plan(tmp_path, identity=issue(tmp_path / "hospital", "person", "person")))
    assert not (tmp_path / "node").exists()


def test_another_organisation_s_identity_is_told_whose_connection_file_it_needs(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, there = issue(tmp_path / "research", "node-1", "node"), f"fabric:{tmp_path / 'connection.yaml'}"
    told = "connection.yaml is HospitalMSP's connection file, and whoever asks is of ResearchMSP"
    with pytest.raises(ConfigError, match=told):
        create_node(plan(tmp_path, identity=theirs))
    config = create_node(plan(tmp_path, identity=identity))
    path = tmp_path / "node" / CONFIG_NAME
    path.write_text(path.read_text().replace(str(config.identity), str(theirs)).replace("HospitalMSP", "ResearchMSP"))
    commands: list[tuple[object, ...]] = [("--config", path, "status"), ("--config", path, "serve")]
    commands.append(("approve", "00" * 16, "--as", theirs, "--ledger", there))
    for words in commands:
        done = runner(capsys)(*words)
        assert (done.code, told in done.err) == (2, True), (words, done)


def test_another_ledger_than_fabric_s_is_no_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runner(capsys)
    done = run("init", tmp_path / "node", "--key-backup", tmp_path / "backup", "--ledger", "copy.db")
    assert done.code == 2
    assert "expected fabric: and the connection file, got 'copy.db'" in done.err


def test_on_the_hospital_s_machine_another_s_person_is_sent_to_its_own_peer(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_node(plan(tmp_path, identity=identity))
    person = issue(tmp_path / "research", "person", "person")
    done = runner(capsys)("--config", tmp_path / "node" / CONFIG_NAME, "nodes", "register", "LAB1", "--as", person)
    assert done.code == 2
    assert "an identity of ResearchMSP, but this machine is HospitalMSP's: sign on theirs with --ledger" in done.err


def test_without_as_nobody_is_told_of_an_option_that_was_not_given(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no configuration here, as at a custodian's
    done = runner(capsys)("approve", "00" * 16, "--ledger", "fabric:connection.yaml")
    assert done.code == 2
    assert "no key of custodian here: name who signs with --as; expected owner, custodian" in done.err


def test_verify_checks_the_objects_and_leaves_the_blocks_to_the_peers(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(capsys)
    there = ("--ledger", f"fabric:{tmp_path / 'connection.yaml'}", "--identity", identity)
    made = run("init", tmp_path / "node", "--key-backup", tmp_path / "backup", *there, "--json")
    verify = ("--config", made.row["config"], "verify")
    done = run(*verify, "--json")
    assert (done.code, [row["what"] for row in done.rows]) == (0, ["objects"])
    for option in (("--log-only",), ("--checkpoint", f"1:{bytes(32).hex()}")):
        done = run(*verify, *option)
        assert done.code == 2
        assert "only an embedded ledger has a file to check" in done.err


def test_what_works_on_a_ledger_s_file_says_that_there_is_none_before_it_looks_at_anything(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_node(plan(tmp_path, identity=identity))
    config = tmp_path / "node" / CONFIG_NAME
    for command in (("submit", tmp_path / "no-such-file"), ("ledger", "copy", tmp_path / "copy")):
        done = runner(capsys)("--config", config, *command)
        assert done.code == 2
        assert "this ledger is fabric:, its peers keep it" in done.err


def test_status_leaves_out_what_a_ledger_of_peers_has_not(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_node(plan(tmp_path, identity=identity))
    config = tmp_path / "node" / CONFIG_NAME
    done = runner(capsys)("--config", config, "status")
    assert done.code == 3
    facts = {line.split()[0] for line in done.out.splitlines()}
    assert "ledger" in facts
    assert not facts & {"ledger_entries", "final_entries", "rollback"}

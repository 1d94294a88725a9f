"""Every command: its help, its use, and wrong input, answered by an exit code and a message that says what to do."""

import argparse
import csv
import gc
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from command_line import Command, Done, runner
from conftest import ROOT, wait_until
from damage import flip
from live_node import LiveNode, encoded, make_live_node
from node_make import begin, drain, make_node, real_file, store, variant
from pydicom import dcmread

from orthanc_ledger import cli
from orthanc_ledger.assemble import Node
from orthanc_ledger.config import Config
from orthanc_ledger.ledger import log
from orthanc_ledger.node_key import NodeKey
from orthanc_ledger.setup_node import CONFIG_NAME

RESEARCH_NODE = ("ResearchMSP", "RESEARCH1")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `orthanc-ledger`."""
    return runner(capsys)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node that holds one anchored object, all organisations' keys, and a sink that has no checkpoint yet."""
    made = make_node(tmp_path)
    (tmp_path / "kept").mkdir()
    with (tmp_path / "node" / CONFIG_NAME).open("a") as config:
        config.write("checkpoint_sinks: [path:../kept]\n")
    store(made, real_file())
    drain(made)
    return made


@pytest.fixture
def on(run: Command, node: Node) -> Command:
    """Runs `orthanc-ledger` on the node."""
    return lambda *words: run("--config", node.config.data_dir.parent / CONFIG_NAME, *words)


@pytest.fixture
def study(node: Node) -> str:
    """UID of the study the node holds."""
    return node.index.studies()[0][0]


@pytest.fixture
def request_id(on: Command, study: str, tmp_path: Path) -> str:
    """An open request for the study by a confirmed research node."""
    tokens = tmp_path / "tokens.json"
    on("nodes", "register", "RESEARCH1")
    on("nodes", "confirm", *RESEARCH_NODE)
    on("studies", "--study", study, "--tokens", tokens, "--for", "ResearchMSP")
    asked = on("request", "--studies", tokens, "--node", "RESEARCH1", "--duo", "DUO:0000042", "--json")
    return str(asked.rows[0]["id"])


def test_status_alarms_while_the_disk_has_no_room(on: Command, node: Node) -> None:
    assert on("status", "--json").row["alarms"] == []
    with (node.config.data_dir.parent / CONFIG_NAME).open("a") as config:
        config.write(f"spool_reserve_mb: {1 << 40}\n")
    status = on("status", "--json")
    assert status.code == 1
    [alarm] = status.row["alarms"]
    assert alarm["kind"] == "spool full"
    assert alarm["text"].endswith("free space or add a disk")


def test_who_reads_a_few_lines_only_sees_no_traceback(node: Node) -> None:
    words = [sys.executable, "-m", "orthanc_ledger", "--config", node.config.data_dir.parent / CONFIG_NAME, "audit"]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as cut:
        done = subprocess.run(words, cwd=ROOT, stdout=cut, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def all_commands() -> list[list[str]]:
    """The words of every command and action."""

    def below(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[list[str]]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield [*words, name]
                    yield from below(child, [*words, name])

    return list(below(cli.build_parser(), []))


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_and_action_has_help(run: Command, words: list[str]) -> None:
    done = run(*words, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: orthanc-ledger {' '.join(words)} ")


def test_without_a_configuration_a_command_says_how_to_make_one(run: Command, tmp_path: Path) -> None:
    done = run("--config", tmp_path / "none.yaml", "status")
    assert (done.code, done.out) == (2, "")
    assert f"{tmp_path / 'none.yaml'}: cannot be read" in done.err
    assert "`orthanc-ledger init`" in done.err


class TestInit:
    def init(self, run: Command, folder: Path, *words: object) -> Done:
        return run("init", folder / "node", "--key-backup", folder / "backup", *words)

    def test_all_roles_makes_a_node_that_is_well_but_for_its_checkpoints(self, run: Command, tmp_path: Path) -> None:
        done = self.init(run, tmp_path, "--all-roles", "--json")
        assert (done.code, done.rows[0]["config"]) == (0, str(tmp_path / "node" / CONFIG_NAME))
        assert (tmp_path / "backup").read_bytes() == (tmp_path / "node" / "keys" / "node.key").read_bytes()
        assert run("--config", done.rows[0]["config"], "status").code == 4
        assert run("--config", done.rows[0]["config"], "verify").code == 4

    def test_without_a_key_backup_it_refuses(self, run: Command, tmp_path: Path) -> None:
        done = run("init", tmp_path / "node", "--all-roles")
        assert done.code == 2
        assert "--key-backup FILE on another disk" in done.err
        assert not (tmp_path / "node").exists()

    def test_a_backup_inside_the_folder_is_refused(self, run: Command, tmp_path: Path) -> None:
        done = run("init", tmp_path / "node", "--key-backup", tmp_path / "node" / "backup", "--all-roles")
        assert done.code == 2
        assert "must lie outside" in done.err
        assert not (tmp_path / "node").exists()

    def test_an_older_backup_is_not_overwritten(self, run: Command, tmp_path: Path) -> None:
        (tmp_path / "backup").write_text("an older key")
        done = self.init(run, tmp_path, "--all-roles")
        assert (done.code, (tmp_path / "backup").read_text()) == (2, "an older key")
        assert "an older key there would be lost" in done.err

    def test_a_backup_on_a_disk_that_is_not_there_leaves_no_half_made_node(self, run: Command, tmp_path: Path) -> None:
        done = run("init", tmp_path / "node", "--key-backup", tmp_path / "disk" / "backup", "--all-roles")
        assert done.code == 2
        assert "is its disk mounted?" in done.err
        assert not (tmp_path / "node").exists()

    def test_a_second_node_in_the_same_folder_is_refused(self, run: Command, tmp_path: Path) -> None:
        self.init(run, tmp_path, "--all-roles")
        done = run("init", tmp_path / "node", "--key-backup", tmp_path / "other", "--all-roles")
        assert done.code == 2
        assert "there is something here already; choose a new or empty folder" in done.err

    def test_missing_roles_are_named(self, run: Command, tmp_path: Path) -> None:
        done = self.init(run, tmp_path)
        assert done.code == 2
        assert "no organisation for custodian, research: give --member" in done.err

    @pytest.mark.parametrize("member", ["custodian", "owner=HospitalMSP:ca.pem", "custodian=CustodianMSP"])
    def test_a_member_that_cannot_be_read_is_refused(self, run: Command, tmp_path: Path, member: str) -> None:
        done = self.init(run, tmp_path, "--member", member)
        assert done.code == 2
        assert "expected ROLE=MSPID:CA.pem" in done.err

    def test_members_keep_their_keys(self, run: Command, tmp_path: Path) -> None:
        members: list[str] = []
        for role, msp_id in (("custodian", "ArchiveMSP"), ("research", "InstituteMSP")):
            made = run("identity", "create", tmp_path / role, "--organisation", msp_id, "--json")
            members += ["--member", f"{role}={msp_id}:{made.rows[0]['certificate']}"]
        assert self.init(run, tmp_path, "--organisation", "ClinicMSP", *members).code == 0
        config = tmp_path / "node" / CONFIG_NAME
        assert not (tmp_path / "node" / "organisations" / "custodian").exists()
        refused = run("--config", config, "nodes", "register", "RESEARCH1", "--as", "research")
        assert refused.code == 2
        assert "--as research: no such identity here; expected owner, custodian, research, or the folder" in refused.err

    def test_identities_are_not_overwritten(self, run: Command, tmp_path: Path) -> None:
        words = ("identity", "create", tmp_path / "custodian", "--organisation", "CustodianMSP")
        assert run(*words).code == 0
        again = run(*words)
        assert again.code == 2
        assert "keys are never overwritten, choose another folder" in again.err


class TestConfiguration:
    @pytest.mark.parametrize("key", ["colour", "batch.colour", "clinical.colour"])
    def test_an_unknown_key_stops_every_start_and_is_named(self, on: Command, node: Node, key: str) -> None:
        config = node.config.data_dir.parent / CONFIG_NAME
        raw = yaml.safe_load(config.read_text())
        part, _, name = key.rpartition(".")
        (raw.setdefault(part, {}) if part else raw)[name] = "blue"
        config.write_text(yaml.safe_dump(raw))
        for command in ("status", "serve"):
            done = on(command)
            assert done.code == 2
            assert f"{config}: {key}: unknown key; known here: " in done.err
        receiver = [sys.executable, "-m", "dicom_scp", "--config", str(config), "clinical"]
        stopped = subprocess.run(receiver, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (stopped.returncode, f"{config}: {key}: unknown key" in stopped.stderr) == (2, True)

    def test_the_commented_file_loads_and_explains_every_key_with_its_default(self) -> None:
        text = (ROOT / "config" / "orthanc-ledger.yaml").read_text()
        shown, kinds = keys_of(yaml.safe_load(text)), keys_of_kind(Config)
        assert shown == set(kinds)
        for key, default in kinds.items():
            name = key.rpartition(".")[2]
            place = text.index(f"\n{name}:") if "." not in key else text.index(f"{name}:", text.index(f"\n{key[:5]}"))
            lines = text[text.rindex("\n\n", 0, place) : text.index("\n", place + 1)]
            assert "#" in lines, f"{key} is not explained"
            if type(default) in (int, float) and not key.startswith("research."):
                told = str(default).lower() if isinstance(default, bool) else f"{default:g}"
                assert f"default {told}" in lines.lower(), f"{key}: its default is not told"


def keys_of(raw: dict[str, Any], where: str = "") -> set[str]:
    """The dotted keys in a configuration file; the items of a list count as one."""
    found = set()
    for key, value in raw.items():
        found.add(f"{where}{key}")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                found |= keys_of(item, f"{where}{key}.")
    return found


def keys_of_kind(kind: type, where: str = "") -> dict[str, object]:
    """The dotted keys that a configuration may have, with their defaults."""
    found: dict[str, object] = {}
    hints = get_type_hints(kind)
    for field in fields(kind):
        found[f"{where}{field.name}"] = field.default
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if is_dataclass(inner) and inner is not NodeKey:  # which is written as one text
                found |= keys_of_kind(inner, f"{where}{field.name}.")  # type: ignore[arg-type]
    return found


class TestCheckpoint:
    def test_a_ledger_that_is_shorter_or_other_than_a_kept_checkpoint_is_found(self, on: Command) -> None:
        (kept,) = on("verify", "--log-only", "--json").rows
        assert on("nodes", "register", "RESEARCH9").code == 0
        size, root = kept["size"], kept["root"]
        assert on("verify", "--log-only", "--checkpoint", f"{size}:{root}").code == 0
        shorter = on("verify", "--log-only", "--checkpoint", f"{size + 2}:{root}")
        assert (shorter.code, "rolled back" in shorter.out) == (1, True)
        other = on("verify", "--log-only", "--checkpoint", f"{size}:{bytes(32).hex()}")
        assert (other.code, "not those of the checkpoint" in other.out) == (1, True)

    @pytest.mark.parametrize("text", ["12", "x:00", f"1:{'g' * 64}"])
    def test_a_checkpoint_that_is_none_is_named(self, on: Command, text: str) -> None:
        assert on("verify", "--log-only", "--checkpoint", text).code == 2


class TestStudies:
    def test_studies_are_listed(self, on: Command, study: str) -> None:
        (row,) = on("studies", "--json").rows
        assert (row["study_instance_uid"], row["instances"], row["anchored"]) == (study, 1, 1)
        assert study in on("studies").out

    def test_tokens_are_for_chosen_studies_and_one_organisation(
        self, on: Command, node: Node, study: str, tmp_path: Path
    ) -> None:
        tokens = tmp_path / "tokens.json"
        assert on("studies", "--study", study, "--tokens", tokens, "--for", "ResearchMSP").code == 0
        token = node.index.studies()[0][1]
        assert token is not None
        assert json.loads(tokens.read_text()) == {"for": "ResearchMSP", "studies": [token.hex()]}
        for words in (("--study", study), ("--for", "ResearchMSP")):
            refused = on("studies", "--tokens", tokens, *words)
            assert refused.code == 2
            assert "--tokens needs --for MSPID and at least one --study UID" in refused.err

    @pytest.mark.parametrize("command", [["studies"], ["audit"], ["verify"]])
    def test_a_study_that_is_not_held_is_named(self, on: Command, command: list[str]) -> None:
        done = on(*command, "--study", "1.2.3")
        assert (done.code, done.out) == (2, "")
        assert "1.2.3" in done.err

    def test_a_study_that_waits_has_no_token_yet(self, on: Command, node: Node, tmp_path: Path) -> None:
        other = variant(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", SOPInstanceUID="1.2.5")
        store(node, other)
        node.anchorer().take_in()
        done = on("studies", "--study", "1.2.3", "--tokens", tmp_path / "tokens.json", "--for", "ResearchMSP")
        assert done.code == 2
        assert "not anchored yet, so without a token: 1.2.3; try again" in done.err


class TestAccess:
    def test_nodes_are_registered_confirmed_and_revoked(self, on: Command) -> None:
        assert on("nodes", "register", "RESEARCH1", "--json").rows[0]["version"] == 1
        assert [row["state"] for row in on("nodes", "--json").rows] == ["proposed"]
        assert on("nodes", "confirm", *RESEARCH_NODE).out == "confirmed, version 1: research\n"
        assert on("nodes", "revoke", *RESEARCH_NODE, "--as", "research").code == 0
        assert [row["state"] for row in on("nodes", "--json").rows] == ["revoked"]

    def test_a_node_that_nobody_proposed_cannot_be_confirmed(self, on: Command) -> None:
        done = on("nodes", "confirm", "ResearchMSP", "NOBODY")
        assert done.code == 2
        assert "NOBODY: nothing is proposed; `orthanc-ledger nodes`" in done.err

    def test_owner_and_custodian_approve(self, on: Command, request_id: str) -> None:
        assert on("requests", "--state", "open", "--json").rows[0]["id"] == request_id
        assert on("approve", request_id).out.endswith("\ncounted; still needed: owner\n")
        (row,) = on("approve", request_id, "--as", "owner", "--days", 10, "--json").rows
        assert (row["state"], row["approved_by"]) == ("approved", ["custodian", "owner"])
        assert on("requests", "--state", "open", "--json").rows == []
        assert f"{request_id}  approved" in on("requests").out
        assert on("revoke", request_id, "--json").rows[0]["state"] == "revoked"
        assert [row["state"] for row in on("requests", "--json").rows] == ["revoked"]

    def test_a_request_is_denied_for_good(self, on: Command, request_id: str) -> None:
        assert on("deny", request_id, "--reason", "ethics").out == "denied, for good\n"
        refused = on("approve", request_id)
        assert refused.code == 2
        assert "the ledger refused Approve: WRONG_STATE denied; `requests`, `nodes`, " in refused.err

    def test_a_role_that_may_not_is_told_who_may(self, on: Command, request_id: str) -> None:
        done = on("approve", request_id, "--as", "research")
        assert done.code == 2
        assert "NOT_PERMITTED role" in done.err
        assert "another organisation has to sign this, named with --as" in done.err

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [("ff" * 32, "no such request; `orthanc-ledger requests` lists them"), ("first", "hexadecimal digits")],
    )
    def test_a_request_that_is_not_there_is_named(self, on: Command, wrong: str, says: str) -> None:
        done = on("approve", wrong)
        assert (done.code, says in done.err) == (2, True)

    def test_a_revocation_of_nothing_says_where_to_look(self, on: Command) -> None:
        done = on("revoke", "ff" * 32)
        assert done.code == 2
        assert "`erase list` show what is there" in done.err

    @pytest.mark.parametrize("days", [0, 31])
    def test_an_approval_longer_than_asked_for_or_over_already_is_refused(
        self, on: Command, request_id: str, days: int
    ) -> None:
        done = on("approve", request_id, "--days", days)
        assert done.code == 2
        assert "until" in done.err
        assert on("requests", "--json").rows[0]["approved_by"] == []

    def test_a_node_that_is_not_registered_cannot_ask(self, on: Command, study: str, tmp_path: Path) -> None:
        tokens = tmp_path / "tokens.json"
        on("studies", "--study", study, "--tokens", tokens, "--for", "ResearchMSP")
        done = on("request", "--studies", tokens, "--node", "RESEARCH1", "--duo", "DUO:0000042")
        assert done.code == 2
        assert "the ledger refused RequestAccess: NOT_FOUND node: not registered; `requests`, `nodes`, " in done.err

    def test_a_file_that_holds_no_tokens_is_refused(self, on: Command, tmp_path: Path) -> None:
        (tmp_path / "tokens.json").write_text("[]")
        done = on("request", "--studies", tmp_path / "tokens.json", "--node", "RESEARCH1")
        assert done.code == 2
        assert "expected a file made by `orthanc-ledger studies --tokens`" in done.err

    def test_the_ledger_away_is_exit_3(
        self, on: Command, node: Node, request_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log, "BUSY_TIMEOUT_S", 0.1)
        node.anchorer_ledger.close()
        gc.collect()  # ends the connections of the commands that ran: a lock on all needs to be the only one
        holder = sqlite3.connect(node.config.data_dir / "ledger.db", isolation_level=None)
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        try:
            for words in (("approve", request_id), ("audit",), ("requests",), ("verify",), ("nodes",)):
                done = on(*words)
                assert done.code == 3, words
                assert "try again later" in done.err
            status = on("status", "--json")
            assert (status.code, status.rows[0]["ledger"].startswith("away: ")) == (3, True)
        finally:
            holder.close()


class TestTrail:
    def test_audit_names_what_was_called_by_whom_and_with_what(self, on: Command, request_id: str, study: str) -> None:
        calls = [row["function"] for row in on("audit", "--json").rows]
        assert calls == ["InitPolicy", "Anchor", "RegisterNode", "ConfirmNode", "RequestAccess"]
        assert [row["function"] for row in on("audit", "--study", study, "--json").rows] == ["Anchor", "RequestAccess"]
        by_research = [row["function"] for row in on("audit", "--organisation", "ResearchMSP", "--json").rows]
        assert by_research == ["RegisterNode", "RequestAccess"]
        asked = on("audit", "--organisation", "ResearchMSP")
        assert "RequestAccess  ResearchMSP (research, person)  " in asked.out
        assert "node=ResearchMSP/RESEARCH1" in asked.out
        assert on("audit", "--until", "2020-01-01", "--json").rows == []
        assert on("audit", "--from", "2020-01-01T00:00+02:00", "--json").rows != []

    def test_audit_is_exported_for_spreadsheets_and_audit_repositories(self, on: Command, request_id: str) -> None:
        called = [row["function"] for row in on("audit", "--json").rows]
        table = list(csv.DictReader(io.StringIO(on("audit", "--format", "csv").out)))
        assert [row["function"] for row in table] == called
        resources = on("audit", "--format", "fhir").rows
        assert [resource["entity"][0]["detail"][0]["valueString"] for resource in resources] == called
        assert {resource["source"]["observer"]["identifier"]["value"] for resource in resources} == {"HospitalMSP"}
        only = on("audit", "--format", "csv", "--organisation", "ResearchMSP").out
        assert [row["organisation"] for row in csv.DictReader(io.StringIO(only))] == ["ResearchMSP"] * 2

    def test_audit_refuses_a_time_it_cannot_read(self, on: Command) -> None:
        done = on("audit", "--from", "yesterday")
        assert done.code == 2
        assert "expected a time as 2026-01-31" in done.err

    def test_verify_passes_on_what_is_as_anchored(self, on: Command, study: str) -> None:
        log_row, sum_row = on("verify", "--json").rows
        assert (log_row["state"], log_row["size"], log_row["checkpoints"]) == ("verified", 3, 0)
        assert (sum_row["verified"], sum_row["total"]) == (1, 1)
        alone = on("verify", "--study", study)
        assert (alone.code, "rollback not detectable" in alone.out) == (4, True)
        checkpoint = f"{log_row['size']}:{log_row['root']}"
        compared = on("verify", "--study", study, "--checkpoint", checkpoint)
        assert (compared.code, "compared with 1 checkpoint" in compared.out) == (0, True)

    @pytest.mark.parametrize("part", ["objects", "blocks"])
    def test_verify_names_what_is_damaged(self, on: Command, node: Node, part: str) -> None:
        (batch,) = node.index.anchored_batches()
        cid = node.index.select()[0].object if part == "objects" else batch.manifest
        victim = next((node.config.data_dir / "objects" / part).glob(f"*/{cid}"))
        flip(victim)
        done = on("verify", "--json")
        damaged = [row for row in done.rows if row["state"] == "DAMAGED" and row["what"] != "objects"]
        assert (done.code, [row["cid"] for row in damaged]) == (1, [victim.name])
        if part == "objects":
            assert damaged[0]["sop_instance_uid"] == node.index.select()[0].sop_uid

    def test_verify_finds_a_ledger_that_was_rewritten(self, on: Command, node: Node) -> None:
        ledger = sqlite3.connect(node.config.data_dir / "ledger.db")
        ledger.execute("UPDATE entries SET entry = CAST(entry || x'00' AS BLOB) WHERE position = 2")
        ledger.commit()
        ledger.close()
        done = on("verify", "--log-only", "--json")
        assert (done.code, done.rows[0]["state"]) == (1, "DAMAGED")


class TestQuarantine:
    @pytest.fixture
    def unit(self, node: Node) -> str:
        """An object that breaks off, accepted and then put into quarantine."""
        other = variant(SOPInstanceUID="1.2.3")
        incoming, data_set = begin(node, other)
        incoming.write(data_set[:-100])
        incoming.accept()
        drain(node)
        (name,) = node.spool.names("quarantine")
        return name

    def test_it_is_listed_and_alarms_until_it_is_discarded(self, on: Command, unit: str) -> None:
        (row,) = on("quarantine", "--json").rows
        assert (row["id"], row["sop_instance_uid"], row["calling_ae"]) == (unit, "1.2.3", "MRI1")
        status = on("status")
        assert (status.code, "ALARM" in status.out, unit in status.out) == (1, True, True)
        assert on("quarantine", "discard", unit).out == "discarded\n"
        assert (on("quarantine", "--json").rows, on("status").code) == ([], 4)

    def test_it_can_be_tried_again(self, on: Command, node: Node, unit: str) -> None:
        assert on("quarantine", "retry", unit, "--json").rows == [{"id": unit, "state": "inbox"}]
        assert on("status", "--json").rows[0]["quarantine"] == 0
        drain(node)
        assert [row["id"] for row in on("quarantine", "--json").rows] == [unit]
        assert on("status").code == 1

    def test_its_uid_is_free_again_once_it_is_discarded(self, on: Command, node: Node, unit: str) -> None:
        on("quarantine", "discard", unit)
        store(node, variant(SOPInstanceUID="1.2.3"))
        drain(node)
        assert on("status", "--json").rows[0]["anchored"] == 2

    def test_discarding_it_spares_an_object_that_came_under_its_uid(self, on: Command, node: Node, unit: str) -> None:
        node.index.forget(unit.partition(".")[0])
        store(node, variant(SOPInstanceUID="1.2.3"))
        intake = node.anchorer()
        intake.take_in()
        on("quarantine", "discard", unit)
        assert on("status", "--json").rows[0]["waiting"] == 1

    def test_a_unit_that_the_disk_damaged_is_listed_and_can_be_discarded(
        self, on: Command, node: Node, unit: str
    ) -> None:
        (node.spool.folder / "quarantine" / unit).write_bytes(b"\0\0")
        assert on("quarantine", "--json").rows == [{"id": unit, "state": "damaged"}]
        assert on("quarantine", "discard", unit).code == 0

    @pytest.mark.parametrize("queue", ["quarantine", "conflicts"])
    def test_a_unit_that_is_not_there_is_named(self, on: Command, queue: str) -> None:
        done = on(queue, "discard", "nothing")
        assert done.code == 2
        assert f"nothing: not in {queue}; `orthanc-ledger {queue}` lists what is there" in done.err


class TestConflicts:
    @pytest.fixture
    def unit(self, node: Node) -> str:
        """Other content under the UID of the object the node holds."""
        store(node, variant(PatientName="Other"))
        drain(node)
        (name,) = node.spool.names("conflicts")
        return name

    def test_discarded_the_first_content_stays(self, on: Command, unit: str) -> None:
        assert [row["state"] for row in on("conflicts", "--json").rows] == ["to decide"]
        assert on("status").code == 1
        assert on("conflicts", "discard", unit).out == "discarded; the first content stays\n"
        assert (on("conflicts", "--json").rows, on("status").code) == ([], 4)

    def test_superseded_and_confirmed_it_is_the_current_content(self, on: Command, node: Node, unit: str) -> None:
        assert on("conflicts", "supersede", unit, "--reason", "patient-mismatch").code == 0
        early = on("conflicts", "confirm", unit)
        assert early.code == 2
        assert "nothing is proposed under this id; `orthanc-ledger conflicts` shows the states" in early.err
        for _ in range(2):
            drain(node)
        assert [row["state"] for row in on("conflicts", "--json").rows] == ["proposed"]
        for words in (("discard", unit), ("supersede", unit, "--reason", "quality")):
            late = on("conflicts", *words)
            assert late.code == 2
            assert "is proposed as the current content already" in late.err
        denied = on("conflicts", "confirm", unit, "--as", "owner")
        assert denied.code == 2
        assert "another organisation has to sign this" in denied.err
        assert on("conflicts", "confirm", unit).code == 0
        drain(node)
        assert (on("conflicts", "--json").rows, on("status").code, on("verify").code) == ([], 4, 4)
        (current,) = node.index.select()
        with node.library.open(current) as data_set:
            assert b"Other" in data_set.read()

    def test_a_first_content_that_still_waits_cannot_be_superseded(self, on: Command, node: Node) -> None:
        store(node, variant(SOPInstanceUID="1.2.3"))
        store(node, variant(SOPInstanceUID="1.2.3", PatientName="Other"))
        node.anchorer().take_in()
        (name,) = node.spool.names("conflicts")
        done = on("conflicts", "supersede", name, "--reason", "quality")
        assert done.code == 2
        assert "is not anchored yet; try again when `status` shows no backlog" in done.err


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], samples_dir: Path
) -> Iterator[LiveNode]:
    """A running node that holds a Siemens study of two objects and a correction of one."""
    folder = tmp_path_factory.mktemp("live")
    node = make_live_node(folder, free_port)
    node.start()
    try:
        files = sorted((samples_dir / "siemens-skyra").rglob("*.dcm"))
        assert node.store(*files) == [0, 0]
        node.wait_anchored(2)
        changed = dcmread(files[0])
        changed.PatientName = "Corrected^Name"
        changed.save_as(folder / "corrected.dcm")
        assert node.store(folder / "corrected.dcm") == [0x0111]
        yield node
    finally:
        node.stop()


class TestRunningNode:
    """What needs `serve`: its log, and a correction on its way through all processes."""

    @pytest.mark.filterwarnings("ignore:Invalid value for VR")  # this side's, which sends it
    def test_no_log_line_names_a_patient_or_a_study_that_nobody_approved(
        self, live: LiveNode, samples_dir: Path, tmp_path: Path
    ) -> None:
        (study,) = live.rows("studies")
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study["study_instance_uid"]}
        assert live.get("RESEARCH1", "research", **keys)[0].Status == 0x0124
        assert live.find("RESEARCH1", "research", PatientID=study["patient_id"])[0].Status == 0
        odd = dcmread(next(samples_dir.rglob("mr_0005/*.dcm")))
        odd.StudyInstanceUID, odd.SOPInstanceUID, odd.StudyDate = "1.2.3.4.6", "1.2.3.4.7", "SECRETDATE"
        odd.file_meta.MediaStorageSOPInstanceUID = odd.SOPInstanceUID
        odd.save_as(tmp_path / "odd.dcm")
        assert live.store(tmp_path / "odd.dcm") == [0]
        live.wait_anchored(3)
        answers = live.find("VIEWER", "clinical", StudyInstanceUID=odd.StudyInstanceUID, StudyDate="")
        assert answers[1].StudyDate == "SECRETDATE"
        live.find("RESEARCH1", "research", StudyDate="SECRETDATE")
        assert live.move("RESEARCH1", "research", "VIEWER", **keys)[0].Status == 0x0124
        assert live.get("VIEWER", "clinical", **keys)[0].Status == 0
        assert not live.echo("STRANGER", "clinical")
        mismatched = dcmread(next(samples_dir.rglob("mr_0005/*.dcm")))
        mismatched.SOPInstanceUID = "1.2.3.4.5"
        mismatched.save_as(tmp_path / "mismatched.dcm")
        assert live.store(tmp_path / "mismatched.dcm") == [0xA900]
        lines = live.log.read_text()
        assert "anchored 2 objects" in lines
        assert "no approval" in lines
        assert "alarm: conflict" in lines
        assert "SECRET" not in lines
        for path in (*sorted((samples_dir / "siemens-skyra").rglob("*.dcm")), live.folder / "corrected.dcm"):
            header = dcmread(path, stop_before_pixels=True)
            named = ["PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDescription"]
            named += ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
            values = [str(header[name].value) for name in named if name in header and header[name].value]
            assert [value for value in values if value in lines] == []
        assert study["token"] not in lines

    def test_a_confirmed_correction_reaches_clinical_and_research(self, live: LiveNode, samples_dir: Path) -> None:
        corrected = live.folder / "corrected.dcm"
        header = dcmread(corrected, stop_before_pixels=True)
        study, uid = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
        (unit,) = live.rows("conflicts")
        live.command("conflicts", "supersede", unit["id"], "--reason", "patient-mismatch")
        wait_until(lambda: live.rows("conflicts")[0]["state"] == "proposed", 30, "the correction is proposed")
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}
        assert live.get("VIEWER", "clinical", **keys)[2][uid] != encoded(corrected)
        live.command("conflicts", "confirm", unit["id"])
        wait_until(lambda: live.rows("conflicts") == [], 30, "the correction is current")
        live.approve(study)
        for caller, port in (("VIEWER", "clinical"), ("RESEARCH1", "research")):
            status, _, received = live.get(caller, port, **keys)
            assert (status.Status, len(received), received[uid]) == (0, 2, encoded(corrected))
        assert live.status()["alarms"] == []
        live.command("verify", code=4)  # no checkpoint is kept anywhere

"""Three machines, each with the keys of one organisation: what each may sign, and how it comes to the ledger."""

import gc
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dag_cbor
import pytest
import yaml
from command_line import Done, runner
from node_make import drain, real_file, store

from orthanc_ledger.assemble import Node
from orthanc_ledger.commands import processes
from orthanc_ledger.config import load
from orthanc_ledger.ledger.embedded import EmbeddedLedger
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.ledger.offline import read_transaction, write_transaction
from orthanc_ledger.ledger.transaction import sign
from orthanc_ledger.setup_node import CONFIG_NAME

DAY_S = 86_400
NODE = ("ResearchMSP", "RESEARCH1")


@dataclass(frozen=True)
class Machine:
    """A folder to work in, with what lies there."""

    folder: Path
    command: Callable[[Path, tuple[object, ...]], Done]

    def run(self, *words: object) -> Done:
        """Run `orthanc-ledger` here."""
        return self.command(self.folder, words)

    def does(self, *words: object) -> Done:
        """Run `orthanc-ledger` here; it must succeed."""
        done = self.run(*words)
        assert done.code == 0, f"{words}: {done.err}"
        return done


@dataclass(frozen=True)
class Parties:
    """Hospital, custodian and research centre; only the hospital has a node."""

    hospital: Machine
    custodian: Machine
    research: Machine

    @property
    def node(self) -> Node:
        return Node(load(self.hospital.folder / CONFIG_NAME))

    @property
    def ledger(self) -> Path:
        return self.hospital.folder / "data" / "ledger.db"

    def size(self) -> int:
        """Entries of the ledger."""
        with closing(EmbeddedLedger(self.ledger)) as ledger:
            return ledger.size

    def send_copy(self, machine: Machine) -> Path:
        """Bring a machine a copy of the ledger as it is now."""
        copy = machine.folder / f"copy-{len(list(machine.folder.glob('copy-*')))}.db"
        self.hospital.does("ledger", "copy", copy)
        return copy

    def sign(self, machine: Machine, *words: object) -> tuple[Path, Done]:
        """Sign a command on a machine against a fresh copy; the file and what was said."""
        copy = self.send_copy(machine)
        signed = machine.folder / f"signed-{len(list(machine.folder.glob('signed-*')))}.tx"
        return signed, machine.does(*words, "--ledger", copy, "--out", signed, "--json")

    def bring(self, machine: Machine, *words: object) -> dict[str, Any]:
        """Sign a command on a machine and submit it at the hospital; what it said when it signed."""
        signed, done = self.sign(machine, *words)
        self.hospital.does("submit", signed)
        return done.rows[0]

    def request(self) -> str:
        """Id of an open request by a confirmed node, all signed where the keys are."""
        study, tokens = self.node.index.studies()[0][0], self.research.folder / "tokens.json"
        self.bring(self.research, "nodes", "register", "RESEARCH1")
        self.bring(self.custodian, "nodes", "confirm", *NODE)
        self.hospital.does("studies", "--study", study, "--tokens", tokens, "--for", "ResearchMSP")
        asked = ("request", "--studies", tokens, "--node", "RESEARCH1", "--duo", "DUO:0000042", "--days", 30)
        return str(self.bring(self.research, *asked)["id"])


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `orthanc-ledger` in a folder."""
    run = runner(capsys)

    def run_in(folder: Path, words: tuple[object, ...]) -> Done:
        monkeypatch.chdir(folder)
        return run(*words)

    return run_in


@pytest.fixture
def parties(tmp_path: Path, command: Any) -> Parties:
    """Three machines; each party made its own keys, and the hospital holds one anchored object."""
    members: list[object] = []
    for role, msp_id in (("custodian", "CustodianMSP"), ("research", "ResearchMSP")):
        (tmp_path / f"{role}-machine").mkdir()
        made = command(tmp_path / f"{role}-machine", ("identity", "create", role, "--organisation", msp_id))
        assert made.code == 0
        members += ["--member", f"{role}={msp_id}:{tmp_path / f'{role}-machine' / role / 'cacerts' / 'ca.pem'}"]
    words = ("init", tmp_path / "hospital", "--key-backup", tmp_path / "node.key.backup", *members)
    assert command(tmp_path, words).code == 0
    made = Parties(*(Machine(tmp_path / n, command) for n in ("hospital", "custodian-machine", "research-machine")))
    store(made.node, real_file())
    drain(made.node)
    return made


class TestThreeMachines:
    def test_register_request_approve_release_revoke_all_through_files(self, parties: Parties) -> None:
        request = parties.request()
        study = parties.node.index.studies()[0][1]
        question = {"study": study, "node": dict(zip(("organisation", "aeTitle"), NODE, strict=True))}
        parties.bring(parties.custodian, "approve", request)
        assert not parties.node.ledger.query("CheckAccess", question)["permitted"]
        parties.hospital.does("approve", request, "--as", "owner")
        assert parties.node.ledger.query("CheckAccess", question)["permitted"]
        (row,) = parties.hospital.does("requests", "--json").rows
        assert (row["state"], row["approved_by"]) == ("approved", ["custodian", "owner"])
        parties.bring(parties.custodian, "revoke", request, "--reason", "completed")
        assert not parties.node.ledger.query("CheckAccess", question)["permitted"]
        by = [(row["function"], row["by"].split()[0]) for row in parties.hospital.does("audit", "--json").rows]
        assert by[2:] == [
            ("RegisterNode", "ResearchMSP"),
            ("ConfirmNode", "CustodianMSP"),
            ("RequestAccess", "ResearchMSP"),
            ("Approve", "CustodianMSP"),
            ("Approve", "HospitalMSP"),
            ("Revoke", "CustodianMSP"),
        ]

    def test_deny_and_a_node_s_revocation_go_through_files_too(self, parties: Parties) -> None:
        request = parties.request()
        parties.bring(parties.custodian, "deny", request, "--reason", "ethics")
        assert parties.hospital.does("requests", "--json").rows[0]["state"] == "denied"
        parties.bring(parties.research, "nodes", "revoke", *NODE, "--as", "research")
        assert parties.hospital.does("nodes", "--json").rows[0]["state"] == "revoked"

    def test_a_party_reads_its_copy_without_a_node(self, parties: Parties) -> None:
        request, copy = parties.request(), parties.send_copy(parties.custodian)
        (row,) = parties.custodian.does("requests", "--ledger", copy, "--json").rows
        assert (row["id"], row["purposes"], row["future"]) == (request, ["DUO:0000042 general research use"], False)
        assert parties.custodian.does("nodes", "--ledger", copy, "--json").rows[0]["state"] == "confirmed"
        assert len(parties.custodian.does("audit", "--ledger", copy, "--json").rows) == parties.size() - 1

    def test_the_approver_is_told_what_an_approval_gives(self, parties: Parties) -> None:
        request, copy = parties.request(), parties.send_copy(parties.custodian)
        said = parties.custodian.does("approve", request, "--ledger", copy, "--out", "signed.tx").out
        assert "ResearchMSP, its node RESEARCH1" in said
        assert "studies  1\n" in said
        assert "all images" in said
        assert "DUO:0000042 general research use" in said
        assert "identified, 30 days at most, only what is anchored when the last approval comes" in said
        assert "signed.tx: signed; it counts once `orthanc-ledger submit`" in said

    def test_the_approver_sees_which_studies_and_until_when(self, parties: Parties) -> None:
        request, uid, token = parties.request(), *parties.node.index.studies()[0][:2]
        assert token is not None
        (row,) = parties.hospital.does("requests", "--json").rows
        assert (row["study_tokens"], row["study_instance_uids"]) == ([token.hex()], [uid])
        (row,) = parties.custodian.does("requests", "--ledger", parties.send_copy(parties.custodian), "--json").rows
        assert (row["study_tokens"], row["missing"]) == ([token.hex()], ["owner", "custodian"])
        signed, done = parties.sign(parties.custodian, "approve", request)
        until = read_transaction(signed).args["until"]
        assert datetime.fromisoformat(done.rows[0]["signed_until"]).timestamp() == until
        said = parties.hospital.does("approve", request).out
        assert f"{token.hex()} {uid}\n" in said
        assert "\nuntil    2" in said

    def test_a_study_that_the_node_does_not_hold_is_called_so(self, parties: Parties) -> None:
        parties.bring(parties.research, "nodes", "register", "RESEARCH1")
        parties.bring(parties.custodian, "nodes", "confirm", *NODE)
        other = {"for": NODE[0], "studies": ["ab" * 16]}
        (parties.research.folder / "swapped.json").write_text(json.dumps(other))
        asked = parties.bring(parties.research, "request", "--studies", "swapped.json", "--node", "RESEARCH1")
        assert f"{'ab' * 16} not held here\n" in parties.hospital.does("approve", asked["id"]).out

    def test_the_hospital_s_people_sign_as_owner_unless_told_otherwise(self, parties: Parties) -> None:
        parties.hospital.does("approve", parties.request())
        assert parties.hospital.does("requests", "--json").rows[0]["approved_by"] == ["owner"]
        assert parties.hospital.does("requests").out.splitlines()[-1].endswith("owner        custodian")

    def test_a_proposal_is_read_before_it_is_confirmed(self, parties: Parties) -> None:
        proposal = parties.hospital.does("policy", "propose", "--set", "max_days=90", "--json").rows[0]["id"]
        copy = parties.send_copy(parties.custodian)
        assert "max_days: 365 → 90" in parties.custodian.does("pending", "--ledger", copy).out
        words = ("policy", "confirm", proposal, "--ledger", copy, "--out", "confirm.tx")
        assert parties.custodian.does(*words).out.startswith("max_days: 365 → 90\n")

    def test_a_signer_whose_clock_is_ahead_asks_for_no_more_than_the_days(
        self, parties: Parties, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request, now = parties.request(), time.time()
        monkeypatch.setattr(time, "time", lambda: now + 250)
        signed, _ = parties.sign(parties.custodian, "approve", request)
        monkeypatch.setattr(time, "time", lambda: now)
        assert parties.hospital.run("submit", signed).code == 0

    def test_without_copy_and_configuration_a_party_is_told_what_to_give(self, parties: Parties) -> None:
        for words in (("requests",), ("approve", "00" * 32)):
            done = parties.custodian.run(*words)
            assert done.code == 2
            assert "no node's configuration here; without a node name it with --ledger" in done.err


class TestDatasets:
    """A research centre asks by dataset, from its copy of the ledger."""

    @pytest.fixture
    def dataset(self, parties: Parties) -> str:
        """Id of a dataset of three versions, the last one withdrawn; the research centre's node is confirmed."""
        dataset_id = bytes(range(16))
        for version, count in ((1, 10), (2, 20), (3, 30)):
            digests = {"root": bytes(32), "descriptorDigest": bytes(32)}
            args = {"id": dataset_id, "version": version, "count": count, "duo": [], **digests}
            parties.node.ledger.submit("RegisterDataset", args)
        parties.node.ledger.submit("WithdrawDataset", {"id": dataset_id, "version": 3})
        parties.bring(parties.research, "nodes", "register", "RESEARCH1")
        parties.bring(parties.custodian, "nodes", "confirm", *NODE)
        return dataset_id.hex()

    def ask(self, parties: Parties, *words: object) -> Done:
        copy = parties.send_copy(parties.research)
        where = ("--node", "RESEARCH1", "--ledger", copy, "--out", "ask.tx")
        return parties.research.run("request", *words, *where)

    @pytest.mark.parametrize(("named", "version", "count"), [("", 2, 20), (":1", 1, 10)])
    def test_the_newest_version_that_stands_unless_one_is_named(
        self, parties: Parties, dataset: str, named: str, version: int, count: int
    ) -> None:
        asked = self.ask(parties, "--dataset", dataset + named)
        assert (asked.code, f"studies  {count}, dataset {dataset}:{version}\n" in asked.out) == (0, True)
        parties.hospital.does("submit", parties.research.folder / "ask.tx")
        (row,) = parties.hospital.does("requests", "--json").rows
        assert (row["studies"], row["dataset"], row["organisation"]) == (None, f"{dataset}:{version}", NODE[0])

    @pytest.mark.parametrize("named", ["{}:4", "{}:x", "00" * 16])
    def test_a_dataset_that_is_not_on_the_ledger_is_named(self, parties: Parties, dataset: str, named: str) -> None:
        done = self.ask(parties, "--dataset", named.format(dataset))
        assert done.code == 2
        assert "no such dataset stands; `orthanc-ledger datasets` lists them" in done.err

    def test_a_withdrawn_version_is_refused(self, parties: Parties, dataset: str) -> None:
        done = self.ask(parties, "--dataset", f"{dataset}:3")
        assert done.code == 2
        assert "WRONG_STATE dataset" in done.err

    def test_a_request_names_either_studies_or_a_dataset(self, parties: Parties) -> None:
        for words in ((), ("--dataset", "00" * 16, "--studies", "tokens.json")):
            assert self.ask(parties, *words).code == 2
        assert not (parties.research.folder / "ask.tx").exists()


class TestCopy:
    def test_a_copy_is_one_file_of_its_owner_that_needs_no_writing(self, parties: Parties) -> None:
        held = EmbeddedLedger(parties.ledger)  # as the running node
        folder = parties.custodian.folder / "stick"
        folder.mkdir()
        (row,) = parties.hospital.does("ledger", "copy", folder / "copy.db", "--json").rows
        checkpoint = held.checkpoint()
        held.close()
        assert (row["size"], row["root"]) == (checkpoint.size, checkpoint.root.hex())
        assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
        (folder / "copy.db").chmod(0o400)
        parties.custodian.does("nodes", "--ledger", folder / "copy.db")
        assert [path.name for path in folder.iterdir()] == ["copy.db"]

    def test_its_reader_can_check_it_whole(self, parties: Parties) -> None:
        parties.request()
        copy = parties.custodian.folder / "copy.db"
        (row,) = parties.hospital.does("ledger", "copy", copy, "--json").rows
        parties.custodian.does("fsck", "--ledger", copy, "--checkpoint", f"{row['size']}:{row['root']}")

    def test_a_file_that_exists_is_not_overwritten(self, parties: Parties) -> None:
        taken = parties.custodian.folder / "taken"
        taken.write_text("something else")
        done = parties.hospital.run("ledger", "copy", taken)
        assert (done.code, taken.read_text()) == (2, "something else")
        assert "name a new file" in done.err

    def test_a_copy_that_fails_leaves_nothing(self, parties: Parties, tmp_path: Path) -> None:
        gc.collect()  # ends the connections of what ran, and with them the WAL
        content = parties.ledger.read_bytes()
        parties.ledger.write_bytes(content[:4096] + b"?" * (len(content) - 4096))  # all pages but the schema's
        done = parties.hospital.run("ledger", "copy", tmp_path / "copy.db")
        assert (done.code, (tmp_path / "copy.db").exists()) == (3, False)
        assert "malformed" in done.err


class TestSigning:
    def test_nothing_is_appended_to_a_copy(self, parties: Parties) -> None:
        copy = parties.send_copy(parties.research)
        before = copy.read_bytes()
        done = parties.research.run("nodes", "register", "RESEARCH1", "--ledger", copy)
        assert (done.code, copy.read_bytes()) == (2, before)
        assert "--ledger FILE needs --out FILE" in done.err

    def test_a_signed_file_is_never_overwritten(self, parties: Parties) -> None:
        signed, _ = parties.sign(parties.research, "nodes", "register", "RESEARCH1")
        before = signed.read_bytes()
        copy = parties.send_copy(parties.research)
        done = parties.research.run("nodes", "register", "RESEARCH2", "--ledger", copy, "--out", signed)
        assert (done.code, signed.read_bytes()) == (2, before)
        assert "exists already; name another file" in done.err

    def test_what_the_copy_refuses_is_not_signed(self, parties: Parties) -> None:
        copy = parties.send_copy(parties.research)
        words = ("nodes", "revoke", "ResearchMSP", "RESEARCH9", "--as", "research", "--ledger", copy, "--out", "no.tx")
        done = parties.research.run(*words)
        assert done.code == 2
        assert "the ledger refused RevokeNode: NOT_FOUND node" in done.err
        assert "or this copy is too old: take a new one" in done.err
        assert not (parties.research.folder / "no.tx").exists()

    def test_what_is_signed_changes_neither_copy_nor_ledger(self, parties: Parties) -> None:
        copy = parties.send_copy(parties.research)
        before, size = copy.read_bytes(), parties.size()
        done = parties.research.does("nodes", "register", "RESEARCH1", "--ledger", copy, "--out", "new.tx", "--json")
        assert (copy.read_bytes(), parties.size()) == (before, size)
        assert (done.rows[0]["state"], done.rows[0]["file"]) == ("signed", "new.tx")

    def test_the_node_s_own_people_may_sign_into_a_file_as_well(self, parties: Parties) -> None:
        request, size = parties.request(), parties.size()
        parties.hospital.does("approve", request, "--as", "owner", "--out", "owner.tx")
        assert parties.size() == size
        parties.hospital.does("submit", "owner.tx")
        assert parties.hospital.does("requests", "--json").rows[0]["approved_by"] == ["owner"]

    def test_an_identity_of_nobody_on_this_ledger_is_refused(self, parties: Parties) -> None:
        parties.research.does("identity", "create", "stranger", "--organisation", "ResearchMSP")
        copy = parties.send_copy(parties.research)
        words = ("nodes", "register", "RESEARCH1", "--as", "stranger", "--ledger", copy, "--out", "no.tx")
        done = parties.research.run(*words)
        assert done.code == 2
        assert "no organisation on this ledger issued this identity's certificate" in done.err

    def test_nothing_is_signed_on_a_doctored_copy(self, parties: Parties) -> None:
        request, copy = parties.request(), parties.send_copy(parties.custodian)
        with closing(sqlite3.connect(copy)) as database, database:
            (value,) = database.execute("SELECT value FROM state WHERE key = ?", (f"request/{request}",)).fetchone()
            shown = dag_cbor.encode({**dag_cbor.decode(value), "days": 3})
            database.execute("UPDATE state SET value = ? WHERE key = ?", (shown, f"request/{request}"))
        done = parties.custodian.run("approve", request, "--ledger", copy, "--out", "no.tx")
        assert (done.code, done.out, (parties.custodian.folder / "no.tx").exists()) == (2, "", False)
        assert "nothing is signed on it, as it was changed (state row changed" in done.err


class TestSubmit:
    @pytest.fixture
    def signed(self, parties: Parties) -> Path:
        """A signed registration."""
        return parties.sign(parties.research, "nodes", "register", "RESEARCH1")[0]

    def test_a_repeat_is_the_first_entry_again(self, parties: Parties, signed: Path) -> None:
        (first,) = parties.hospital.does("submit", signed, "--json").rows
        assert (first["function"], first["position"]) == ("RegisterNode", parties.size() - 1)
        parties.bring(parties.custodian, "nodes", "confirm", *NODE)
        assert parties.hospital.does("submit", signed, "--json").rows == [first]

    def test_several_files_go_in_their_order(self, parties: Parties, signed: Path) -> None:
        other, _ = parties.sign(parties.research, "nodes", "register", "RESEARCH2")
        rows = parties.hospital.does("submit", other, signed, "--json").rows
        assert [row["file"] for row in rows] == [str(other), str(signed)]
        assert rows[0]["position"] < rows[1]["position"]

    @pytest.mark.parametrize("length", [0, 1, 100, -1])
    def test_a_file_cut_short_is_named_and_nothing_is_appended(
        self, parties: Parties, signed: Path, length: int
    ) -> None:
        other, _ = parties.sign(parties.research, "nodes", "register", "RESEARCH2")
        signed.write_bytes(signed.read_bytes()[:length])
        size = parties.size()
        done = parties.hospital.run("submit", other, signed)
        assert (done.code, parties.size()) == (2, size)
        assert f"{signed}: no signed transaction, or damaged on its way: have it sent again" in done.err

    def test_no_changed_byte_gets_in(self, parties: Parties, signed: Path) -> None:
        content, size = signed.read_bytes(), parties.size()
        for place in range(0, len(content), 7):
            signed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert parties.hospital.run("submit", signed).code == 2, f"byte {place}"
        assert parties.size() == size

    def test_another_call_under_the_signature_is_refused(self, parties: Parties, signed: Path) -> None:
        signed.write_bytes(signed.read_bytes().replace(b"RESEARCH1", b"RESEARCH2"))
        done = parties.hospital.run("submit", signed)
        assert done.code == 2
        assert "NOT_PERMITTED signature" in done.err
        assert "it was changed after it was signed, or damaged on its way" in done.err

    def test_another_time_beside_the_signed_one_is_refused(self, parties: Parties, signed: Path) -> None:
        stamp = sign(load_identity(parties.research.folder / "research/identities/person"), b"", "", {}, b"", 0)
        signed.write_bytes(stamp.entry(1))
        done = parties.hospital.run("submit", signed)
        assert done.code == 2
        assert "expected the signer's time 0, got 1" in done.err

    def test_a_file_signed_for_another_ledger_is_refused(self, parties: Parties, signed: Path, tmp_path: Path) -> None:
        words = ("init", tmp_path / "other", "--key-backup", tmp_path / "other.key", "--all-roles")
        parties.hospital.does(*words)
        done = parties.hospital.run("--config", tmp_path / "other" / CONFIG_NAME, "submit", signed)
        assert done.code == 2
        assert "it was signed for another ledger: sign it against a copy of this one" in done.err

    @pytest.mark.parametrize("late_s", [7 * DAY_S + 10, -310])
    def test_a_file_too_old_or_from_the_future_is_refused(self, parties: Parties, late_s: int) -> None:
        person, old = parties.research.folder / "research/identities/person", parties.research.folder / "old.tx"
        args = {"aeTitle": "RESEARCH1", "role": "research", "certDigests": []}
        with closing(EmbeddedLedger(parties.ledger)) as ledger:
            log_id = ledger.log_id
        signed_at = int(time.time()) - late_s
        write_transaction(old, sign(load_identity(person), log_id, "RegisterNode", args, bytes(16), signed_at))
        done = parties.hospital.run("submit", old)
        assert done.code == 2
        assert "SKEW time" in done.err
        assert "for 7 days: have it signed anew, by a right clock" in done.err

    def test_what_the_contract_refuses_by_now_says_what_to_do(self, parties: Parties) -> None:
        request = parties.request()
        approval, _ = parties.sign(parties.custodian, "approve", request)
        parties.bring(parties.custodian, "deny", request)
        done = parties.hospital.run("submit", approval)
        assert done.code == 2
        assert (
            f"the ledger refused {approval} (Approve): WRONG_STATE denied; `requests`, `nodes`, `standing` and"
            in done.err
        )

    @pytest.mark.parametrize("words", [("submit", "none.tx"), ("ledger", "copy", "copy.db")])
    def test_away_from_the_node_no_option_is_named_that_is_not_there(
        self, parties: Parties, signed: Path, words: tuple[str, ...]
    ) -> None:
        shutil.copy(signed, parties.custodian.folder / "none.tx")
        done = parties.custodian.run(*words)
        assert done.code == 2
        assert "no node's configuration here; name it with --config\n" in done.err

    def test_a_file_that_is_not_there_is_named(self, parties: Parties) -> None:
        done = parties.hospital.run("submit", "none.tx")
        assert done.code == 2
        assert "none.tx: cannot be read" in done.err


class TestKeysOfOthers:
    """Keys of another organisation brought to the hospital's machine."""

    @pytest.fixture(autouse=True)
    def serve_starts_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "supervise", lambda *_: None)

    @pytest.fixture
    def request_id(self, parties: Parties) -> str:
        return parties.request()

    def refuses(self, parties: Parties, request: str, *words: object) -> None:
        size = parties.size()
        done = parties.hospital.run("approve", request, *words)
        assert (done.code, parties.size()) == (2, size)
        assert "an identity of CustodianMSP, but this machine is HospitalMSP's: sign on theirs with --out" in done.err

    def is_seen(self, parties: Parties, path: str) -> None:
        """`serve` does not start, and `status` names the key."""
        stopped = parties.hospital.run("serve")
        assert stopped.code == 2
        assert f"{parties.hospital.folder / path}: a private key of CustodianMSP" in stopped.err
        status = parties.hospital.run("status", "--json")
        assert status.code == 1
        assert any(str(parties.hospital.folder / path) in alarm["text"] for alarm in status.rows[0]["alarms"])

    def test_named_by_its_folder(self, parties: Parties, request_id: str) -> None:
        self.refuses(parties, request_id, "--as", parties.custodian.folder / "custodian")
        self.refuses(parties, request_id, "--as", parties.custodian.folder / "custodian" / "identities" / "person")

    def test_copied_into_the_custodian_s_place(self, parties: Parties, request_id: str) -> None:
        shutil.copytree(parties.custodian.folder / "custodian", parties.hospital.folder / "organisations" / "custodian")
        self.refuses(parties, request_id, "--as", "custodian")
        self.is_seen(parties, "organisations/custodian/identities/person/keystore/key.pem")
        self.is_seen(parties, "organisations/custodian/keystore/key.pem")  # the CA's

    def test_linked_into_the_custodian_s_place(self, parties: Parties, request_id: str) -> None:
        (parties.hospital.folder / "organisations" / "custodian").symlink_to(parties.custodian.folder / "custodian")
        (parties.custodian.folder / "custodian" / "up").symlink_to(parties.hospital.folder / "organisations")
        self.refuses(parties, request_id, "--as", "custodian")
        self.is_seen(parties, "organisations/custodian/identities/person/keystore/key.pem")

    def test_under_the_hospital_s_own_msp_id(self, parties: Parties, request_id: str) -> None:
        place = parties.hospital.folder / "organisations" / "owner" / "identities" / "person-2"
        shutil.copytree(parties.custodian.folder / "custodian" / "identities" / "person", place)
        (place / "msp.yaml").write_text("msp_id: HospitalMSP\n")
        self.refuses(parties, request_id, "--as", place)
        self.is_seen(parties, "organisations/owner/identities/person-2/keystore/key.pem")

    def test_under_other_names(self, parties: Parties) -> None:
        person = parties.custodian.folder / "custodian" / "identities" / "person"
        shutil.copy(person / "keystore" / "key.pem", parties.hospital.folder / "organisations" / "notes.txt")
        shutil.copy(person / "signcerts" / "cert.pem", parties.hospital.folder / "organisations" / "owner" / "more")
        self.is_seen(parties, "organisations/notes.txt")

    def test_a_ca_s_key_alone(self, parties: Parties) -> None:
        key = parties.custodian.folder / "custodian" / "keystore" / "key.pem"
        shutil.copy(key, parties.hospital.folder / "organisations" / "owner")
        self.is_seen(parties, "organisations/owner/key.pem")

    def test_as_the_node_s_identity(self, parties: Parties) -> None:
        config = parties.hospital.folder / CONFIG_NAME
        settings = yaml.safe_load(config.read_text())
        settings["identity"] = str(parties.custodian.folder / "custodian" / "identities" / "node")
        config.write_text(yaml.safe_dump(settings))
        self.is_seen(parties, settings["identity"] + "/keystore/key.pem")

    def test_through_the_ledger_s_file_past_the_configuration(self, parties: Parties, request_id: str) -> None:
        folder = parties.custodian.folder / "custodian"
        self.refuses(parties, request_id, "--as", folder, "--ledger", parties.ledger, "--out", "approve.tx")

    def test_the_own_ca_may_lie_there(self, parties: Parties) -> None:
        assert (parties.hospital.folder / "organisations" / "owner" / "keystore" / "key.pem").exists()
        assert parties.hospital.run("status", "--json").rows[0]["alarms"] == []

    def test_a_trial_may_hold_all(self, parties: Parties, tmp_path: Path) -> None:
        words = ("init", tmp_path / "trial", "--key-backup", tmp_path / "trial.key", "--all-roles")
        parties.hospital.does(*words)
        config = tmp_path / "trial" / CONFIG_NAME
        assert load(config).all_roles
        parties.hospital.does("--config", config, "nodes", "register", "RESEARCH1", "--as", "research")
        assert parties.hospital.run("--config", config, "status", "--json").rows[0]["alarms"] == []


def test_a_key_under_a_passphrase_signs_only_with_it(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    said = parties.custodian.folder / "passphrase"
    said.write_text("correct horse battery staple\n")
    monkeypatch.setenv("ORTHANC_LEDGER_IDENTITY_PASSPHRASE_FILE", str(said))
    parties.custodian.does("identity", "issue", "custodian", "person-2", "--passphrase")
    request = parties.request()
    approve = ("approve", request, "--as", "custodian/identities/person-2")
    parties.bring(parties.custodian, *approve)
    said.write_text("another\n")
    copy, out = parties.send_copy(parties.custodian), parties.custodian.folder / "again.tx"
    refused = parties.custodian.run(*approve, "--ledger", copy, "--out", out)
    assert refused.code == 2
    assert "under this passphrase" in refused.err

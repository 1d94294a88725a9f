"""`checkpoint`, `verify-checkpoints` and what `status` says of sinks: on the terminal, by exit code, offline."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, runner
from conftest import wait_until
from damage import flip
from live_node import make_live_node
from node_make import drain, make_node, open_node, real_file, store

from orthanc_ledger.assemble import Node
from orthanc_ledger.ledger.checkpoint import open_note
from orthanc_ledger.ledger.identity import ca_certificate, create_organisation, issue
from orthanc_ledger.setup_node import CONFIG_NAME, create_checkpoint_key
from orthanc_ledger.sinks import kept


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs `orthanc-ledger` with the configuration of the node in tmp_path."""
    return runner(capsys, "--config", tmp_path / "node" / CONFIG_NAME)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with all organisations' keys, whose ledger has two entries."""
    return make_node(tmp_path)


def ca_file(node: Node, role: str = "owner") -> Path:
    return node.config.data_dir.parent / "organisations" / role / "cacerts" / "ca.pem"


def configure(tmp_path: Path, **settings: Any) -> Node:
    with (tmp_path / "node" / CONFIG_NAME).open("a") as config:
        config.writelines(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
    return open_node(tmp_path)


class TestCheckpoint:
    def test_it_prints_a_note_of_the_ledger_as_it_is(self, run: Command, node: Node) -> None:
        done = run("checkpoint")
        with closing(node.ledger_as()) as ledger:
            note = open_note(done.out, ledger.log_id, {"owner": ca_certificate(ca_file(node).parent.parent)})
            assert (done.code, note.checkpoint) == (0, ledger.checkpoint())

    def test_another_organisation_may_sign_it(self, run: Command, node: Node, tmp_path: Path) -> None:
        assert run("checkpoint", "--as", "custodian", "--out", tmp_path / "note").code == 0
        assert run("verify-checkpoints", tmp_path / "note", "--trust", ca_file(node, "custodian")).code == 0
        done = run("verify-checkpoints", tmp_path / "note", "--trust", ca_file(node), "--json")
        assert (done.code, done.rows[0]["state"]) == (1, "DAMAGED")
        assert f"not under --trust {ca_file(node)}" in done.rows[0]["detail"]

    def test_a_file_that_is_there_is_not_overwritten(self, run: Command, node: Node, tmp_path: Path) -> None:
        (tmp_path / "note").write_text("older")
        done = run("checkpoint", "--out", tmp_path / "note")
        assert (done.code, (tmp_path / "note").read_text()) == (2, "older")
        assert "cannot be written: File exists; name a new file" in done.err


class TestGrowth:
    @pytest.fixture
    def proved(self, run: Command, node: Node, tmp_path: Path) -> Path:
        """A file that proves that the ledger grew from two entries to three."""
        run("checkpoint", "--out", tmp_path / "old")
        store(node, real_file())
        drain(node)
        assert run("checkpoint", "--from", tmp_path / "old", "--out", tmp_path / "proved").code == 0
        return tmp_path / "proved"

    def test_it_is_proved_and_checked_without_the_ledger(self, run: Command, node: Node, proved: Path) -> None:
        ca = ca_file(node).rename(proved.with_name("ca.pem"))
        node.config.data_dir.rename(proved.with_name("away"))
        done = run("verify-checkpoints", proved, "--trust", ca, "--json")
        assert done.code == 0
        assert [(row["what"], row["state"], row.get("size")) for row in done.rows] == [
            ("from", "verified", 2),
            ("to", "verified", 3),
            ("proof", "verified", None),
        ]
        assert {row.get("trust") for row in done.rows} == {str(ca), None}
        assert "the first 2 entries are the same, 1 were added" in run("verify-checkpoints", proved, "--trust", ca).out

    @pytest.mark.parametrize(
        "change",
        [
            lambda proved: {**proved, "proof": proved["proof"][:-1]},
            lambda proved: {**proved, "proof": [*proved["proof"], "00" * 32]},
            lambda proved: {**proved, "proof": ["00" * 32 for _ in proved["proof"]]},
            lambda proved: {**proved, "from": proved["to"], "to": proved["from"]},
            lambda proved: {**proved, "to": proved["to"].replace("\n3\n", "\n4\n")},
            lambda proved: {"from": proved["from"], "to": proved["to"]},
            lambda proved: {**proved, "proof": "none"},
            lambda proved: {**proved, "proof": [1]},
            lambda proved: {**proved, "from": 1},
        ],
    )
    def test_a_changed_proof_is_told(
        self, run: Command, node: Node, proved: Path, change: Callable[[Any], object]
    ) -> None:
        proved.write_text(json.dumps(change(json.loads(proved.read_text()))))
        done = run("verify-checkpoints", proved, "--trust", ca_file(node), "--json")
        assert (done.code, [row["state"] for row in done.rows]) == (1, ["DAMAGED"])

    def test_a_ledger_that_was_put_back_cannot_prove_it(
        self, run: Command, node: Node, proved: Path, tmp_path: Path
    ) -> None:
        run("checkpoint", "--out", tmp_path / "newest")
        node.ledger.close()
        with closing(sqlite3.connect(node.config.data_dir / "ledger.db")) as ledger, ledger:
            for table in ("entries", "state"):
                ledger.execute(f"DELETE FROM {table} WHERE position = 2")
            ledger.execute("DELETE FROM subtrees WHERE level = 0 AND number = 2")
        done = run("checkpoint", "--from", tmp_path / "newest")
        assert done.code == 1
        assert "this ledger does not continue it: a checkpoint of 3 entries was signed, the log has 2" in done.out

    def test_what_is_no_checkpoint_is_named(self, run: Command, node: Node, tmp_path: Path) -> None:
        (tmp_path / "bytes").write_bytes(b"\xff")
        for words, says in (
            (("checkpoint", "--from", tmp_path / "none"), "none: cannot be read"),
            (("verify-checkpoints", tmp_path / "bytes", "--trust", ca_file(node)), "bytes: cannot be read"),
            (("verify-checkpoints", tmp_path / "x", "--trust", tmp_path / "bytes"), "bytes: not an X.509 certificate"),
        ):
            done = run(*words)
            assert (done.code, says in done.err) == (2, True)
        done = run("checkpoint", "--from", ca_file(node))
        assert (done.code, "expected a signed note" in done.out) == (1, True)


class TestSecondKey:
    """Checkpoints with an ML-DSA key, and those of who has broken ECDSA: a note that its first key alone signed."""

    @pytest.fixture
    def kept_before(self, run: Command, node: Node, tmp_path: Path) -> Path:
        """A sink's folder with a checkpoint of before there was a second key."""
        (tmp_path / "sink").mkdir()
        assert run("checkpoint", "--as", node.config.identity, "--out", tmp_path / "sink" / f"{2:020d}").code == 0
        return tmp_path / "sink"

    @pytest.fixture
    def trust(self, run: Command, node: Node, kept_before: Path) -> Path:
        """The trust file of the node, which has a second key from now on; its ledger grew by an entry."""
        done = run("identity", "ml-dsa", node.config.identity, "--json")
        assert done.code == 0
        store(node, real_file())
        drain(node)
        return Path(done.row["trust"])

    def one_key(self, path: Path) -> Path:
        """A note as it was before the second signature."""
        lines = path.read_text().splitlines(keepends=True)
        forged = path.with_name("forged")
        forged.write_text("".join(lines[:-1]))
        return forged

    def test_who_has_the_trust_file_takes_both_signatures_and_nothing_less(
        self, run: Command, node: Node, trust: Path, tmp_path: Path
    ) -> None:
        assert run("checkpoint", "--as", node.config.identity, "--out", tmp_path / "note").code == 0
        done = run("verify-checkpoints", tmp_path / "note", "--trust", trust, "--json")
        assert (done.code, done.row["ml_dsa"]) == (0, True)
        assert run("verify-checkpoints", tmp_path / "note", "--trust", ca_file(node)).code == 0
        forged = self.one_key(tmp_path / "note")
        assert run("verify-checkpoints", forged, "--trust", ca_file(node)).code == 0
        done = run("verify-checkpoints", forged, "--trust", trust)
        assert (done.code, "no ML-DSA signature of a key that is trusted" in done.out) == (1, True)

    def test_a_proof_of_growth_needs_both_at_both_ends(
        self, run: Command, node: Node, trust: Path, kept_before: Path, tmp_path: Path
    ) -> None:
        signer = ("--as", node.config.identity)
        run("checkpoint", *signer, "--out", tmp_path / "note")
        for older, code in ((tmp_path / "note", 0), (next(kept_before.iterdir()), 1)):
            proved = tmp_path / f"proved{code}"
            assert run("checkpoint", *signer, "--from", older, "--out", proved).code == 0
            assert run("verify-checkpoints", proved, "--trust", trust).code == code

    @pytest.mark.parametrize("command", [("fsck",), ("verify", "--log-only")])
    def test_a_checkpoint_of_before_counts_where_a_larger_one_by_both_covers_it(
        self, run: Command, node: Node, trust: Path, kept_before: Path, command: tuple[str, ...]
    ) -> None:
        configure(node.config.data_dir.parent.parent, checkpoint_sinks=[f"path:{kept_before}"])
        assert run(*command).code == 1
        run("checkpoint", "--as", node.config.identity, "--out", kept_before / f"{3:020d}")
        done = run(*command)
        assert (done.code, "compared with 2 checkpoints" in done.out) == (0, True)
        forged = self.one_key(kept_before / f"{3:020d}").rename(kept_before / f"{4:020d}")
        assert run(*command).code == 1
        (kept_before / f"{3:020d}").unlink()
        assert (run(*command).code, forged.exists()) == (1, True)

    def test_who_has_a_copy_says_by_the_trust_file_what_a_checkpoint_needs(
        self, run: Command, node: Node, trust: Path, tmp_path: Path
    ) -> None:
        run("checkpoint", "--as", node.config.identity, "--out", tmp_path / "note")
        fsck = ("fsck", "--ledger", node.config.data_dir / "ledger.db", "--checkpoint")
        assert run(*fsck, tmp_path / "note", "--trust", trust).code == 0
        forged = self.one_key(tmp_path / "note")
        assert (run(*fsck, forged).code, run(*fsck, forged, "--trust", trust).code) == (0, 1)
        create_organisation(tmp_path / "other", "OtherMSP")
        other = create_checkpoint_key(issue(tmp_path / "other", "node", "node"))
        done = run(*fsck, tmp_path / "note", "--trust", other)
        assert (done.code, "no organisation on it has the CA certificate" in done.err) == (2, True)


class TestStatus:
    def test_without_a_sink_a_rollback_is_not_detectable_which_is_exit_4(self, run: Command, node: Node) -> None:
        done = run("status")
        assert (done.code, "rollback not detectable" in done.out) == (4, True)

    def test_an_alarm_goes_before_that(self, run: Command, node: Node) -> None:
        node.outbox.alarm("integrity", "claim", "an object differs")
        done = run("status")
        assert (done.code, "rollback not detectable" in done.out) == (1, True)

    def test_it_says_what_each_sink_covers_and_what_is_final(self, run: Command, node: Node, tmp_path: Path) -> None:
        urls = [f"path:{tmp_path / 'near'}", f"path:{tmp_path / 'far'}"]
        for url in urls:
            Path(url.removeprefix("path:")).mkdir()
        node = configure(tmp_path, checkpoint_sinks=urls, alarm_sinks=["command:true"])
        nothing_kept = run("status", "--json")
        before = nothing_kept.rows[0]
        assert nothing_kept.code == 4
        assert (before["final_entries"], [sink["covered"] for sink in before["checkpoints"]]) == (0, [0, 0])
        courier = node.courier()
        deliveries = courier.begin()
        for delivery in deliveries:
            delivery.deliver()
        (tmp_path / "far").rmdir()
        courier.look()
        for delivery in deliveries:
            delivery.deliver()
        done = run("status", "--json")
        near, far = done.rows[0]["checkpoints"]
        assert (done.code, done.rows[0]["final_entries"], done.rows[0]["ledger_entries"]) == (0, 0, 2)
        assert (near["covered"], near["error"], near["waiting_s"], near["age_s"] >= 0) == (2, None, None, True)
        assert (far["covered"], "No such file" in far["error"], far["waiting_s"] >= 0) == (0, True, True)
        lines = run("status").out
        assert f"CHECKPOINTS {urls[0]}: checkpoint of 2 entries, " in lines
        assert f"CHECKPOINTS {urls[1]}: no checkpoint yet; something waits since " in lines
        assert "ALARMS TO command:true\n" in lines

    def test_a_ledger_put_back_while_the_courier_is_down_is_an_alarm(
        self, run: Command, node: Node, tmp_path: Path
    ) -> None:
        (tmp_path / "sink").mkdir()
        ledger_file = node.config.data_dir / "ledger.db"
        with closing(sqlite3.connect(ledger_file)) as ledger, closing(sqlite3.connect(tmp_path / "old")) as old:
            ledger.backup(old)
        node = configure(tmp_path, checkpoint_sinks=[f"path:{tmp_path / 'sink'}"])
        store(node, real_file())
        drain(node)
        courier = node.courier()
        (delivery,) = courier.begin()
        delivery.deliver()
        courier.look()
        delivery.deliver()
        assert run("status").code == 0
        node.ledger.close()
        for path in ledger_file.parent.glob("ledger.db*"):
            path.unlink()
        (tmp_path / "old").rename(ledger_file)
        done = run("status")
        assert done.code == 1
        assert "ledger rolled back: now: a checkpoint of 3 entries was signed, the log has 2" in done.out

    def test_without_the_ledgers_file_the_table_is_there_and_says_so(self, run: Command, node: Node) -> None:
        node.ledger.close()
        (node.config.data_dir / "ledger.db").unlink()
        done = run("status", "--json")
        assert (done.code, done.row["ledger_entries"]) == (3, None)
        assert (
            done.row["ledger"] == f"away: {node.config.data_dir / 'ledger.db'}: not there: mount its disk or restore it"
        )


def test_a_running_node_brings_checkpoints_and_alarms_to_its_sinks(
    tmp_path: Path, free_port: Callable[[], int], samples_dir: Path
) -> None:
    (tmp_path / "kept").mkdir()
    told = tmp_path / "told"
    live = make_live_node(
        tmp_path,
        free_port,
        checkpoint_sinks=[f"path:{tmp_path / 'kept'}"],
        checkpoint_within_s=1,
        alarm_sinks=[f"command:sh -c 'cat >> {told}'"],
    )
    live.start()
    try:
        first = next((samples_dir / "siemens-skyra").rglob("*.dcm"))
        assert live.store(first) == [0]
        live.wait_anchored(1)
        wait_until(lambda: live.status()["final_entries"] == 3, 60, "the anchor is final")
        live.stop()
        largest = next(kept(f"path:{tmp_path / 'kept'}"))
        (ledger_row,) = live.rows("verify", "--log-only")
        assert f"\n{ledger_row['size']}\n" in largest
        (stored,) = (tmp_path / "node" / "data" / "objects" / "objects").glob("*/*")
        flip(stored)
        live.start()
        live.command("sweep", code=1)
        wait_until(lambda: told.exists() and "NODE " in told.read_text(), 60, "the alarm is told")
        assert "integrity: " in told.read_text()
    finally:
        live.stop()

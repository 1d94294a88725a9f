"""`orthanc-ledger account`: who is in the file, under what, and who may read it."""

import json
from pathlib import Path

import pytest
from command_line import Command, runner
from node_make import make_node

from orthanc_ledger.assemble import Node
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.identity import issue
from orthanc_ledger.setup_node import CONFIG_NAME
from orthanc_ledger.web.console.accounts import SHORTEST, Accounts

PASSWORD = "several words are easy to keep"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose configuration has a console."""
    made = make_node(tmp_path)
    with (tmp_path / "node" / CONFIG_NAME).open("a") as config:
        config.write("console: {accounts: console.accounts}\n")
    return made


@pytest.fixture
def on(capsys: pytest.CaptureFixture[str], tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `orthanc-ledger` on it, where a password is in a file."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("ORTHANC_LEDGER_PASSWORD_FILE", str(tmp_path / "password"))
    return runner(capsys, "--config", node.config.data_dir.parent / CONFIG_NAME)


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    return tmp_path / "node" / "console.accounts"


def test_an_account_is_added_listed_and_removed(on: Command, accounts: Path) -> None:
    assert on("account", "list", "--json").rows == []
    assert on("account", "add", "reader", "--role", "staff").code == 0
    assert on("account", "add", "boss", "--role", "approver", "--role", "auditor").out == "boss: approver, auditor\n"
    rows = on("account", "list", "--json").rows
    assert [(row["name"], row["roles"]) for row in rows] == [("boss", ["approver", "auditor"]), ("reader", ["staff"])]
    assert on("account", "remove", "boss").code == 0
    assert [row["name"] for row in on("account", "list", "--json").rows] == ["reader"]


def test_the_file_is_its_owners_and_holds_no_password(on: Command, accounts: Path) -> None:
    on("account", "add", "reader", "--role", "staff")
    on("account", "add", "other", "--role", "staff")
    assert accounts.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in accounts.read_text()
    rows = json.loads(accounts.read_text())["accounts"]
    assert rows["reader"]["digest"] != rows["other"]["digest"], "one password, two salts"


def test_a_password_is_changed(on: Command, accounts: Path, tmp_path: Path) -> None:
    on("account", "add", "reader", "--role", "staff")
    (tmp_path / "password").write_text("another one that is long")
    assert on("account", "password", "reader").code == 0
    found = Accounts(accounts)
    assert found.check("reader", PASSWORD) is None
    assert found.check("reader", "another one that is long") is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "Dr. Who", "--role", "staff"), "lower-case letters"),
        (("add", "reader", "--role", "staff"), "there already"),
        (("add", "x", "--role", "boss"), "invalid choice"),
        (("add", "x"), "--role"),
        (("remove", "nobody"), "not there"),
        (("password", "nobody"), "not there"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_and_changes_nothing(
    on: Command, accounts: Path, words: tuple[str, ...], said: str
) -> None:
    on("account", "add", "reader", "--role", "staff")
    before = accounts.read_bytes()
    done = on("account", *words)
    assert (done.code, said in done.err) == (2, True), done.err
    assert accounts.read_bytes() == before


@pytest.mark.parametrize("password", ["", "x" * (SHORTEST - 1), "x" * 2000])
def test_a_password_too_short_or_too_long_is_refused(on: Command, tmp_path: Path, password: str) -> None:
    (tmp_path / "password").write_text(password)
    done = on("account", "add", "reader", "--role", "staff")
    assert (done.code, "password" in done.err) == (2, True)


def test_one_password_typed_on_two_keyboards_is_one(tmp_path: Path) -> None:
    found = Accounts(tmp_path / "accounts")
    found.add("reader", ["staff"], "grüße aus der klinik")
    assert found.check("reader", "gru\u0308ße aus der klinik") is not None


def test_a_key_in_the_clear_is_refused(on: Command, node: Node) -> None:
    owner = node.config.data_dir.parent / "organisations" / "owner"
    done = on("account", "add", "x", "--role", "approver", "--identity", owner / "identities" / "person")
    assert (done.code, "not under a passphrase" in done.err) == (2, True)
    key = issue(owner, "person-2", "person", passphrase=b"words")
    assert on("account", "add", "x", "--role", "approver", "--identity", key, "--json").row["identity"] == str(key)


def test_without_a_console_there_are_no_accounts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = make_node(tmp_path)
    done = runner(capsys, "--config", made.config.data_dir.parent / CONFIG_NAME)("account", "list")
    assert (done.code, "console: missing" in done.err) == (2, True)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"accounts": {"a": 1}}', b'{"accounts": {"a": {"roles": ["boss"]}}}']
)
def test_a_file_that_is_none_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "accounts"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a file of accounts"):
        Accounts(path).all()
    assert Accounts(path).find("a") is None

"""The configuration: what is wrong in it stops the start and is named, with file and key."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from orthanc_ledger.config import Config, Party, load, load_either, load_party
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.node_key import NodeKey

ROOT = Path(__file__).resolve().parent.parent
WHOLE: dict[str, Any] = {
    "organisation": "HospitalMSP",
    "ae_title": "NODE",
    "data_dir": "data",
    "node_key": "keys/node.key",
    "identity": "organisations/owner/identities/node",
    "content": "local:data/objects",
    "ledger": "embedded:data/ledger.db",
    "clinical": {"host": "127.0.0.1", "port": 11112},
    "research": {"host": "127.0.0.1", "port": 11113},
}
RESEARCH = {"ae_title": "R1", "role": "research", "organisation": "ResearchMSP"}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "orthanc-ledger.yaml"
    values = {**WHOLE, **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value != "LEFT OUT"}))
    return path


def read(folder: Path, **changes: Any) -> Config:
    return load(write(folder, **changes))


def test_relative_paths_count_from_the_files_folder(tmp_path: Path) -> None:
    config = read(tmp_path, data_dir="/elsewhere")
    assert config.data_dir == Path("/elsewhere")
    assert config.node_key == NodeKey(tmp_path / "keys" / "node.key")
    assert config.ledger == f"embedded:{tmp_path}/data/ledger.db"


def test_a_store_behind_http_is_no_path(tmp_path: Path) -> None:
    assert read(tmp_path, content="kubo:http://127.0.0.1:5001").content == "kubo:http://127.0.0.1:5001"


def test_a_sinks_folder_counts_from_the_files_folder_and_other_sinks_stay_as_they_are(tmp_path: Path) -> None:
    urls = ["path:../kept", "path:/media/kept", "command:tee ../kept", "https://host/kept"]
    config = read(tmp_path, checkpoint_sinks=urls)
    assert config.checkpoint_sinks == (f"path:{tmp_path}/../kept", *urls[1:])


def test_a_sinks_folder_that_a_link_puts_into_data_dir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path / "data")
    with pytest.raises(ConfigError, match="must lie outside data_dir"):
        read(tmp_path, checkpoint_sinks=["path:elsewhere/checkpoints"])


def test_defaults_stand_for_what_is_left_out(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.batch.idle_s, config.batch.max_instances, config.clinical.processes) == (0.75, 1000, 2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"content": "kubo:kubo.yaml", "largest_object_mb": 16_385}, "largest_object_mb: at most 16384"),
        ({"clinical": {"prot": 1}}, "clinical.prot: unknown key"),
        ({"peers": [{**RESEARCH, "hots": []}]}, r"peers\[0\].hots: unknown key"),
        ({"ae_title": "LEFT OUT"}, "ae_title: missing"),
        ({"peers": [{"ae_title": "R1"}]}, r"peers\[0\].role: missing"),
        ({"clinical": {"port": "eleven"}}, "clinical.port: expected int"),
        ({"clinical": {"port": True}}, "clinical.port: expected int"),
        ({"clinical": {"port": -1}}, "clinical.port: expected int"),
        ({"batch": {"idle_s": "soon"}}, "batch.idle_s: expected float"),
        ({"peers": {"MRI1": {}}}, "peers: expected a list"),
        ({"peers": [{"ae_title": "R1", "role": "boss"}]}, r"peers\[0\].role: expected one of modality"),
        ({"clinical": 11112}, "clinical.: expected keys and values"),
        ({"ae_title": "A TITLE FAR TOO LONG"}, "AE title 'A TITLE FAR TOO LONG'"),
        ({"ae_title": "BACK\\SLASH"}, "without backslash"),
        ({"ae_title": "NODE "}, "AE title 'NODE '.*outer spaces"),
        ({"peers": [{"ae_title": " MRI1", "role": "modality"}]}, "AE title ' MRI1'.*outer spaces"),
        ({"peers": [RESEARCH, RESEARCH]}, "stands twice"),
        ({"peers": [{"ae_title": "R1", "role": "research"}]}, "needs its `organisation`"),
        ({"peers": [{**RESEARCH, "port": 104}]}, "needs `host` and `port`"),
        ({"research": {"host": "127.0.0.1", "port": 11112}}, "two ports"),
        ({"node_key": "data/node.key"}, "node_key: must lie outside data_dir"),
        ({"node_key": "passphrase:data/node.key"}, "node_key: must lie outside data_dir"),
        ({"node_key": "pkcs11:token=hospital"}, "node_key: pkcs11: not built"),
        ({"clinical": {"max_associations": 20}}, "clinical.max_associations: expected more than the 20"),
        ({"checkpoint_sinks": ["ftp://host/"]}, "checkpoint_sinks: sink 'ftp://host/': expected path:FOLDER"),
        ({"checkpoint_sinks": ["path:"]}, "checkpoint_sinks: sink 'path:'"),
        ({"checkpoint_sinks": ["path:data/checkpoints"]}, "checkpoint_sinks: path:.*must lie outside data_dir"),
        ({"checkpoint_sinks": ["path:keys/../data"]}, "must lie outside data_dir"),
        ({"checkpoint_sinks": ["command:true", "command:true"]}, "checkpoint_sinks: a sink stands twice"),
        ({"alarm_sinks": ["path:alarms"]}, "alarm_sinks: expected command:, http: or https:"),
        ({"alarm_sinks": ["smtp:host"]}, "alarm_sinks: sink 'smtp:host'"),
        ({"console": {"accounts": "a", "host": "0.0.0.0"}}, r"console\.host: 0\.0\.0\.0: passwords would go"),
        ({"console": {"accounts": "a", "host": "console.example"}}, r"console\.host: console\.example"),
        ({"console": {"accounts": "a", "certificate": "c.pem"}}, "console: TLS needs `certificate` and `key`"),
        ({"console": {"host": "127.0.0.1"}}, "console.accounts: missing"),
        ({"checkpoint_within_s": 0}, r"checkpoint_within_s: expected at least 0\.1"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        read(tmp_path, **changes)
    assert str(tmp_path / "orthanc-ledger.yaml") in str(refused.value)


@pytest.mark.parametrize("text", ["a: [", "just text", ""])
def test_no_configuration_at_all_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "orthanc-ledger.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"orthanc-ledger\.yaml"):
        load(path)


def test_a_missing_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="orthanc-ledger init"):
        load(tmp_path / "none.yaml")


def test_nobody_but_the_user_who_has_the_data_works_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, party = write(tmp_path), tmp_path / "party.yaml"
    party.write_text((ROOT / "config" / "party.yaml").read_text())
    load(node).data_dir.mkdir()
    for path in (node, party):
        load_either(path)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    for path in (node, party):
        with pytest.raises(ConfigError, match=r"data is \w+'s, and this runs as user 54321: .*runuser -u \w+ -- "):
            load_either(path)


def test_the_partys_example_has_every_key_and_reads() -> None:
    example = ROOT / "config" / "party.yaml"
    party = load_party(example)
    assert set(yaml.safe_load(example.read_text())) == {field.name for field in fields(Party)}
    assert party.identity == ROOT / "config" / "research/identities/node"
    assert party.content == f"local:{ROOT}/config/data/objects"


def test_a_node_and_another_party_are_told_apart_by_the_node_key(tmp_path: Path) -> None:
    assert isinstance(load_either(write(tmp_path)), Config)
    assert isinstance(load_either(ROOT / "config" / "party.yaml"), Party)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.4.5", "::1", "localhost"])
def test_a_console_of_this_machine_alone_needs_no_certificate(tmp_path: Path, host: str) -> None:
    config = read(tmp_path, console={"accounts": "console.accounts", "host": host})
    assert config.console is not None
    assert config.console.accounts == tmp_path / "console.accounts"


def test_a_partys_console_off_this_machine_needs_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "party.yaml"
    example = (ROOT / "config" / "party.yaml").read_text()
    path.write_text(example.replace("  port: 8444", "  host: 192.0.2.1"))
    with pytest.raises(ConfigError, match=r"console\.host"):
        load_party(path)


def test_a_url_without_a_scheme_stays_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "party.yaml"
    example = (ROOT / "config" / "party.yaml").read_text()
    path.write_text(example.replace("content: local:data/objects", "content: kubo.yaml"))
    assert load_party(path).content == "kubo.yaml"


@pytest.mark.parametrize(
    ("line", "named"),
    [("colour: red", "colour: unknown key"), ("ae_title: TOO LONG FOR A TITLE", "AE title 'TOO LONG"), ("", "missing")],
)
def test_what_is_wrong_in_a_partys_file_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "party.yaml"
    example = (ROOT / "config" / "party.yaml").read_text()
    path.write_text(f"{example}\n{line}\n" if line else example.replace("organisation: ", "# "))
    with pytest.raises(ConfigError, match=named) as refused:
        load_party(path)
    assert str(path) in str(refused.value)

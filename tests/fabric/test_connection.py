"""The connection file: what it may say, and what is told of a wrong one."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orthanc_ledger.clock import system_clock
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger import open_ledger
from orthanc_ledger.ledger.fabric.connection import Deadlines, OwnPeer, read_connection
from orthanc_ledger.ledger.identity import ca_certificate, create_organisation
from tests.conftest import ROOT

PEER = {"endpoint": "127.0.0.1:7051", "tls_ca": "hospital/cacerts/ca.pem"}
LEAST = {
    "channel": "custody",
    "chaincode": "custody",
    "organisation": "HospitalMSP",
    "peers": [PEER],
    "organisations": {"HospitalMSP": "hospital/cacerts/ca.pem"},
}

# Made by cryptogen of Fabric 3.1.1.
TRIAL_CA = """\
-----BEGIN CERTIFICATE-----
MIICMTCCAdegAwIBAgIQZIdvsXsXPT6/5ncu+tPy2zAKBggqhkjOPQQDAjBjMQsw
CQYDVQQGEwJVUzETMBEGA1UECBMKQ2FsaWZvcm5pYTEWMBQGA1UEBxMNU2FuIEZy
YW5jaXNjbzERMA8GA1UEChMIaG9zcGl0YWwxFDASBgNVBAMTC2NhLmhvc3BpdGFs
MB4XDTI2MTEyMTIzNTAwMFoXDTM2MTExODIzNTAwMFowYzELMAkGA1UEBhMCVVMx
EzARBgNVBAgTCkNhbGlmb3JuaWExFjAUBgNVBAcTDVNhbiBGcmFuY2lzY28xETAP
BgNVBAoTCGhvc3BpdGFsMRQwEgYDVQQDEwtjYS5ob3NwaXRhbDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABIc8FD0CODReytEhzDIzooeBvi9hEx4r8VayXylNIb5Y
kV63FQbXzTW5/9/dOopnnhXeMsLBNse3Lq/KjQTcgICjbTBrMA4GA1UdDwEB/wQE
AwIBpjAdBgNVHSUEFjAUBggrBgEFBQcDAgYIKwYBBQUHAwEwDwYDVR0TAQH/BAUw
AwEB/zApBgNVHQ4EIgQgQTqrIEhW74QQllpgOP9MCMd5ZUnal9llUXqH/M8KKksw
CgYIKoZIzj0EAwIDSAAwRQIhAIzb90Uu0z09useNcEySODI+6SThJUvPbhBn0O9G
pQMSAiA68Iv3N4K2jtMnykE1UEGiAbBQJbSFia8yDWHxKwAMiw==
-----END CERTIFICATE-----
"""

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    create_organisation(tmp_path / "hospital", "HospitalMSP", system_clock)

    def write(content: Any) -> Path:
        path = tmp_path / "hospital.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_what_is_left_out_has_a_default(write: Write, tmp_path: Path) -> None:
    found = read_connection(write(LEAST))
    pem = (tmp_path / "hospital" / "cacerts" / "ca.pem").read_bytes()
    assert found.peers == (OwnPeer("127.0.0.1:7051", pem),)
    assert found.organisations == {"HospitalMSP": ca_certificate(tmp_path / "hospital")}
    assert (found.envelopes, found.deadlines) == (tmp_path / "hospital.envelopes.db", Deadlines())


def test_everything_can_be_said(write: Write, tmp_path: Path) -> None:
    more = {"envelopes": "kept/here.db", "endorse_s": 1, "submit_s": 2.5, "commit_s": 3, "evaluate_s": 4}
    peers = [PEER, {**PEER, "endpoint": "[::1]:7052", "server_name": "peer1.hospital"}]
    found = read_connection(write({**LEAST, **more, "in_flight": 7, "peers": peers}))
    assert [(peer.endpoint, peer.server_name) for peer in found.peers] == [
        ("127.0.0.1:7051", None),
        ("[::1]:7052", "peer1.hospital"),
    ]
    assert (found.envelopes, found.in_flight) == (tmp_path / "kept" / "here.db", 7)
    assert found.deadlines == Deadlines(1.0, 2.5, 3.0, 4.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"chanel": "x"}, "chanel: unknown key; known here: chaincode, channel"),
        ({"peers": [{**PEER, "port": 1}]}, r"peers\[0\]\.port: unknown key; known here: endpoint, server_name, tls_ca"),
        ({"channel": 7}, "channel: expected a text, got 7"),
        ({"channel": ""}, "channel: expected a text"),
        ({"peers": []}, "peers: expected a list that is not empty"),
        ({"peers": ["127.0.0.1:7051"]}, r"peers\[0\]\.: expected keys and values"),
        ({"peers": [{"endpoint": "127.0.0.1:7051"}]}, r"peers\[0\]\.tls_ca: missing"),
        ({"peers": [{**PEER, "endpoint": "7051"}]}, r"peers\[0\]\.endpoint: expected HOST:PORT, got '7051'"),
        ({"peers": [{**PEER, "tls_ca": "gone.pem"}]}, "gone.pem: cannot be read"),
        ({"organisations": {}}, "organisations: expected a dict that is not empty"),
        ({"organisations": {"HospitalMSP": "hospital/msp.yaml"}}, r"msp\.yaml: not an X\.509 certificate"),
        (
            {"organisation": "ClinicMSP"},
            r"organisation: expected one of `organisations` \(HospitalMSP\), got 'ClinicMSP'",
        ),
        ({"organisations": {7: "x"}}, r"organisations\.: expected keys and values"),
        ({"commit_s": 0}, "commit_s: expected a number above 0, got 0"),
        ({"commit_s": True}, "commit_s: expected a number above 0, got True"),
        ({"in_flight": 1.5}, "in_flight: expected a number above 0, got 1.5"),
        ({"envelopes": None}, "envelopes: expected a text"),
    ],
)
def test_a_wrong_file_is_told_by_file_and_key(write: Write, change: dict[Any, Any], told: str) -> None:
    path = write({**LEAST, **change})
    with pytest.raises(ConfigError, match=told) as refused:
        open_ledger(f"fabric:{path}")
    assert str(path.parent) in str(refused.value)


def test_the_page_s_example_is_read_and_its_defaults_are_told_as_they_are(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "fabric.md").read_text(encoding="utf-8")
    told, _, rest = page.partition("- **The connection file**")[2].partition("```yaml\n")
    create_organisation(tmp_path / "hospital", "HospitalMSP", system_clock)
    for name in re.findall(r"[\w-]+\.pem", rest.partition("```")[0]):
        shutil.copy(tmp_path / "hospital" / "cacerts" / "ca.pem", tmp_path / name)
    (tmp_path / "connection.yaml").write_text(rest.partition("```")[0])
    found = read_connection(tmp_path / "connection.yaml")
    assert set(found.organisations) == {"HospitalMSP", "CustodianMSP"}
    assert found.deadlines == Deadlines(endorse_s=10, submit_s=10, commit_s=5, evaluate_s=10)
    assert "`in_flight` is 100, and `commit_s` 5 s (`endorse_s`, `submit_s`, `evaluate_s`: 10 s)" in told
    assert (found.in_flight, found.envelopes) == (100, tmp_path / "connection.envelopes.db")


@pytest.mark.parametrize("key", sorted(LEAST))
def test_a_key_that_is_needed_is_missed(write: Write, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: missing"):
        read_connection(write({name: value for name, value in LEAST.items() if name != key}))


@pytest.mark.parametrize("content", [b"[", b"\xff", b"- 7", b""])
def test_what_is_no_mapping_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "connection.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"connection\.yaml: (not YAML|top level: expected keys and values)"):
        read_connection(tmp_path / "connection.yaml")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_connection(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("place", ["peers", "organisations"])
def test_a_trial_networks_authority_is_refused_away_from_this_machine(write: Write, tmp_path: Path, place: str) -> None:
    (tmp_path / "trial.pem").write_text(TRIAL_CA)
    peer = {**PEER, "endpoint": "peer0.hospital.example:7051"}
    trial = {"peers": [{**peer, "tls_ca": "trial.pem"}], "organisations": {"HospitalMSP": "trial.pem"}}
    read_connection(write({**LEAST, "peers": [{**PEER, "tls_ca": "trial.pem"}]}))
    read_connection(write({**LEAST, "peers": [peer]}))
    with pytest.raises(ConfigError, match="trial network"):
        read_connection(write({**LEAST, "peers": [peer], place: trial[place]}))

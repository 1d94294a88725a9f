"""Under which names the console is reached, and where links lead."""

from pathlib import Path

import pytest

from orthanc_ledger.config import Console
from orthanc_ledger.ledger.identity import create_organisation, issue_server
from orthanc_ledger.web.console.names import hosts, url


@pytest.fixture(scope="module")
def organisation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names") / "organisation"
    create_organisation(folder, "HospitalMSP")
    return folder


@pytest.mark.parametrize(
    ("host", "certified", "address"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8444"),
        ("::1", None, "http://[::1]:8444"),
        ("127.0.0.1", "console.example", "https://127.0.0.1:8444"),
        ("192.0.2.1", "console.example", "https://console.example:8444"),
        ("0.0.0.0", "console.example", "https://console.example:8444"),
        ("::", "192.0.2.1", "https://192.0.2.1:8444"),
    ],
)
def test_links_lead_to_a_name_under_which_it_answers(
    organisation: Path, tmp_path: Path, host: str, certified: str | None, address: str
) -> None:
    certificate, key = (None, None) if certified is None else issue_server(organisation, certified, tmp_path / "tls")
    console = Console(tmp_path / "accounts", host, 8444, certificate, key)
    assert url(console) == address
    assert address.partition("://")[2] in hosts(console, 8444)


def test_nobody_is_led_to_a_port_that_nobody_knows(tmp_path: Path) -> None:
    assert url(Console(tmp_path / "accounts")) is None

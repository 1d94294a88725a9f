"""Orthanc with the plugin starts, or says which setting is wrong."""

from typing import Any

import pytest

from tests.in_orthanc.conftest import Hospitals


def test_orthanc_starts_with_the_plugin(hospital: Hospitals) -> None:
    made = hospital().start()
    assert made.orthanc.call("GET", "/system").json()["Version"] == made.orthanc.version
    assert made.orthanc.stop() == 0


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"Configuratoin": "/x"}, {}, '"Configuratoin": unknown key'),
    ({"Configuration": "orthanc-ledger.yaml"}, {}, '"Configuration": expected an absolute path'),
    ({"Staff": ["staff", "nobody"]}, {}, "user 'nobody' is not among \"RegisteredUsers\""),
    ({"Duplicate": "perhaps"}, {}, '"Duplicate": expected one of accept, refuse'),
    ({}, {"DicomAlwaysAllowStore": True}, '"DicomAlwaysAllowStore" is true'),
    ({}, {"DicomCheckModalityHost": False}, '"DicomCheckModalityHost" is false'),
    ({}, {"RemoteAccessAllowed": True, "AuthenticationEnabled": False}, '"RemoteAccessAllowed" is true'),
]


@pytest.mark.parametrize(("ledger", "settings", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_a_wrong_setting_stops_the_start_and_is_named(
    hospital: Hospitals, ledger: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    assert said in hospital(ledger, settings).orthanc.refused()

"""Orthanc with the plugin starts, or says which setting is wrong."""

from typing import Any

import pytest

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.plugin.checks import check
from orthanc_ledger.plugin.settings import read_settings
from tests.in_orthanc.conftest import Hospitals
from tests.in_orthanc.live import LEDGER, STAFF, USERS

WITHOUT = object()


def test_orthanc_starts_with_the_plugin_and_is_not_ended_by_a_reset(hospital: Hospitals) -> None:
    made = hospital().start()
    assert made.orthanc.call("GET", "/system").json()["Version"] == made.orthanc.version
    refused = made.orthanc.call("POST", "/tools/reset", "")
    assert (refused.status, "restart its service" in refused.json()["Message"]) == (403, True)
    assert made.orthanc.call("GET", "/system").status == 200
    assert made.orthanc.stop() == 0


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"Configuratoin": "/x"}, {}, '"Configuratoin": unknown key'),
    ({}, {"DicomAlwaysAllowStore": True}, '"DicomAlwaysAllowStore" is true'),
    ({}, {"RemoteAccessAllowed": True, "AuthenticationEnabled": False}, '"RemoteAccessAllowed" is true'),
    ({}, {"DicomAlwaysAllowGet": True}, '"DicomAlwaysAllowGet": expected false'),
]


@pytest.mark.parametrize(("ledger", "settings", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_a_wrong_setting_stops_the_start_and_is_named(
    hospital: Hospitals, ledger: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    assert said in hospital(ledger, settings).orthanc.refused()


def checked(ledger: dict[str, Any], settings: dict[str, Any]) -> None:
    """Settings and checks over a configuration that is right. Raises ConfigError."""
    section = {"Configuration": "/orthanc-ledger.yaml", "Staff": [STAFF], "User": LEDGER, **ledger}
    whole = {
        "AuthenticationEnabled": True,
        "RegisteredUsers": USERS,
        "DicomAlwaysAllowStore": False,
        "DicomCheckModalityHost": True,
        "Ledger": {key: value for key, value in section.items() if value is not WITHOUT},
        **settings,
    }
    whole = {key: value for key, value in whole.items() if value is not WITHOUT}
    check(whole, read_settings(whole))


@pytest.mark.parametrize(
    ("ledger", "settings", "said"),
    [
        ({}, {"Ledger": WITHOUT}, '"Ledger": expected a section'),
        ({"Configuration": WITHOUT}, {}, '"Configuration": missing: the path'),
        ({"Configuration": "orthanc-ledger.yaml"}, {}, '"Configuration": expected an absolute path'),
        ({"User": WITHOUT}, {}, '"User": missing: who of "RegisteredUsers"'),
        ({"User": ""}, {}, '"User": expected str'),
        ({"User": "nobody"}, {}, "user 'nobody' is not among \"RegisteredUsers\""),
        ({"Staff": ["staff", "nobody"]}, {}, "user 'nobody' is not among \"RegisteredUsers\""),
        ({"Staff": ["staff", "Staff"]}, {}, "user 'Staff' is not among \"RegisteredUsers\""),
        ({"Staff": [STAFF, LEDGER]}, {}, '\'ledger\' is both "User" and "Staff"'),
        ({"Staff": "staff"}, {}, '"Staff": expected a list'),
        ({"Duplicate": "perhaps"}, {}, '"Duplicate": expected one of accept, refuse'),
        ({"Accept": ["DicomAlwaysAllowGet"]}, {}, '"Accept": expected one of DicomAlwaysAllowStore'),
        ({}, {"RegisteredUsers": WITHOUT}, 'is not among "RegisteredUsers"'),
        ({}, {"RegisteredUsers": {**USERS, "staff:of the": "house"}}, "must have no colon"),
        ({}, {"AuthenticationEnabled": False}, '"AuthenticationEnabled": expected true'),
        ({}, {"AuthenticationEnabled": WITHOUT}, '"AuthenticationEnabled": expected true'),
        ({}, {"AuthenticationEnabled": False, "RemoteAccessAllowed": True}, '"RemoteAccessAllowed" is true'),
        ({}, {"HttpServerEnabled": False}, '"HttpServerEnabled": expected true'),
        ({}, {"SslEnabled": True, "SslVerifyPeers": True}, '"SslVerifyPeers": expected false'),
        ({}, {"DicomAlwaysAllowStore": True}, '"DicomAlwaysAllowStore" is true'),
        ({}, {"DicomAlwaysAllowStore": WITHOUT}, '"DicomAlwaysAllowStore" is true'),
        ({}, {"DicomCheckModalityHost": False}, '"DicomCheckModalityHost" is false'),
        ({}, {"DicomCheckModalityHost": WITHOUT}, '"DicomCheckModalityHost" is false'),
        ({"Accept": ["DicomCheckModalityHost"]}, {"DicomAlwaysAllowStore": True}, '"DicomAlwaysAllowStore" is true'),
        ({}, {"DicomAlwaysAllowMove": True}, '"DicomAlwaysAllowMove" is true'),
        ({}, {"DicomAlwaysAllowFind": True}, '"DicomAlwaysAllowFind": expected false'),
        ({}, {"DicomAlwaysAllowFindWorklist": True}, '"DicomAlwaysAllowFindWorklist": expected false'),
        ({}, {"DicomAlwaysAllowGet": True}, '"DicomAlwaysAllowGet": expected false'),
        ({}, {"MultitenantDicom": {"Servers": [{"Port": 1}]}}, '"MultitenantDicom": "Servers": expected none'),
    ],
)
def test_each_wrong_setting_is_named(ledger: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(ledger, settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("ledger", "settings"),
    [
        ({}, {}),
        ({"Staff": []}, {}),
        ({}, {"AuthenticationEnabled": WITHOUT, "RemoteAccessAllowed": True}),
        ({}, {"SslEnabled": True}),
        ({}, {"SslVerifyPeers": True}),
        ({}, {"MultitenantDicom": {}}),
        (
            {"Accept": ["DicomAlwaysAllowStore", "DicomCheckModalityHost", "DicomAlwaysAllowMove"]},
            {"DicomAlwaysAllowStore": True, "DicomCheckModalityHost": False, "DicomAlwaysAllowMove": True},
        ),
    ],
)
def test_a_right_setting_is_none_of_the_checks_business(ledger: dict[str, Any], settings: dict[str, Any]) -> None:
    checked(ledger, settings)

"""What Orthanc's own configuration must be like for the chain of custody to hold. A setting that is not stops the
start, and is named.
"""

from collections.abc import Mapping
from typing import Any

from orthanc_ledger.errors import ConfigError
from orthanc_ledger.plugin.settings import SECTION, Settings

# Setting -> its default in Orthanc, the value that weakens the chain, and how. A site may accept it.
_RISKS = {
    "DicomAlwaysAllowStore": (True, True, "anybody may send scans under any AE title"),
    "DicomCheckModalityHost": (False, False, "an AE title may be used from any address"),
    "DicomAlwaysAllowMove": (False, True, "anybody may have scans sent between clinical AEs, under any AE title"),
}
# Settings, all false by default, that give scans to AEs which are in no list of Orthanc's, as research is: to each of
# them, and no hook is asked.
_OPEN = {
    "DicomAlwaysAllowFind": "C-FIND",
    "DicomAlwaysAllowFindWorklist": "C-FIND for worklists",
    "DicomAlwaysAllowGet": "C-GET",
}


def check(orthanc: Mapping[str, Any], settings: Settings) -> None:
    """Raises ConfigError naming the first setting that must be otherwise."""
    _check_http(orthanc)
    _check_users(orthanc, settings)
    _check_dicom(orthanc, settings)


def _check_http(orthanc: Mapping[str, Any]) -> None:
    remote = orthanc.get("RemoteAccessAllowed", False)
    if not orthanc.get("AuthenticationEnabled", remote):
        raise ConfigError(
            '"RemoteAccessAllowed" is true without "AuthenticationEnabled": anybody could read every scan'
            if remote
            else '"AuthenticationEnabled": expected true: without it nobody can be told from staff'
        )
    if not orthanc.get("HttpServerEnabled", True):
        raise ConfigError('"HttpServerEnabled": expected true: the node asks Orthanc over HTTP what it holds')
    if orthanc.get("SslEnabled", False) and orthanc.get("SslVerifyPeers", False):
        raise ConfigError(
            '"SslVerifyPeers": expected false: the node, which asks Orthanc over HTTP, has no certificate to show; '
            "ask browsers for theirs in a reverse proxy"
        )


def _check_users(orthanc: Mapping[str, Any], settings: Settings) -> None:
    users = orthanc.get("RegisteredUsers") or {}
    for name in sorted(users):
        if ":" in name:
            raise ConfigError(
                f'"RegisteredUsers": {name!r}: a name must have no colon (RFC 7617 2): over HTTP it reads as '
                f"{name.partition(':')[0]!r}"
            )
    for name in sorted({*settings.staff, settings.user}):
        if name not in users:
            raise ConfigError(f'"{SECTION}": user {name!r} is not among "RegisteredUsers"')
    if settings.user in settings.staff:
        raise ConfigError(
            f'"{SECTION}": {settings.user!r} is both "User" and "Staff": give the node a user of its own, which is let '
            "in from this machine alone"
        )


def _check_dicom(orthanc: Mapping[str, Any], settings: Settings) -> None:
    for setting, (default, weak, how) in _RISKS.items():
        if orthanc.get(setting, default) is weak and setting not in settings.accepted:
            raise ConfigError(
                f'"{setting}" is {str(weak).lower()}: {how}; change it, or say "Accept": ["{setting}"] in "{SECTION}"'
            )
    for setting, service in _OPEN.items():
        if orthanc.get(setting, False):
            raise ConfigError(
                f'"{setting}": expected false: it gives {service} to research; list the clinical AEs under '
                '"DicomModalities"'
            )
    if (orthanc.get("MultitenantDicom") or {}).get("Servers"):
        raise ConfigError(
            '"MultitenantDicom": "Servers": expected none: these are DICOM ports of another plugin, whose answers this '
            "one is not asked about"
        )

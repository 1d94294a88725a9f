"""What Orthanc's own configuration must be like for the chain of custody to hold. A setting that is not stops the
start, and is named.
"""

from collections.abc import Mapping
from typing import Any

from orthanc_ledger.config import Config
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.plugin.settings import SECTION, Settings

# Setting -> its default in Orthanc, the value that weakens the chain, and how.
_RISKS = {
    "DicomAlwaysAllowStore": (True, True, "anybody may send scans under any AE title"),
    "DicomCheckModalityHost": (False, False, "an AE title may be used from any address"),
}


def check(orthanc: Mapping[str, Any], settings: Settings, config: Config) -> None:
    """Raises ConfigError naming the first setting that must be otherwise."""
    authenticated = orthanc.get("AuthenticationEnabled") is True
    users = orthanc.get("RegisteredUsers") or {}
    if orthanc.get("RemoteAccessAllowed", False) and not authenticated:
        raise ConfigError(
            '"RemoteAccessAllowed" is true without "AuthenticationEnabled": anybody could read every scan'
        )
    if not orthanc.get("HttpServerEnabled", True):
        raise ConfigError('"HttpServerEnabled": expected true: the node asks Orthanc over HTTP what it holds')
    for name in sorted({*settings.staff, *([settings.user] if settings.user else [])}):
        if name not in users:
            raise ConfigError(f'"{SECTION}": user {name!r} is not among "RegisteredUsers"')
    if authenticated and settings.user is None:
        raise ConfigError(f'"{SECTION}": "User": missing: who of "RegisteredUsers" the node asks Orthanc as')
    for setting, (default, weak, how) in _RISKS.items():
        if orthanc.get(setting, default) is weak and setting not in settings.accepted:
            raise ConfigError(
                f'"{setting}" is {str(weak).lower()}: {how}; change it, or say "Accept": ["{setting}"] in "{SECTION}"'
            )

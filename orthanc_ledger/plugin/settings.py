"""The section "Ledger" of Orthanc's configuration, explained in config/orthanc.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from orthanc_ledger.errors import ConfigError

SECTION = "Ledger"

Duplicate = Literal["accept", "refuse"]
Risk = Literal["DicomAlwaysAllowStore", "DicomCheckModalityHost", "DicomAlwaysAllowMove"]
"""Of Orthanc's settings, what a site may have although it weakens the chain: it has to say so."""


@dataclass(frozen=True)
class Settings:
    """What the plugin is told.

    ``staff``: users of Orthanc who are hospital staff; whoever is not named is research. ``user``: the one as whom the
    node asks Orthanc. ``serve``: whether the plugin starts the node's processes, with ``python``; else they are a
    service of their own. ``duplicate``: what a C-STORE of other content under a known UID is answered. ``move``:
    whether the plugin answers C-MOVE; None: where this Orthanc lets it count right. ``accepted``: what was told to be
    so. ``console``: where the console's links lead; None: to where the node's configuration has it.
    """

    configuration: Path
    user: str
    python: Path | None = None
    serve: bool = True
    staff: frozenset[str] = frozenset()
    duplicate: Duplicate = "accept"
    move: bool | None = None
    accepted: frozenset[str] = frozenset()
    console: str | None = None


def read_settings(orthanc: Mapping[str, Any]) -> Settings:
    """The settings in Orthanc's whole configuration.

    Raises ConfigError naming the key when the section is missing or has an unknown, missing or mistyped one.
    """
    section = orthanc.get(SECTION)
    if not isinstance(section, dict):
        raise ConfigError(
            f'"{SECTION}": expected a section in Orthanc\'s configuration; config/orthanc.json explains it'
        )
    values: dict[str, Any] = {}
    for key, raw in section.items():
        if key not in _KEYS:
            raise ConfigError(f'"{SECTION}": "{key}": unknown key; known here: {", ".join(_KEYS)}')
        name, expected = _KEYS[key]
        values[name] = _value(key, raw, expected)
    for key, what in _NEEDED.items():
        if key not in section:
            raise ConfigError(f'"{SECTION}": "{key}": missing: {what}')
    return Settings(**values)


# Key in Orthanc's configuration -> field, and what is expected.
_KEYS: dict[str, tuple[str, Any]] = {
    "Configuration": ("configuration", Path),
    "Python": ("python", Path),
    "Serve": ("serve", bool),
    "Staff": ("staff", [str]),
    "User": ("user", str),
    "Duplicate": ("duplicate", get_args(Duplicate)),
    "Move": ("move", bool),
    "Accept": ("accepted", [get_args(Risk)]),
    "Console": ("console", str),
}
_NEEDED = {
    "Configuration": "the path of the node's orthanc-ledger.yaml",
    "User": 'who of "RegisteredUsers" the node asks Orthanc as',
}


def _value(key: str, raw: Any, expected: Any) -> Any:
    if isinstance(expected, list):
        if not isinstance(raw, list):
            raise ConfigError(f'"{SECTION}": "{key}": expected a list, got {raw!r}')
        return frozenset(_value(key, each, expected[0]) for each in raw)
    if isinstance(expected, tuple):
        if raw not in expected:
            raise ConfigError(f'"{SECTION}": "{key}": expected one of {", ".join(expected)}, got {raw!r}')
        return raw
    if expected is Path:
        path = Path(_value(key, raw, str))
        if not path.is_absolute():
            raise ConfigError(f'"{SECTION}": "{key}": expected an absolute path, got {raw!r}')
        return path
    if not isinstance(raw, expected) or raw == "":
        raise ConfigError(f'"{SECTION}": "{key}": expected {expected.__name__}, got {raw!r}')
    return raw

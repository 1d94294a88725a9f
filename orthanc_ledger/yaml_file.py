"""YAML files beside the configuration, as those of `ledger: fabric:…` and `content: kubo:…`: read and complained of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from orthanc_ledger.errors import ConfigError


def read_yaml(path: Path, advice: str) -> Any:
    """What a YAML file holds.

    Raises ConfigError when it cannot be read, with the advice, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): {advice}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error


class Keys:
    """A mapping of a file, at ``where`` in it (ends with a dot, if not empty), which says where it is wrong.

    Raises ConfigError when it is none, or has an unknown or not a needed key.
    """

    def __init__(self, path: Path, where: str, raw: Any, needed: set[str], known: set[str]) -> None:
        self._path, self._where, self._raw = path, where, raw
        if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
            raise ConfigError(f"{path}: {where or 'top level'}: expected keys and values, got {raw!r}")
        for key in sorted(raw.keys() - needed - known):
            raise ConfigError(f"{path}: {where}{key}: unknown key; known here: {', '.join(sorted(needed | known))}")
        for key in sorted(needed - raw.keys()):
            raise ConfigError(f"{path}: {where}{key}: missing")

    def text(self, key: str) -> str:
        """The text there. Raises ConfigError, as all of these do, unless it is one and not empty."""
        return str(self._checked(key, "a text", lambda value: isinstance(value, str) and value != ""))

    def filled(self, key: str, kind: type) -> Any:
        """The list or mapping there, not empty."""
        return self._checked(key, f"a {kind.__name__} that is not empty", lambda value: type(value) is kind and value)

    def number(self, key: str) -> float:
        """The number there, 0 or above."""
        return float(self._checked(key, "a number", lambda value: type(value) in (int, float) and value >= 0))

    def positive(self, key: str, kind: type) -> Any:
        """The number above 0 there, an int or a float as ``kind`` says."""
        numbers = (int, float) if kind is float else (int,)
        return kind(self._checked(key, "a number above 0", lambda value: type(value) in numbers and value > 0))

    def _checked(self, key: str, expected: str, fits: Callable[[Any], Any]) -> Any:
        value = self._raw[key]
        if not fits(value):
            raise ConfigError(f"{self._path}: {self._where}{key}: expected {expected}, got {value!r}")
        return value

"""Times and numbers as people read them."""

from datetime import UTC, datetime

from orthanc_ledger.errors import ConfigError


def moment(seconds: int) -> str:
    """Seconds of UTC as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def spoken(seconds: int) -> str:
    """Seconds of UTC as text that is read, not sorted or parsed."""
    return moment(seconds).replace("T", " ").replace("+00:00", " UTC")


def day(text: str) -> str:
    """A DA value as ISO 8601 has it (PS3.5 6.2); anything else as it is."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else text


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def instant(text: str) -> int:
    """Seconds of UTC of a time as people write it. Raises ConfigError."""
    try:
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except ValueError as error:
        raise ConfigError(f"{text!r}: expected a time as 2026-01-31 or 2026-01-31T12:00 (UTC)") from error

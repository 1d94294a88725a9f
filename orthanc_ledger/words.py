"""Times and numbers as people read them."""

from datetime import UTC, datetime

from orthanc_ledger.errors import ConfigError


def moment(seconds: int) -> str:
    """Seconds of UTC as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


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

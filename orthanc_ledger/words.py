"""Times and numbers as people read them."""

from datetime import UTC, datetime


def moment(seconds: int) -> str:
    """Seconds of UTC as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

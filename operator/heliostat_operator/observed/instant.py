"""Instants as Kubernetes writes them: RFC 3339, in UTC, whole seconds."""

from datetime import UTC, datetime
from typing import Any


def parse_instant(value: Any) -> datetime | None:
    """Read an RFC 3339 instant; None where it is not one."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant.astimezone(UTC) if instant.tzinfo is not None else None


def format_instant(instant: datetime) -> str:
    """Write an instant; fractions of a second are cut off."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

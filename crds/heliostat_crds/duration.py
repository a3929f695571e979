"""Durations as manifests write them: a number and a unit, such as `60s` or `500ms`."""

import re

DURATION_PATTERN = r"^[0-9]{1,8}(\.[0-9]{1,6})?(ms|s|m|h)$"
"""What a duration looks like, as a regular expression that JSON schema takes too."""

MAX_DURATION_CHARACTERS = 17
"""The longest text that DURATION_PATTERN allows."""

NOT_A_DURATION = 'is not a duration; write a number and a unit (ms, s, m, h), such as "500ms"'
"""What is said of other text, after the text."""

_SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,6})?)(ms|s|m|h)", re.ASCII)


class DurationError(ValueError):
    """The text is not a duration."""


def parse_duration(text: str) -> float:
    """Give the duration in seconds; DurationError says what is allowed."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise DurationError(f'"{text}" {NOT_A_DURATION}')
    number, unit = match.groups()
    if unit == "ms":
        return float(number) / 1000
    return float(number) * _SECONDS_PER_UNIT[unit]


def format_duration(seconds: float) -> str:
    """Write a duration in whole seconds where it is, in milliseconds otherwise."""
    if seconds == int(seconds):
        return f"{int(seconds)}s"
    milliseconds = f"{seconds * 1000:.6f}".rstrip("0").rstrip(".")
    return f"{milliseconds}ms"

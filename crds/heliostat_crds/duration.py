"""Durations as manifests write them: a number and a unit, such as `60s` or `500ms`."""

import re

DURATION_PATTERN = r"^([0-9]{1,8}(\.[0-9]{1,6})?(ms|s)|[0-9]{1,6}(\.[0-9]{1,6})?[mh])$"
"""What a duration looks like, as a regular expression that JSON schema takes too."""

MAX_DURATION_CHARACTERS = 17
"""The longest text that DURATION_PATTERN allows."""

NOT_A_DURATION = 'is not a duration; write a number and a unit (ms, s, m, h), such as "500ms"'
"""What is said of other text, after the text."""

_SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(DURATION_PATTERN, re.ASCII)


class DurationError(ValueError):
    """The text is not a duration."""


def parse_duration(text: str) -> float:
    """Give the duration in seconds; DurationError says what is allowed."""
    if _DURATION.fullmatch(text) is None:
        raise DurationError(f'"{text}" {NOT_A_DURATION}')
    number = text.rstrip("hms")
    unit = text.removeprefix(number)
    return float(number) / 1000 if unit == "ms" else float(number) * _SECONDS_PER_UNIT[unit]


def format_duration(seconds: float) -> str:
    """Write a duration in whole seconds where it is, in milliseconds otherwise."""
    if seconds == int(seconds):
        return f"{int(seconds)}s"
    milliseconds = f"{seconds * 1000:.6f}".rstrip("0").rstrip(".")
    return f"{milliseconds}ms"

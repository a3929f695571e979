"""The one line of a dead engine's log that tells why it died."""

import re
from typing import Any

MAX_CHARACTERS = 240

_PREFIX = re.compile(
    r"^(\([A-Za-z0-9_]+ pid=[0-9]+\)\s*)?"
    r"((ERROR|WARNING|INFO|CRITICAL) [-0-9]+ [:0-9.]+ (\[[^\]]*\]|\S+:\d+\])\s*)?"
)
_ERROR = re.compile(r"^[A-Za-z0-9_.]*(Error|Exception|Exit)\b")
_CONSEQUENCE = "Engine core initialization failed"
"""What vLLM's front process says last, whatever its engine process died of."""


def last_words(log: Any) -> str:
    """Give the last line that names an error, without the logger's prefix; else the last line."""
    if not isinstance(log, str):
        return ""
    lines = [_PREFIX.sub("", line.strip()).strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if _ERROR.match(line)]
    causes = [line for line in errors if _CONSEQUENCE not in line]
    for found in (causes, errors, lines):
        if found:
            return found[-1][:MAX_CHARACTERS]
    return ""

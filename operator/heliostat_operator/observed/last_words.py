"""The one line of a dead engine's log that tells why it died."""

import re
from typing import Any

from heliostat_crds.conditions import MAX_DETAIL_CHARACTERS

_LOGGER = re.compile(
    r"^(?:\([A-Za-z0-9_]+ pid=[0-9]+\)\s*)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)"
    r"(?::\s+|\s+[-0-9]+ [:0-9.]+ (?:\[[^\]]*\]|\S+:\d+\])\s*))?"
)
_HARMLESS_LEVELS = frozenset({"DEBUG", "INFO", "WARNING"})
_ERROR = re.compile(r"^[A-Za-z0-9_.]*(Error|Exception|Exit)\b")
_ALARM = re.compile(
    r"\b(error|exception|fatal|panic|failed|cannot|can't|could not|couldn't|unable to|not found"
    r"|no such file|denied|out of memory|oom|segmentation fault|core dumped)\b",
    re.IGNORECASE,
)
_CONSEQUENCE = "Engine core initialization failed"
"""What vLLM's front process says last, whatever its engine process died of."""


def last_words(log: Any) -> str:
    """Give the last line that names an error, without the logger's prefix; empty without one.

    An engine that is killed has no last words: what its log ends with tells nothing of its end.
    """
    if not isinstance(log, str):
        return ""
    lines = [line for line in map(_said, log.splitlines()) if line]
    errors = [line for line in lines if _ERROR.match(line)]
    causes = [line for line in errors if _CONSEQUENCE not in line]
    alarms = [line for line in lines if _ALARM.search(line) and _CONSEQUENCE not in line]
    for found in (causes, alarms, errors):
        if found:
            return found[-1][:MAX_DETAIL_CHARACTERS]
    return ""


def _said(line: str) -> str:
    """Take the logger's prefix off; a line of a harmless level says nothing."""
    line = line.strip()
    prefix = _LOGGER.match(line)
    if prefix is None:
        return line
    return "" if prefix["level"] in _HARMLESS_LEVELS else line[prefix.end() :].strip()

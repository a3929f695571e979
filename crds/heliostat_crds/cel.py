"""Rules of the API server's expression language (CEL), built from what a field may hold."""

from typing import Any

_MAX_SHOWN_CHARACTERS = 60


def text(value: str) -> str:
    """Write a string as a CEL literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def shown(value: str) -> str:
    """Give the expression that quotes a string in a bounded number of characters."""
    bounded = (
        f"({value}.size() > {_MAX_SHOWN_CHARACTERS}"
        f" ? {value}.substring(0, {_MAX_SHOWN_CHARACTERS - 3}) + '...' : {value})"
    )
    return f"'\"' + {bounded} + '\"'"


def told_rule(rule: str, message: str, value: str = "self") -> dict[str, Any]:
    """Give a rule on one string; the message follows the value, as it does in a folder."""
    return {
        "rule": rule,
        "message": message,
        "messageExpression": f"{shown(value)} + {text(f' {message}')}",
    }


def pattern_rule(pattern: str, allowed: str, value: str = "self") -> dict[str, Any]:
    """Give the rule that a string matches, told by what it may hold rather than by the pattern."""
    return told_rule(
        f"{value}.matches({text(pattern)})", f"is not allowed; expected text: {allowed}", value
    )

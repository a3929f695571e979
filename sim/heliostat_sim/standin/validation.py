"""What is wrong with a body that cannot be read, told as vLLM's validator tells it.

Bodies are decoded by msgspec; only one that fails is looked at a second time, to find out where.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat_sim.standin.errors import ApiError, unreadable_request

JSON_TYPE = "application/json"
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")
_EXPECTED = re.compile(r"Expected `(\w+)")
_INDEX = re.compile(r"\[(\d+)\]")
_EXPECTATIONS = {
    "int": ("int_type", "Input should be a valid integer"),
    "float": ("float_type", "Input should be a valid number"),
    "str": ("string_type", "Input should be a valid string"),
    "bool": ("bool_type", "Input should be a valid boolean"),
    "array": ("list_type", "Input should be a valid list"),
    "object": ("dict_type", "Input should be a valid dictionary"),
}
_TEXT_FOR_INTEGER = (
    "int_parsing",
    "Input should be a valid integer, unable to parse string as an integer",
)
_NOT_AN_OBJECT = (
    "model_attributes_type",
    "Input should be a valid dictionary or object to extract fields from",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its kind, its dotted place in the request, and what was there."""

    kind: str
    place: str
    message: str
    found: object
    context: str | None = None

    def __str__(self) -> str:
        shown = {"type": self.kind, "loc": self.place, "msg": self.message}
        shown["input"] = _describe(self.found)
        context = {} if self.context is None else {"ctx": {"error": self.context}}
        return str(shown | context)


def missing(place: str, parent: object) -> Problem:
    """Return the problem of a member that must be there."""
    return Problem("missing", place, "Field required", parent)


def refusal_of(problems: Sequence[Problem]) -> ApiError:
    """Return the 400 that lists problems; `param` is the place of the first."""
    count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}:"
    lines = [count, *(f"  {problem}" for problem in problems)]
    return unreadable_request("\n".join(lines), problems[0].place)


def wrong_content_type() -> ApiError:
    """Return the 400 of a body that does not claim to be JSON."""
    return unreadable_request(
        f"1 validation error:\n  Unsupported Media Type: Only '{JSON_TYPE}' is allowed"
    )


def find_problem(data: bytes, decode_error: str) -> Problem:
    """Return why a body could not be decoded; decode_error is msgspec's text."""
    if not data:
        return missing("body", None)
    try:
        body = json.loads(data)
    except json.JSONDecodeError as error:
        return Problem("json_invalid", f"body.{error.pos}", "JSON decode error", {}, error.msg)
    except (UnicodeDecodeError, RecursionError) as error:
        return Problem("json_invalid", "body", "JSON decode error", {}, str(error))
    if not isinstance(body, dict):
        return Problem(_NOT_AN_OBJECT[0], "body", _NOT_AN_OBJECT[1], body)
    return _find_member(body, decode_error)


def _find_member(body: object, decode_error: str) -> Problem:
    where = _WHERE.match(decode_error)
    what, path = (where["what"], where["path"] or "") if where else (decode_error, "")
    names = [name for name in _INDEX.sub(r".\1", path).split(".") if name]
    place = ".".join(["body", *names])
    found = _follow(body, names)
    if (absent := _MISSING.search(what)) is not None:
        return missing(f"{place}.{absent[1]}", found)
    expected = _EXPECTED.search(what)
    kind, message = _EXPECTATIONS.get(expected[1] if expected else "", ("value_error", what))
    if kind == "int_type" and isinstance(found, str):
        kind, message = _TEXT_FOR_INTEGER
    return Problem(kind, place, message, found)


def _follow(value: object, names: Sequence[str]) -> object:
    """Return the member that the names lead to; the last one found if they lead nowhere."""
    for name in names:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
    return value


def _describe(value: object) -> str:
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)

"""Validation errors in the words of a manifest's author: line, field, what is allowed."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from heliostat_crds.fields import AT
from heliostat_crds.problem import ManifestProblem
from heliostat_crds.schema import allowed_values, schema_at, schema_of, type_name
from heliostat_crds.yaml_document import YamlDocument

_MAX_SHOWN_CHARACTERS = 60


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    file: str,
    document: YamlDocument,
    base: Sequence[str | int] = (),
) -> list[ManifestProblem]:
    """Translate pydantic's errors about the resource at `base`, in the order of their lines."""
    problems = [
        ManifestProblem(
            file,
            document.line_of((*base, *at)),
            field_path((*base, *at)),
            _message(details, model, at),
        )
        for details in error.errors(include_url=False)
        for at in [(*details["loc"], *details.get("ctx", {}).get(AT, ()))]
    ]
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.field))


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Translate the first of pydantic's errors into one line: `field: message`."""
    details = error.errors(include_url=False)[0]
    at = (*details["loc"], *details.get("ctx", {}).get(AT, ()))
    return f"{field_path(at)}: {_message(details, model, at)}"


def field_path(path: Sequence[str | int]) -> str:
    """Write a path as `spec.endpoints[1].address`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _message(details: ErrorDetails, model: type[BaseModel], at: tuple[str | int, ...]) -> str:
    root = schema_of(model)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "this field is required"
    if kind == "extra_forbidden":
        fields = (schema_at(root, at[:-1]) or {}).get("properties", {})
        close = get_close_matches(str(at[-1]), fields, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        return f"unknown field{hint}; allowed: {', '.join(fields)}"
    if kind == "misfit":
        return details["msg"]
    if kind == "value_error":
        return str(context["error"])
    return _mismatch(details["input"], root, at) or details["msg"]


def _mismatch(value: Any, root: dict[str, Any], at: tuple[str | int, ...]) -> str | None:
    """Say what stands there and what should; None where the schema knows no better."""
    schema = schema_at(root, at)
    if schema is None:
        return None
    wanted = type_name(root, schema)
    allowed = allowed_values(schema)
    return f"{shown(value)} is not allowed; expected {wanted}" + (f": {allowed}" if allowed else "")


def shown(value: Any) -> str:
    """Name a value of a manifest in a bounded number of characters."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        short = value if len(value) <= _MAX_SHOWN_CHARACTERS else f"{value[:57]}..."
        return f'"{short}"'
    if isinstance(value, int | float):
        return f"the number {value}"
    name = "list" if isinstance(value, list) else "mapping"
    return f"a {name} of {len(value)}" if value else f"an empty {name}"

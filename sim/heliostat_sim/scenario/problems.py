"""What is wrong with a scenario, told by file, line and field."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from heliostat_crds.fields import AT
from heliostat_crds.problem import ManifestProblem
from heliostat_crds.validation import field_path, shown
from heliostat_crds.yaml_document import YamlDocument
from heliostat_sim.workload.session import WorkloadError


class ScenarioError(WorkloadError):
    """A scenario cannot be read or made; the message says where and why, a problem a line."""


def scenario_error(
    error: ValidationError, source: str, data: Any, document: YamlDocument | None
) -> ScenarioError:
    """Translate pydantic's errors; without a document the lines are not told."""
    problems = []
    for details in error.errors(include_url=False):
        at = _without_tags((*details["loc"], *details.get("ctx", {}).get(AT, ())), data)
        line = None if document is None else document.line_of(at)
        problems.append(ManifestProblem(source, line, field_path(at), _message(details)))
    problems.sort(key=lambda problem: problem.line or 0)
    return ScenarioError("\n".join(map(str, problems)))


def _without_tags(loc: Sequence[str | int], data: Any) -> tuple[str | int, ...]:
    """Drop the kinds that pydantic puts behind the fields that they choose among."""
    at: list[str | int] = []
    for part in loc:
        if isinstance(data, dict):
            if part not in data and part == data.get("kind"):
                continue
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = None
        at.append(part)
    return tuple(at)


def _message(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "this field is required"
    if kind == "extra_forbidden":
        return "unknown field"
    if kind in ("misfit", "union_tag_not_found"):
        return details["msg"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "union_tag_invalid":
        return _unknown_kind(str(context["tag"]), str(context["expected_tags"]))
    return f"{shown(details['input'])} is not allowed: {details['msg']}"


def _unknown_kind(tag: str, expected: str) -> str:
    kinds = [kind.strip(" '") for kind in expected.split(",")]
    close = get_close_matches(tag, kinds, n=1)
    hint = f' (did you mean "{close[0]}"?)' if close else ""
    return f'there is no kind "{tag}"{hint}; there are {", ".join(kinds)}'

"""The reference table of the fields, written from the models so that it cannot be wrong."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from heliostat_crds.fields import VALIDATIONS
from heliostat_crds.schema import Schema, allowed_values, resolve, schema_of, type_name
from heliostat_crds.structural_schema import structural_schema


def field_table(model: type[BaseModel]) -> str:
    """Give the fields of a resource as a Markdown table."""
    root = schema_of(model)
    rows = [
        "| field | type | default | allowed | meaning |",
        "|---|---|---|---|---|",
        *_rows(root, root, ""),
    ]
    return "\n".join(rows) + "\n"


def server_rules(model: type[BaseModel]) -> str:
    """List what only the API server holds, as it alone knows what was there before."""
    return "".join(f"- {message}\n" for message in _transition_messages(structural_schema(model)))


def filled_page(page: str, model: type[BaseModel]) -> str:
    """Give a page with the marked parts written anew; the rest is for people to write."""
    for part, text in (("fields", field_table(model)), ("server-rules", server_rules(model))):
        begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->"
        before, found, rest = page.partition(begin)
        if found:
            page = before + begin + text + end + rest.partition(end)[2]
    return page


def _transition_messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get(VALIDATIONS, ()):
        if "oldSelf" in rule["rule"]:
            yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from _transition_messages(field)


def _rows(root: Schema, schema: Schema, prefix: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, declared in schema["properties"].items():
        field = resolve(root, declared)
        path = f"{prefix}{name}"
        meaning = " ".join(field.get("description", "").split())
        cells = [
            f"`{path}`",
            type_name(root, field),
            "required" if name in required else _default(declared),
            allowed_values(field),
            meaning,
        ]
        yield "| " + " | ".join(cells) + " |"
        nested, infix = field, "."
        if field["type"] == "array":
            nested, infix = resolve(root, field["items"]), "[]."
        if "properties" in nested:
            yield from _rows(root, nested, f"{path}{infix}")


def _default(declared: dict[str, Any]) -> str:
    default = declared.get("default")
    if default is None or default in ([], {}):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"

"""The reference table of the fields, written from the models so that it cannot be wrong."""

import json
from collections.abc import Iterator
from typing import Any

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.schema import Schema, allowed_values, resolve, schema_of, type_name


def markdown() -> str:
    """Give the fields of an InferencePool as a Markdown table."""
    root = schema_of(InferencePool)
    rows = [
        "| field | type | default | allowed | meaning |",
        "|---|---|---|---|---|",
        *_rows(root, root, ""),
    ]
    return "\n".join(rows) + "\n"


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

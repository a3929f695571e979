"""From the models to the structural schemas of a CustomResourceDefinition."""

from typing import Any

from pydantic import BaseModel

from heliostat_crds.cel import pattern_rule
from heliostat_crds.fields import VALIDATIONS
from heliostat_crds.schema import Schema, allowed_values, resolve, schema_of

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    VALIDATIONS,
)
_INT32_MAX = 2**31 - 1


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """Give a model's schema as Kubernetes takes it; `defaults` writes those of the fields too."""
    root = schema_of(model)
    return _structural(root, resolve(root, root), defaults)


def _structural(root: Schema, schema: Schema, defaults: bool) -> Schema:
    """Translate one schema; the API server takes only a part of what JSON schema has."""
    written: Schema = {key: schema[key] for key in _KEPT if key in schema}
    if "description" in written:
        written["description"] = " ".join(written["description"].split())
    if schema.get("x-kubernetes-int-or-string"):
        return _told(schema, {key: written[key] for key in written if key != "type"})
    if schema["type"] == "integer":
        large = schema.get("maximum", _INT32_MAX + 1) > _INT32_MAX
        written["format"] = "int64" if large else "int32"
    if schema["type"] == "array":
        written["items"] = _structural(root, resolve(root, schema["items"]), defaults)
    if schema["type"] == "object":
        _add_fields(root, schema, written, defaults)
    return _told(schema, written)


def _add_fields(root: Schema, schema: Schema, written: Schema, defaults: bool) -> None:
    if "properties" in schema:
        written["properties"] = {
            name: _field(root, declared, defaults)
            for name, declared in schema["properties"].items()
        }
        if "required" in schema:
            written["required"] = schema["required"]
    elif isinstance(schema.get("additionalProperties"), dict):
        values = resolve(root, schema["additionalProperties"])
        written["additionalProperties"] = _structural(root, values, defaults)


def _field(root: Schema, declared: Schema, defaults: bool) -> Schema:
    schema = resolve(root, declared)
    written = _structural(root, schema, defaults)
    if not defaults:
        return written
    default = declared.get("default")
    bounds = "" if "enum" in schema else allowed_values(schema)
    written["description"] += f" Allowed: {bounds}." if bounds else ""
    if default is not None and default != []:
        written["default"] = default
        written["description"] += f" Default: {default}."
    elif "anyOf" not in declared and "required" not in written:
        whole = {
            name: field["default"]
            for name, field in written.get("properties", {}).items()
            if "default" in field
        }
        if whole:
            written["default"] = whole
    return written


def _told(schema: Schema, written: Schema) -> Schema:
    """Say what is allowed in words where there are words for the pattern."""
    rules: list[dict[str, Any]] = written.pop(VALIDATIONS, [])
    if "pattern" in written and schema.get("allowed"):
        rules = [pattern_rule(written.pop("pattern"), schema["allowed"]), *rules]
    return {**written, VALIDATIONS: rules} if rules else written

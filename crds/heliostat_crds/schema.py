"""The fields of a model as its JSON schema has them: what each may hold, in a user's words."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "mapping",
}


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """Give the model's JSON schema, by the names that manifests use."""
    return model.model_json_schema(by_alias=True)


def resolve(root: Schema, schema: Schema) -> Schema:
    """Follow references and drop null alternatives; what stands beside a reference wins."""
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return {**resolve(root, options[0]), **rest}
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**resolve(root, target), **rest}
    return schema


def schema_at(root: Schema, path: Sequence[str | int]) -> Schema | None:
    """Give the schema of the value at a path; None where there is no such field."""
    schema = resolve(root, root)
    for part in path:
        if isinstance(part, int):
            step = schema.get("items")
        else:
            step = schema.get("properties", {}).get(part, schema.get("additionalProperties"))
        if not step:
            return None
        schema = resolve(root, step)
    return schema


def type_name(root: Schema, schema: Schema) -> str:
    """Name the type: `integer`, `list of text`, ..."""
    name = _TYPES[schema["type"]]
    if name == "list":
        return f"list of {type_name(root, resolve(root, schema['items']))}"
    return name


def allowed_values(schema: Schema) -> str:
    """Say in words what the field may hold beyond its type; empty where there is no bound."""
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "allowed" in schema:
        return str(schema["allowed"])
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    for things, noun in (("Items", "items"), ("Properties", "entries")):
        if f"max{things}" in schema:
            at_least, at_most = schema.get(f"min{things}"), schema[f"max{things}"]
            return f"{at_least} to {at_most} {noun}" if at_least else f"at most {at_most} {noun}"
    return ""

"""The CustomResourceDefinitions; that an API server takes them is proven in e2e."""

from collections.abc import Iterator
from typing import Any

import pytest

from heliostat_crds.definitions import Definition, peer_definition, pool_definition
from heliostat_crds.fields import VALIDATIONS
from heliostat_crds.generate import chart_template
from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.region_peer import RegionPeer

DEFINITIONS = [pool_definition(), peer_definition()]
POOL = {
    "apiVersion": "heliostat.dev/v1alpha1",
    "kind": "InferencePool",
    "metadata": {"name": "chat"},
    "spec": {"model": {"name": "llama"}},
}
PEER = {
    "apiVersion": "heliostat.dev/v1alpha1",
    "kind": "RegionPeer",
    "metadata": {"name": "eu"},
    "spec": {"region": "eu", "gateway": {"address": "eu:443"}, "identity": "spiffe://a/b"},
}


def schema_of(definition: Definition) -> dict[str, Any]:
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def every(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from every(field, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if part in schema:
            yield from every(schema[part], f"{path}[]")


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """Fill in defaults as an API server does."""
    if isinstance(value, list):
        return [defaulted(schema["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    filled = dict(value)
    for name, field in schema["properties"].items():
        if name not in filled and "default" in field:
            filled[name] = field["default"]
        if name in filled:
            filled[name] = defaulted(field, filled[name])
    return filled


def test_the_servers_defaults_are_the_models() -> None:
    """A pool that an API server has filled in means what the bare manifest means."""
    filled = defaulted(schema_of(pool_definition()), POOL)
    assert filled["spec"]["engine"]["modelCache"] == {"type": "EmptyDir"}
    assert InferencePool.from_object(filled) == InferencePool.from_object(POOL)
    peer = defaulted(schema_of(peer_definition()), PEER)
    assert peer["spec"]["price"] == {"perGiB": 0.0}
    assert (peer["spec"]["leaveAboveWait"], peer["spec"]["roundTrip"]) == ("0s", "100ms")
    assert RegionPeer.model_validate(peer) == RegionPeer.model_validate(PEER)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda it: str(it["spec"]["names"]["kind"]))
def test_the_schemas_are_structural_and_told(definition: Definition) -> None:
    """Each part has a type, each field of the spec a meaning, each list says how it is merged."""
    for path, schema in every(schema_of(definition)):
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        if path.startswith(".spec") and not path.endswith("[]"):
            assert schema.get("description"), path
        if schema.get("type") == "array":
            assert schema["maxItems"] > 0, path
            assert "x-kubernetes-list-type" in schema, path


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda it: str(it["spec"]["names"]["kind"]))
def test_every_rule_says_what_to_do(definition: Definition) -> None:
    """No rule answers with its own CEL text."""
    rules = [rule for _, part in every(schema_of(definition)) for rule in part.get(VALIDATIONS, ())]
    assert len(rules) > 3
    assert all(len(rule["message"]) > 20 for rule in rules)
    assert all("self" not in rule["message"].split() for rule in rules)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda it: str(it["spec"]["names"]["kind"]))
def test_only_the_keeping_is_templated(definition: Definition) -> None:
    """Helm finds nothing to fill in but the annotation that keeps the definition."""
    template = chart_template(definition)
    assert template.count("{{") == template.count("}}") == 2
    assert "{{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n" in template
    assert "&id" not in template

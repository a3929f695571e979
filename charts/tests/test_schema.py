"""What users may set: everything that is documented, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..values_table import leaf_values, with_table
from .rendering import CHART, HelmError, render

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES = (CHART / "values.yaml").read_text()
DOCUMENTED = {path for path, _, _ in leaf_values(VALUES)}
# Helm's own, which every chart gets.
HELMS_OWN = {"global", "crds.global"}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference names, or the schema itself."""
    if "$ref" not in schema:
        return schema
    definition: dict[str, Any] = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return definition


def schema_leaves(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """The values that the schema knows, down to where the documentation ends."""
    for name, declared in resolved(schema).get("properties", {}).items():
        path = f"{above}{name}"
        nested = resolved(declared)
        if path in DOCUMENTED or "properties" not in nested:
            yield path
        else:
            yield from schema_leaves(nested, f"{path}.")


def objects_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema within, at any depth, that declares an object's properties."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for nested in schema.values():
            yield from objects_in(nested)


def test_schema_and_values_name_the_same() -> None:
    """Each documented value is in the schema, and each value of the schema is documented."""
    assert set(schema_leaves(SCHEMA)) - HELMS_OWN == DOCUMENTED


def test_no_object_of_the_schema_is_open() -> None:
    """Wherever the schema knows the keys, it refuses others."""
    open_ones = [
        each for each in objects_in(SCHEMA) if each.get("additionalProperties") is not False
    ]
    assert open_ones == []


def test_the_table_of_values_is_current() -> None:
    """The README's table says what values.yaml says."""
    readme = (CHART / "README.md").read_text()
    assert readme == with_table(readme, VALUES), "run make charts"


def test_values_are_wrapped_and_documented() -> None:
    """values.yaml is read in a terminal: no line is longer than 100 characters."""
    assert [line for line in VALUES.splitlines() if len(line) > 100] == []
    assert yaml.safe_load(VALUES)


REFUSED = [
    ("a typo", "gateway: {replica: 1}", "additional properties 'replica' not allowed"),
    ("a typo at the root", "operators: {}", "additional properties 'operators' not allowed"),
    ("a typo in a limit", "operator: {resources: {limit: {}}}", "'limit' not allowed"),
    ("a typo in a variable", "operator: {extraEnv: [{nme: A}]}", "'nme' not allowed"),
    ("a hundred gateways", "gateway: {replicas: 101}", "maximum: got 101, want 100"),
    (
        "an autoscaler the wrong way round",
        "gateway: {autoscaling: {enabled: true, minReplicas: 9, maxReplicas: 8}}",
        "gateway.autoscaling: minReplicas is more than maxReplicas",
    ),
    ("a region that is none", "region: {name: US}", "does not match pattern"),
    ("a group twice", "region: {groups: [us, us]}", "items at 0 and 1 are equal"),
    (
        "federation of a region without a name",
        "federation: {enabled: true, certificate: {secretName: region}}",
        "region.name: with federation.enabled this region needs a name",
    ),
    (
        "federation without a certificate",
        "{region: {name: us}, federation: {enabled: true}}",
        "federation.certificate: name a Secret, or have cert-manager make it",
    ),
    (
        "a region's certificate without an issuer",
        "federation: {certificate: {certManager: {enabled: true}}}",
        "missing property 'name'",
    ),
    ("an identity that is none", "federation: {identity: us-east}", "does not match pattern"),
    (
        "other regions without federation",
        "peers: [{region: eu, gateway: {address: 'eu:9443'}, identity: 'spiffe://x/eu'}]",
        "peers: other regions are reached only with federation.enabled",
    ),
    (
        "another region without an identity",
        "peers: [{region: eu, gateway: {address: 'eu:9443'}}]",
        "missing property 'identity'",
    ),
    ("a typo in another region", "peers: [{regoin: eu}]", "additional properties 'regoin' not"),
    (
        "federation on a port of Envoy",
        "{gateway: {replicas: 2}, federation: {port: 8443}}",
        "federation.port: 8443 is a port of Envoy; choose another",
    ),
    (
        "federation on the picker's port",
        "{gateway: {replicas: 2}, federation: {port: 9002}}",
        "federation.port: 9002 is gateway.picker.port too; choose another",
    ),
    ("a number as text", 'operator: {replicas: "2"}', "got string, want integer"),
    ("an unknown level", "log: {level: loud}", "value must be one of 'debug'"),
    ("an unknown format", "log: {format: xml}", "value must be one of 'json'"),
    ("an unknown Envoy level", "gateway: {envoy: {logLevel: warn}}", "value must be one of"),
    ("an unknown type of Service", "gateway: {service: {type: Public}}", "value must be one of"),
    ("a port that is none", "adminPort: 70000", "maximum: got 70,000, want 65,535"),
    ("a port of Envoy", "adminPort: 8080", "adminPort: 8080 is a port of Envoy"),
    ("Envoy's admin port", "gateway: {picker: {port: 15000}}", "15000 is a port of Envoy"),
    ("one port for two", "gateway: {picker: {port: 9090}}", "9090 is adminPort too"),
    ("a short digest", "image: {digest: 'sha256:abc'}", "does not match pattern"),
    ("an image without a name", "image: {repository: ''}", "minLength: got 0, want 1"),
    ("a pull policy", "image: {pullPolicy: Sometimes}", "value must be one of 'Always'"),
    ("a namespace twice", "watchNamespaces: [a, a]", "items at 0 and 1 are equal"),
    ("a namespace that is none", "watchNamespaces: ['*']", "does not match pattern"),
    ("TLS without a certificate", "gateway: {tls: {enabled: true}}", "minLength: got 0, want 1"),
    (
        "cert-manager without an issuer",
        "gateway: {tls: {enabled: true, certManager: {enabled: true}}}",
        "missing property 'name'",
    ),
    ("a route to nowhere", "gatewayApi: {enabled: true}", "minItems: got 0, want 1"),
    ("an unknown monitor", "metrics: {monitor: true}", "value must be one of 'None'"),
    ("an interval without unit", "metrics: {interval: '15'}", "does not match pattern"),
    ("a URL without scheme", "gateway: {url: example.org}", "does not match pattern"),
    ("no time to drain", "gateway: {drainSeconds: 0}", "minimum: got 0, want 1"),
    ("root", "runAsUser: 0", "minimum: got 0, want 1"),
    ("no word on definitions", "crds: {keep: maybe}", "got string, want boolean"),
    ("a typo about definitions", "crds: {kept: true}", "additional properties 'kept' not allowed"),
]


@pytest.mark.parametrize(
    ("values", "told"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_wrong_values_are_refused(values: str, told: str, tmp_path: Path) -> None:
    """Helm refuses wrong values before anything is installed, and says which."""
    file = tmp_path / "values.yaml"
    file.write_text(values)
    with pytest.raises(HelmError) as refusal:
        render("--values", file)
    assert told in str(refusal.value)

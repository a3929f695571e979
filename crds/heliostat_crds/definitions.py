"""The CustomResourceDefinitions: names, versions, columns and subresources around the schemas."""

from typing import Any

from pydantic import BaseModel

from heliostat_crds.cel import pattern_rule
from heliostat_crds.fields import VALIDATIONS
from heliostat_crds.inference_pool import KIND, InferencePool, Spec
from heliostat_crds.metadata import MAX_NAME_CHARACTERS, NAME_ALLOWED, NAME_PATTERN
from heliostat_crds.region_peer import PEER_KIND, PeerSpec, RegionPeer
from heliostat_crds.status import PeerStatus, PoolStatus
from heliostat_crds.structural_schema import structural_schema
from heliostat_crds.wire_names import GROUP, VERSION

Definition = dict[str, Any]


def pool_definition() -> Definition:
    """Give the CustomResourceDefinition of InferencePool."""
    return _definition(
        kind=KIND,
        plural="inferencepools",
        short="hpool",
        schema=_root_schema(InferencePool, Spec, PoolStatus),
        columns=[
            _column("Model", ".spec.model.name", "The model that the pool serves."),
            _column("Desired", ".spec.replicas", "Engines asked for.", value_type="integer"),
            _column("Ready", ".status.readyReplicas", "Engines that serve.", value_type="integer"),
            _column("Status", _condition("Ready", "reason"), "Whether it serves, or why not."),
            _column("Message", _condition("Ready", "message"), "The same in a sentence."),
            _column("URL", ".status.url", "Where clients reach the model.", priority=1),
            _AGE,
        ],
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    )


def peer_definition() -> Definition:
    """Give the CustomResourceDefinition of RegionPeer."""
    return _definition(
        kind=PEER_KIND,
        plural="regionpeers",
        short="hpeer",
        schema=_root_schema(RegionPeer, PeerSpec, PeerStatus),
        columns=[
            _column("Region", ".spec.region", "The peer's region."),
            _column("Address", ".spec.gateway.address", "Where the peer is reached."),
            _column("State", _condition("Connected", "reason"), "Whether it answers, or why not."),
            _column("RTT", ".status.roundTrip", "Measured round trip."),
            _column("LastSeen", ".status.lastSeen", "When it was last heard.", value_type="date"),
            _column("Identity", ".spec.identity", "What its certificate must hold.", priority=1),
            _column("Message", _condition("Connected", "message"), "More of it.", priority=1),
            _AGE,
        ],
        subresources={"status": {}},
    )


def _definition(
    kind: str,
    plural: str,
    short: str,
    schema: Definition,
    columns: list[Definition],
    subresources: Definition,
) -> Definition:
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["heliostat"],
            },
            "versions": [version],
        },
    }


def _root_schema(
    resource: type[BaseModel], spec: type[BaseModel], status: type[BaseModel]
) -> Definition:
    """Put spec and status under a resource; the API server itself checks the rest."""
    described = structural_schema(resource)
    return {
        "description": described["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                **structural_schema(spec),
                "description": described["properties"]["spec"]["description"],
            },
            "status": structural_schema(status, defaults=False),
        },
        VALIDATIONS: [_name_rule()],
    }


def _name_rule() -> Definition:
    """Give the rule that the names derived from the resource's are possible."""
    rule = pattern_rule(NAME_PATTERN, NAME_ALLOWED, "self.metadata.name")
    rule["rule"] += f" && self.metadata.name.size() <= {MAX_NAME_CHARACTERS}"
    return {**rule, "message": f"metadata.name {rule['message']}"}


def _column(
    name: str, path: str, description: str, *, value_type: str = "string", priority: int = 0
) -> Definition:
    column = {"name": name, "type": value_type, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


_AGE: Definition = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _condition(name: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{field}'

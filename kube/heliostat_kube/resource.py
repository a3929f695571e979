"""The kinds of objects that Heliostat reads or writes, and where the API server keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
"""One object as the API server sends it."""


@dataclass(frozen=True)
class Resource:
    """One kind of object. `group` is empty for the core kinds."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_path(self) -> str:
        """URL path of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path of the collection, or of one object; without namespace, over all of them."""
        parts = [self.group_path]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
INFERENCE_POOLS = Resource("heliostat.dev", "v1alpha1", "inferencepools", "InferencePool")
REGION_PEERS = Resource("heliostat.dev", "v1alpha1", "regionpeers", "RegionPeer")
UPSTREAM_INFERENCE_POOLS = Resource(
    "inference.networking.k8s.io", "v1", "inferencepools", "InferencePool"
)
INFERENCE_OBJECTIVES = Resource(
    "inference.networking.x-k8s.io", "v1alpha2", "inferenceobjectives", "InferenceObjective"
)

KNOWN_RESOURCES = (
    PODS,
    SERVICES,
    SECRETS,
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    DEPLOYMENTS,
    REPLICA_SETS,
    POD_DISRUPTION_BUDGETS,
    ENDPOINT_SLICES,
    LEASES,
    EVENTS,
    CUSTOM_RESOURCE_DEFINITIONS,
    INFERENCE_POOLS,
    REGION_PEERS,
    UPSTREAM_INFERENCE_POOLS,
    INFERENCE_OBJECTIVES,
)

_BY_KIND = {(resource.api_version, resource.kind): resource for resource in KNOWN_RESOURCES}


def resource_of(obj: Mapping[str, Any]) -> Resource:
    """Find an object's resource by its apiVersion and kind; KeyError where it is none of ours."""
    return _BY_KIND[obj["apiVersion"], obj["kind"]]


def key_of(obj: Mapping[str, Any]) -> str:
    """`namespace/name` of an object; just the name where it has no namespace."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])

"""What a pod's environment and files refer to: its own fields, ConfigMaps and Secrets."""

import base64
import re
from dataclasses import dataclass, field
from typing import Any

from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_kube.resource import CONFIG_MAPS, SECRETS, Json, Resource

_MAP_FIELD = re.compile(r"^metadata\.(labels|annotations)(?:\['(.+)'\])?$")
_QUANTITY = re.compile(r"^([0-9.]+)([a-zA-Z]*)$")
_UNITS = {"": 1, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class ConfigError(Exception):
    """The container cannot be made as its specification says (CreateContainerConfigError)."""


@dataclass
class PodFacts:
    """A pod and what only its kubelet knows of it."""

    pod: Json
    host_address: str
    pod_address: str = ""
    node: str = field(init=False)

    def __post_init__(self) -> None:
        self.node = self.pod["spec"]["nodeName"]

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])


async def fetch_data(
    api: KubeletApi, resource: Resource, namespace: str, name: str, *, optional: bool
) -> dict[str, bytes]:
    """Return a ConfigMap's or Secret's content. Raises ConfigError where it must exist."""
    found = await api.get(resource, name, namespace)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{resource.kind.lower()} "{name}" not found')
    if resource is SECRETS:
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    binary = found.get("binaryData") or {}
    return data | {key: base64.b64decode(value) for key, value in binary.items()}


async def fetch_key(api: KubeletApi, namespace: str, source: Json) -> str | None:
    """Return the value of a secretKeyRef or configMapKeyRef; None if it is optional and absent."""
    resource, reference = (
        (SECRETS, source["secretKeyRef"])
        if "secretKeyRef" in source
        else (CONFIG_MAPS, source["configMapKeyRef"])
    )
    optional = bool(reference.get("optional"))
    name, key = reference["name"], reference["key"]
    data = await fetch_data(api, resource, namespace, name, optional=optional)
    if key in data:
        return data[key].decode(errors="replace")
    if optional:
        return None
    raise ConfigError(f"couldn't find key {key} in {resource.kind} {namespace}/{name}")


def field_value(facts: PodFacts, path: str) -> str:
    """Return what a fieldRef names. Raises ConfigError for a field there is not."""
    pod = facts.pod
    if (found := _MAP_FIELD.match(path)) is not None:
        members = pod["metadata"].get(found[1]) or {}
        if found[2] is not None:
            return str(members.get(found[2], ""))
        return "\n".join(f'{key}="{value}"' for key, value in sorted(members.items()))
    own = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": facts.namespace,
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.hostIP": facts.host_address,
        "status.hostIPs": facts.host_address,
        "status.podIP": facts.pod_address,
        "status.podIPs": facts.pod_address,
    }
    if path not in own:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(own[path])


def resource_value(container: Json, reference: Json) -> str:
    """Return what a resourceFieldRef names, in units of its divisor, rounded up."""
    kind, _, name = str(reference["resource"]).partition(".")
    resources = container.get("resources") or {}
    found: Any = (resources.get(kind) or {}).get(name) or "0"
    divisor = parse_quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(-int(-parse_quantity(str(found)) // divisor))


def parse_quantity(text: str) -> float:
    """Return a Kubernetes quantity as a number. Raises ConfigError."""
    found = _QUANTITY.match(text)
    if found is None or found[2] not in _UNITS:
        raise ConfigError(f"not a quantity: {text}")
    return float(found[1]) * _UNITS[found[2]]

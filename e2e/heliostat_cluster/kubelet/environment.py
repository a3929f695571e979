"""A container's environment and command line, as its specification and image say."""

import re
from collections.abc import Mapping

from heliostat_cluster.images.table import Image
from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.references import (
    PodFacts,
    fetch_data,
    fetch_key,
    field_value,
    resource_value,
)
from heliostat_kube.resource import CONFIG_MAPS, SECRETS, Json

_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")


async def resolve_environment(
    api: KubeletApi, facts: PodFacts, container: Json, image: Image, service: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables; later sources win. Raises ConfigError and KubeError."""
    variables = {**image.environment, "HOSTNAME": hostname_of(facts.pod), **service}
    for source in container.get("envFrom") or ():
        variables |= await _from_source(api, facts.namespace, source)
    for entry in container.get("env") or ():
        value = await _value(api, facts, container, entry)
        if value is not None:
            variables[entry["name"]] = expand(value, variables)
    return variables


def resolve_command(container: Json, image: Image, variables: Mapping[str, str]) -> list[str]:
    """Return the command line: `command` replaces entrypoint and arguments, `args` the latter."""
    command = [expand(part, variables) for part in container.get("command") or ()]
    arguments = [expand(part, variables) for part in container.get("args") or ()]
    if command:
        return command + arguments
    return [*image.entrypoint, *(arguments or image.arguments)]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace $(NAME) where there is such a variable; $$ is one $."""

    def replacement(found: re.Match[str]) -> str:
        if found[1] is None:
            return "$"
        return variables.get(found[1], found[0])

    return _REFERENCE.sub(replacement, text)


def hostname_of(pod: Json) -> str:
    """Return the pod's hostname."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63]


async def _from_source(api: KubeletApi, namespace: str, source: Json) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
        if (reference := source.get(kind)) is not None:
            data = await fetch_data(
                api,
                resource,
                namespace,
                reference["name"],
                optional=bool(reference.get("optional")),
            )
            return {prefix + key: value.decode(errors="replace") for key, value in data.items()}
    return {}


async def _value(api: KubeletApi, facts: PodFacts, container: Json, entry: Json) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return str(entry.get("value") or "")
    if "fieldRef" in source:
        return field_value(facts, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(container, source["resourceFieldRef"])
    return await fetch_key(api, facts.namespace, source)

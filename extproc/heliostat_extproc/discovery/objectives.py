"""InferenceObjectives of a cluster: the priorities that requests ask for by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliostat_extproc.discovery.catalog import Catalog
from heliostat_extproc.discovery.cluster_pool import UPSTREAM_GROUP
from heliostat_extproc.discovery.served_pool import Member
from heliostat_kube.resource import Json

Priorities = Mapping[tuple[str, str], int]
"""By served pool and name of the objective."""

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True, order=True)
class Objective:
    """One InferenceObjective; without a priority it has that of requests which name none."""

    namespace: str
    name: str
    pool: str
    priority: int


def parse_objective(obj: Json) -> Objective | None:
    """Read an InferenceObjective; None where it makes no sense."""
    spec = obj.get("spec") or {}
    pool, priority = (spec.get("poolRef") or {}).get("name"), spec.get("priority", 0)
    if not isinstance(pool, str) or not isinstance(priority, int):
        return None
    if not _LOWEST <= priority <= _HIGHEST:
        return None
    return Objective(obj["metadata"]["namespace"], obj["metadata"]["name"], pool, priority)


def priorities_of(
    objectives: Iterable[Objective], members: Iterable[Member], catalog: Catalog
) -> dict[tuple[str, str], int]:
    """Say which priority each objective gives, in the pools that serve what it is for."""
    served: dict[tuple[str, str], str] = {}
    for member in members:
        namespace, _, name = member.claimant.key.partition("/")
        resolved = catalog.resolve(member.claimant.model)
        if resolved is not None:
            served[namespace, name.removesuffix(f".{UPSTREAM_GROUP}")] = resolved.pool
    return {
        (served[it.namespace, it.pool], it.name): it.priority
        for it in sorted(objectives)
        if (it.namespace, it.pool) in served
    }

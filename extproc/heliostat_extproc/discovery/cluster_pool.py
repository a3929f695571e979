"""Pools as a cluster declares them, ours and those of the Gateway API, with the pods they find."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from heliostat_crds.claims import Claimant, claimant_of, created_seconds
from heliostat_crds.inference_pool import InferencePool, PoolError, PoolKind
from heliostat_crds.wire_names import MANAGED_BY, MANAGED_BY_LABEL, MODELS_ANNOTATION, POOL_LABEL
from heliostat_extproc.discovery.engine_pod import EnginePod
from heliostat_extproc.discovery.served_pool import Member
from heliostat_kube.resource import Json
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PoolSettings

UPSTREAM_GROUP = "inference.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class ClusterPool:
    """A pool and where its endpoints come from: pods of a selector, or addresses that it names.

    `managed_name` is the name that its pods are labelled with where our operator runs them: those
    pods tell which adapters they hold.
    """

    claimant: Claimant
    settings: PoolSettings
    namespace: str
    selector: str | None
    ports: tuple[int, ...] = ()
    fixed: tuple[EndpointSettings, ...] = ()
    managed_name: str | None = None


@dataclass(frozen=True, slots=True)
class PoolReading:
    """What one object says: a pool, or why it is none. Both None: it is not for this router."""

    pool: ClusterPool | None
    problem: str | None = None


def parse_pool(obj: Json) -> PoolReading:
    """Read an InferencePool of ours; its status and other metadata are left out."""
    meta = obj["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "creationTimestamp") if key in meta}
    try:
        pool = InferencePool.from_object({**obj, "metadata": kept})
    except PoolError as error:
        return PoolReading(None, f"InferencePool {meta['namespace']}/{meta['name']}: {error}")
    return PoolReading(_cluster_pool(pool))


def _cluster_pool(pool: InferencePool) -> ClusterPool:
    managed = pool.pool_kind is PoolKind.MANAGED
    labels = {POOL_LABEL: pool.metadata.name} if managed else {}
    if pool.spec.selector is not None:
        labels = dict(pool.spec.selector.match_labels)
    return ClusterPool(
        claimant=claimant_of(pool, created_seconds(pool)),
        settings=pool.pool_settings(),
        namespace=pool.metadata.namespace or "",
        selector=selector_of(labels) if labels else None,
        ports=(pool.spec.engine.port,),
        fixed=pool.endpoint_settings(),
        managed_name=pool.metadata.name if managed else None,
    )


def upstream_parser(picker_service: str) -> Callable[[Json], PoolReading]:
    """Make the reader of the Gateway API's pools: those that name our Service as their picker.

    Their models are named by an annotation, else the pool's name is the model's. What our operator
    exports is passed over: it is a pool of ours already.
    """

    def parse(obj: Json) -> PoolReading:
        meta, spec = obj["metadata"], obj.get("spec") or {}
        managed_by = (meta.get("labels") or {}).get(MANAGED_BY_LABEL)
        picker = (spec.get("endpointPickerRef") or {}).get("name")
        if managed_by == MANAGED_BY or picker != picker_service:
            return PoolReading(None)
        return PoolReading(_upstream_pool(meta, spec))

    return parse


def _upstream_pool(meta: Mapping[str, Any], spec: Mapping[str, Any]) -> ClusterPool:
    told = (meta.get("annotations") or {}).get(MODELS_ANNOTATION, "")
    names = [name.strip() for name in told.split(",") if name.strip()] or [meta["name"]]
    created = meta.get("creationTimestamp")
    return ClusterPool(
        claimant=Claimant(
            key=f"{meta['namespace']}/{meta['name']}.{UPSTREAM_GROUP}",
            since=datetime.fromisoformat(created).timestamp() if created else 0.0,
            model=names[0],
            aliases=frozenset(names[1:]),
        ),
        settings=PoolSettings(),
        namespace=meta["namespace"],
        selector=selector_of((spec.get("selector") or {}).get("matchLabels") or {}),
        ports=tuple(port["number"] for port in spec.get("targetPorts") or ()),
    )


def selector_of(labels: Mapping[str, str]) -> str:
    """Write labels as the API's selectors are written, equal labels alike."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def member_of(
    pool: ClusterPool, pods: Iterable[EnginePod], without: Collection[str] = ()
) -> Member:
    """Give the pool the endpoints that its pods have now, but not those addresses of theirs."""
    found = {
        address: endpoint
        for address, (endpoint, _) in holders_of(pool, pods).items()
        if address not in without
    } | {endpoint.address: endpoint for endpoint in pool.fixed}
    endpoints = tuple(found[address] for address in sorted(found))
    return Member(pool.claimant, pool.settings, endpoints)


def holders_of(
    pool: ClusterPool, pods: Iterable[EnginePod]
) -> dict[str, tuple[EndpointSettings, EnginePod]]:
    """Give each address that pods of the pool have now, with the pod that has it.

    Of two pods at one address a ready one counts: the other is one of a lost node, whose address
    has been given away before its object could go.
    """
    found: dict[str, tuple[EndpointSettings, EnginePod]] = {}
    for pod in sorted(pods, key=lambda it: (it.phase is EndpointPhase.READY, it.uid)):
        found.update({endpoint.address: (endpoint, pod) for endpoint in _endpoints_of(pool, pod)})
    return found


def _endpoints_of(pool: ClusterPool, pod: EnginePod) -> Iterable[EndpointSettings]:
    """Give the endpoints that one pod has in the pool now."""
    if pod.phase is None:
        return
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    adapters = pod.adapters
    if adapters is None and pool.managed_name is not None:
        adapters = frozenset()
    for port in pool.ports:
        yield EndpointSettings(address=f"{host}:{port}", phase=pod.phase, adapters=adapters)

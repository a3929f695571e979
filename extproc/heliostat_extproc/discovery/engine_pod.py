"""A pod as the router sees it: where its engine listens, and whether it takes requests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliostat_crds.wire_names import (
    ADAPTERS_ANNOTATION,
    DRAIN_ANNOTATION,
    ENGINE_CONTAINER,
    POOL_LABEL,
)
from heliostat_kube.resource import Json
from heliostat_routing.settings import EndpointPhase

_ENDED = ("Failed", "Succeeded")


@dataclass(frozen=True, slots=True)
class EnginePod:
    """One pod; thousands of them stay in memory.

    `pool` is the name of the managed pool it belongs to. `phase` is None while no engine of it can
    hold a request. `adapters` are those that its present engine has loaded; None where nobody
    tells, as in pods that are not ours.
    """

    namespace: str
    uid: str
    pool: str | None
    ip: str
    phase: EndpointPhase | None
    adapters: frozenset[str] | None


def parse_engine_pod(obj: Json) -> EnginePod:
    """Read a pod from the API; what is missing counts as not there."""
    meta, status = obj.get("metadata") or {}, obj.get("status") or {}
    annotations = meta.get("annotations") or {}
    engine = _engine_status(status)
    leaving = bool(meta.get("deletionTimestamp")) or DRAIN_ANNOTATION in annotations
    return EnginePod(
        namespace=meta.get("namespace", ""),
        uid=meta.get("uid", ""),
        pool=(meta.get("labels") or {}).get(POOL_LABEL),
        ip=status.get("podIP") or "",
        phase=_phase(status, engine, leaving=leaving),
        adapters=_loaded_adapters(annotations.get(ADAPTERS_ANNOTATION), engine),
    )


def _phase(
    status: Mapping[str, Any], engine: Mapping[str, Any], *, leaving: bool
) -> EndpointPhase | None:
    """Tell what the endpoint may take.

    An engine that has started and is not ready now keeps what it has, and takes nothing new.
    """
    if not status.get("podIP") or "running" not in (engine.get("state") or {}):
        return None
    if status.get("phase") in _ENDED:  # the containers' states may be older than this
        return None
    if _is_ready(status) and not leaving:
        return EndpointPhase.READY
    return EndpointPhase.DRAINING if engine.get("started") else None


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions") or ()
    return any(it.get("type") == "Ready" and it.get("status") == "True" for it in conditions)


def _engine_status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the container that serves: `engine`, or the first one of a pod that is not ours."""
    containers = status.get("containerStatuses") or [{}]
    named = (found for found in containers if found.get("name") == ENGINE_CONTAINER)
    first: Mapping[str, Any] = containers[0]
    return next(named, first)


def _loaded_adapters(text: Any, engine: Mapping[str, Any]) -> frozenset[str] | None:
    """Read what the operator has loaded; nothing where that was into an earlier container."""
    if text is None:
        return None
    try:
        told = json.loads(text)
        same = told["container"] == engine.get("containerID")
        return frozenset(map(str, told["adapters"])) if same else frozenset()
    except (ValueError, TypeError, KeyError, RecursionError):
        return frozenset()

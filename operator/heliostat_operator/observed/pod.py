"""A pod, cut down to what the operator decides by: thousands of them stay in memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from heliostat_crds.conditions import MAX_DETAIL_CHARACTERS
from heliostat_crds.wire_names import (
    ADAPTERS_ANNOTATION,
    DELETION_COST_ANNOTATION,
    DRAIN_ANNOTATION,
    ENGINE_CONTAINER,
    POOL_LABEL,
)
from heliostat_kube.resource import Json
from heliostat_operator.observed.instant import parse_instant
from heliostat_operator.observed.last_words import last_words

REVISION_LABEL = "pod-template-hash"
"""Label that the Deployment controller gives pods: which version of the template made them."""

MAX_TEXT_CHARACTERS = MAX_DETAIL_CHARACTERS
"""What is kept of a message written by the kubelet or the scheduler."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended; `reason` is the kubelet's, such as `Error` or `OOMKilled`."""

    code: int
    reason: str
    message: str
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pod.

    `started` is true once its startup probe has passed. `exit` is its latest end: of the present
    container where it has ended, of the one before otherwise.
    """

    name: str
    init: bool
    container_id: str | None
    running: bool
    running_since: datetime | None
    started: bool
    restarts: int
    waiting_reason: str
    waiting_message: str
    exit: Exit | None


@dataclass(frozen=True, slots=True)
class LoadedAdapters:
    """The LoRA adapters that a container has loaded."""

    container_id: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod.

    `ready_changed_at` is when the pod last became ready or ceased to be. `deleted_at` is when a
    deleted pod is to be gone, its grace period over. `draining` is true where
    the pod has a drain mark, `drain_since` its instant, None where it cannot be read.
    `unschedulable` is the scheduler's message while no node takes the pod, else empty.
    `engine` names the container that serves: `engine`, or the first one of a pod that is not ours.
    """

    namespace: str
    name: str
    uid: str
    pool: str | None
    revision: str | None
    ip: str | None
    node: str | None
    phase: str
    ready: bool
    ready_changed_at: datetime | None
    created_at: datetime | None
    deleted_at: datetime | None
    draining: bool
    drain_since: datetime | None
    deletion_cost: int | None
    adapters: LoadedAdapters | None
    unschedulable: str
    status_reason: str
    status_message: str
    engine: str
    containers: tuple[ContainerView, ...]

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def address(self, port: int) -> str | None:
        """Give `ip:port` as URLs and routers write it, IPv6 in brackets; None without an IP."""
        if self.ip is None:
            return None
        return f"[{self.ip}]:{port}" if ":" in self.ip else f"{self.ip}:{port}"

    @property
    def terminating(self) -> bool:
        """Whether the pod has been deleted and may still finish its requests."""
        return self.deleted_at is not None

    @property
    def finished(self) -> bool:
        """Whether all its containers have ended for good."""
        return self.phase in ("Failed", "Succeeded")

    @property
    def alive(self) -> bool:
        """Whether the pod counts as a replica."""
        return not self.terminating and not self.finished

    @property
    def engine_container(self) -> ContainerView | None:
        """The container that serves; None until the kubelet has told of it."""
        return next((c for c in self.containers if c.name == self.engine and not c.init), None)

    @property
    def loaded_adapters(self) -> frozenset[str]:
        """The adapters that the present container of the engine has loaded."""
        container = self.engine_container
        if self.adapters is None or container is None:
            return frozenset()
        same = self.adapters.container_id == container.container_id
        return self.adapters.names if same else frozenset()


def parse_pod(obj: Json) -> PodView:
    """Read a pod from the API; what is missing or malformed counts as not there."""
    meta = _mapping(obj.get("metadata"))
    spec = _mapping(obj.get("spec"))
    status = _mapping(obj.get("status"))
    labels = _mapping(meta.get("labels"))
    annotations = _mapping(meta.get("annotations"))
    conditions = {
        condition.get("type"): condition for condition in _mappings(status.get("conditions"))
    }
    ready = conditions.get("Ready", {})
    return PodView(
        namespace=_text(meta.get("namespace")),
        name=_text(meta.get("name")),
        uid=_text(meta.get("uid")),
        pool=labels.get(POOL_LABEL),
        revision=labels.get(REVISION_LABEL),
        ip=status.get("podIP") or None,
        node=spec.get("nodeName") or None,
        phase=_text(status.get("phase")) or "Pending",
        ready=ready.get("status") == "True",
        ready_changed_at=parse_instant(ready.get("lastTransitionTime")),
        created_at=parse_instant(meta.get("creationTimestamp")),
        deleted_at=parse_instant(meta.get("deletionTimestamp")),
        draining=DRAIN_ANNOTATION in annotations,
        drain_since=parse_instant(annotations.get(DRAIN_ANNOTATION)),
        deletion_cost=_whole(annotations.get(DELETION_COST_ANNOTATION)),
        adapters=_adapters(annotations.get(ADAPTERS_ANNOTATION)),
        unschedulable=_unschedulable(conditions.get("PodScheduled", {})),
        status_reason=_text(status.get("reason")),
        status_message=_text(status.get("message")),
        engine=_engine_name(spec),
        containers=_containers(status),
    )


def _containers(status: Mapping[str, Any]) -> tuple[ContainerView, ...]:
    kinds = (("containerStatuses", False), ("initContainerStatuses", True))
    return tuple(
        _container(found, init=init)
        for field, init in kinds
        for found in _mappings(status.get(field))
    )


def _container(found: Mapping[str, Any], *, init: bool) -> ContainerView:
    state, last = _mapping(found.get("state")), _mapping(found.get("lastState"))
    waiting = _mapping(state.get("waiting"))
    return ContainerView(
        name=_text(found.get("name")),
        init=init,
        container_id=found.get("containerID") or None,
        running="running" in state,
        running_since=parse_instant(_mapping(state.get("running")).get("startedAt")),
        started=bool(found.get("started")),
        restarts=_whole(found.get("restartCount")) or 0,
        waiting_reason=_text(waiting.get("reason")),
        waiting_message=_text(waiting.get("message")),
        exit=_exit(state.get("terminated")) or _exit(last.get("terminated")),
    )


def _exit(terminated: Any) -> Exit | None:
    if not isinstance(terminated, Mapping):
        return None
    return Exit(
        code=_whole(terminated.get("exitCode")) or 0,
        reason=_text(terminated.get("reason")),
        message=last_words(terminated.get("message")),
        started_at=parse_instant(terminated.get("startedAt")),
        finished_at=parse_instant(terminated.get("finishedAt")),
    )


def _engine_name(spec: Mapping[str, Any]) -> str:
    names = [_text(container.get("name")) for container in _mappings(spec.get("containers"))]
    if ENGINE_CONTAINER in names or not names:
        return ENGINE_CONTAINER
    return names[0]


def _unschedulable(scheduled: Mapping[str, Any]) -> str:
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return ""
    return _text(scheduled.get("message")) or "no node takes the pod"


def _adapters(text: Any) -> LoadedAdapters | None:
    if not isinstance(text, str):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    container, names = data.get("container"), data.get("adapters")
    if not isinstance(container, str) or not isinstance(names, list):
        return None
    return LoadedAdapters(container, frozenset(name for name in names if isinstance(name, str)))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value[:MAX_TEXT_CHARACTERS] if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None

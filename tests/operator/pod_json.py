"""Pods as the API server gives them, in the states that kubelet and scheduler bring them to."""

from datetime import UTC, datetime, timedelta
from typing import Any

from heliostat_operator.observed.instant import format_instant
from heliostat_operator.observed.pod import PodView, parse_pod

Json = dict[str, Any]
BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> str:
    """An instant of the scenario, as Kubernetes writes it."""
    return format_instant(BEGAN + timedelta(seconds=seconds))


def pod_json(
    name: str = "llama-r1-a",
    *,
    revision: str = "r1",
    node: str | None = "n1",
    phase: str = "Running",
    ready: bool = False,
    ready_changed: float = 0,
    unschedulable: str = "",
    engine: Json | None = None,
    others: tuple[Json, ...] = (),
    init: tuple[Json, ...] = (),
    annotations: dict[str, str] | None = None,
    deleted: bool = False,
    **status: Any,
) -> Json:
    """A pod of one engine and what is told of it; `engine` is the state of its container."""
    scheduled: Json = {"type": "PodScheduled", "status": "True"}
    if unschedulable:
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": unschedulable,
        }
    conditions = [scheduled] if node or unschedulable else []
    if node:
        conditions.append(
            {"type": "Ready", "status": str(ready), "lastTransitionTime": at(ready_changed)}
        )
    names = [engine["name"] if engine and "name" in engine else "engine"]
    names += [it["name"] for it in others]
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": at(-10),
            "labels": {"heliostat.dev/pool": "llama", "pod-template-hash": revision},
            "annotations": annotations or {},
            **({"deletionTimestamp": at(1200)} if deleted else {}),
        },
        "spec": {
            "containers": [{"name": it} for it in names],
            **({"nodeName": node} if node else {}),
        },
        "status": {
            "phase": phase if node else "Pending",
            **({"podIP": "10.0.0.7"} if node and phase == "Running" else {}),
            "conditions": conditions,
            "containerStatuses": ([{"name": "engine", **engine}] if engine else []) + list(others),
            "initContainerStatuses": list(init),
            **status,
        },
    }


def running(since: float = 20, *, started: bool = True, last: Json | None = None) -> Json:
    """A container that runs; `last` is how the one before ended."""
    return {
        "state": {"running": {"startedAt": at(since)}},
        "started": started,
        "restartCount": int(last is not None),
        "containerID": f"containerd://{since}",
        **({"lastState": {"terminated": last}} if last else {}),
    }


def waiting(reason: str, message: str = "", *, restarts: int = 0, last: Json | None = None) -> Json:
    """A container that does not run."""
    return {
        "state": {"waiting": {"reason": reason, "message": message}},
        "started": False,
        "restartCount": restarts,
        **({"lastState": {"terminated": last}} if last else {}),
    }


def ended(
    code: int = 1, message: str = "", *, since: float = 20, until: float = 60, reason: str = "Error"
) -> Json:
    """How a container ended."""
    return {
        "exitCode": code,
        "reason": reason,
        "message": message,
        "startedAt": at(since),
        "finishedAt": at(until),
    }


def pod(name: str = "llama-r1-a", **what: Any) -> PodView:
    """A pod as the operator sees it."""
    return parse_pod(pod_json(name, **what))


def serving(name: str = "llama-r1-a", **what: Any) -> PodView:
    """A pod that serves."""
    return pod(name, ready=True, ready_changed=300, engine=running(), **what)


def loading(name: str = "llama-r1-a", **what: Any) -> PodView:
    """A pod that loads its model."""
    return pod(name, engine=running(started=False), **what)


def unplaced(name: str = "llama-r1-a", message: str = "", **what: Any) -> PodView:
    """A pod that no node has room for."""
    told = message or (
        "0/3 nodes are available: 1 node(s) had untolerated taint {x: y}, 2 Insufficient"
        " nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption victims found"
        " for incoming pod."
    )
    return pod(name, node=None, unschedulable=told, **what)


def failing_to_load(name: str = "llama-r1-a", **what: Any) -> PodView:
    """A pod whose engine has ended before it was ever ready."""
    log = "INFO starting\nValueError: no such model: meta-llama/Llama\n"
    back_off = "back-off 5m0s restarting failed container"
    engine = waiting("CrashLoopBackOff", back_off, restarts=4, last=ended(1, log))
    return pod(name, engine=engine, **what)


def crashed(name: str = "llama-r1-a", **what: Any) -> PodView:
    """A pod whose engine was ready, died, and loads again."""
    last = ended(137, "", until=900, reason="OOMKilled")
    return pod(name, ready_changed=900, engine=running(901, started=False, last=last), **what)

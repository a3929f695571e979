"""What one pod's status says: whether it serves, is on its way there, or fails, and why."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from heliostat_crds.conditions import DegradedReason
from heliostat_operator.observed.pod import ContainerView, Exit, PodView

_PULL_FAILURES = frozenset(
    {
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_HARMLESS_WAITS = frozenset({"", "ContainerCreating", "PodInitializing", "CrashLoopBackOff"})
_SIGNALS = {
    130: "SIGINT",
    132: "SIGILL",
    134: "SIGABRT",
    135: "SIGBUS",
    136: "SIGFPE",
    137: "SIGKILL",
    139: "SIGSEGV",
    143: "SIGTERM",
}
"""The signals that end engines, by the exit code that they give a container."""
_RESTARTS_OF_A_LOOP = 3
"""Restarts from which on an engine that loads once more no longer counts as progress."""


class Stage(Enum):
    """How far a pod has come."""

    UNCREATED = "uncreated"
    READY = "ready"
    DRAINING = "draining"
    UNPLACED = "unplaced"
    NO_ROOM = "no room"
    STARTING = "starting"
    LOADING = "loading"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a pod stands. `reason` and `detail` tell of what fails, `brief` of its heart where that
    is shorter; `moving` whether it may still come right by itself."""

    stage: Stage
    reason: DegradedReason | None = None
    detail: str = ""
    moving: bool = True
    brief: str = ""


def find(pod: PodView, startup_timeout_seconds: float | None) -> Finding:
    """Judge a pod that is neither deleted nor finished."""
    if pod.draining:
        return Finding(Stage.DRAINING)
    if pod.ready:
        return Finding(Stage.READY)
    if pod.unschedulable:
        return _unplaced(pod.unschedulable)
    if pod.node is None:
        return Finding(Stage.UNPLACED)
    failing = _waiting_failure(pod) or _readiness_lost(pod) or _exit(pod, startup_timeout_seconds)
    if failing is not None:
        return failing
    engine = pod.engine_container
    return Finding(Stage.LOADING if engine is not None and engine.running else Stage.STARTING)


def _failing(
    reason: DegradedReason, detail: str, *, moving: bool = False, brief: str = ""
) -> Finding:
    return Finding(Stage.FAILING, reason, detail, moving, brief)


def _unplaced(message: str) -> Finding:
    """Tell why no node takes the pod, those causes first that lack something.

    The scheduler writes `0/3 nodes are available: 2 node(s) didn't match ..., 1 Insufficient
    nvidia.com/gpu. preemption: ...`.
    """
    told = re.match(r"(\d+)/(\d+) nodes are available: ", message)
    causes = message if told is None else message[told.end() :]
    causes = re.split(r"\.? (?:preemption|no new claims)", causes)[0].split(". ")[0].rstrip(".")
    if "persistentvolumeclaim" in causes:
        return _failing(DegradedReason.INVALID_SPEC, causes)
    parts = sorted(causes.split(", "), key=lambda part: "Insufficient" not in part)
    reason, head = DegradedReason.INSUFFICIENT_CAPACITY, ""
    brief = parts[0].replace("node(s) ", "").replace("Pod's ", "")
    if told is not None:
        head = f"{told[1]} of {told[2]} nodes fit: "
        brief = brief.removeprefix(f"{told[2]} ")
    detail = head + ", ".join(parts)
    return Finding(Stage.NO_ROOM, reason, detail, moving=False, brief=head + brief)


def _waiting_failure(pod: PodView) -> Finding | None:
    for container in pod.containers:
        reason, message = container.waiting_reason, container.waiting_message
        if reason in _PULL_FAILURES:
            named = re.search(r'image "([^"]+)"', message)
            what = named[1] if named is not None else f"the image of {container.name}"
            return _failing(DegradedReason.IMAGE_PULL_FAILED, f"cannot pull {what}")
        if reason == "CreateContainerConfigError":
            detail = _located(message or reason, pod.namespace)
            return _failing(DegradedReason.PODS_NOT_READY, detail)
        if reason not in _HARMLESS_WAITS:
            return _failing(DegradedReason.PODS_NOT_READY, f"{reason}: {message}".rstrip(": "))
    return None


def _located(message: str, namespace: str) -> str:
    """Say in which namespace a Secret or ConfigMap is missing: the spec need not have named it."""
    missing = re.search(r'(secret|configmap) "[^"]+" not found$', message)
    return message if missing is None else f"{message} in namespace {namespace}"


def _readiness_lost(pod: PodView) -> Finding | None:
    """Tell an engine that runs and was ready in this very run from one that still loads."""
    engine = pod.engine_container
    if (
        engine is None
        or not engine.running
        or not _after(pod.ready_changed_at, engine.running_since)
    ):
        return None
    detail = "readiness lost: the engine hangs or its node is gone"
    return _failing(DegradedReason.PODS_NOT_READY, detail)


def _exit(pod: PodView, startup_timeout_seconds: float | None) -> Finding | None:
    for container in pod.containers:
        end = container.exit
        if end is None or (container.init and end.code == 0):
            continue
        moving = container.running and container.restarts < _RESTARTS_OF_A_LOOP
        if container.init:
            detail = f"init container {container.name}: {_told(end)}"
            return _failing(DegradedReason.MODEL_LOAD_FAILED, detail, moving=moving)
        if container.name != pod.engine:
            detail = f"container {container.name}: {_told(end)}"
            return _failing(DegradedReason.PODS_NOT_READY, detail, moving=moving)
        return _engine_exit(pod, container, end, startup_timeout_seconds, moving=moving)
    return None


def _engine_exit(
    pod: PodView,
    engine: ContainerView,
    end: Exit,
    startup_timeout_seconds: float | None,
    *,
    moving: bool,
) -> Finding:
    """Tell a run that never became ready from one that had been.

    A pod's Ready condition changes only when it becomes ready or ceases to be. So a change later
    than the start of the run that ended means that this run was ready; none means that it was not.
    """
    if _after(pod.ready_changed_at, end.started_at):
        return _failing(DegradedReason.ENGINE_CRASHED, f"engine: {_told(end)}", moving=moving)
    if _took_too_long(end, startup_timeout_seconds):
        detail = "not loaded within startupTimeout; raise it or see the engine's log"
        return _failing(DegradedReason.MODEL_LOAD_FAILED, detail, moving=moving)
    detail = f"loading: {_told(end)}"
    return _failing(DegradedReason.MODEL_LOAD_FAILED, detail, moving=moving, brief=end.message)


def _took_too_long(end: Exit, timeout_seconds: float | None) -> bool:
    if timeout_seconds is None or end.started_at is None or end.finished_at is None:
        return False
    killed = end.code in (137, 143)
    return killed and (end.finished_at - end.started_at).total_seconds() >= timeout_seconds


def _told(end: Exit) -> str:
    """Write `exit 1: last words`, `exit 137 (SIGKILL)` or `exit 137 (OOMKilled)`."""
    if end.reason == "OOMKilled":
        return f"exit {end.code} ({end.reason})"  # what the log says has nothing to do with it
    named = (
        end.reason if end.reason not in ("", "Error", "Completed") else _SIGNALS.get(end.code, "")
    )
    head = f"exit {end.code} ({named})" if named else f"exit {end.code}"
    return f"{head}: {end.message}" if end.message else head


def _after(instant: datetime | None, other: datetime | None) -> bool:
    return instant is not None and other is not None and instant > other

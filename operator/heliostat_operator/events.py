"""Kubernetes events: what `kubectl describe` and `kubectl events` tell of a pool's past."""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from heliostat_crds.conditions import (
    MAX_DETAIL_CHARACTERS,
    ConditionType,
    ProgressingReason,
    ReadyReason,
)
from heliostat_crds.inference_pool import KIND
from heliostat_crds.status import Condition, ConditionStatus
from heliostat_crds.wire_names import API_VERSION, FIELD_MANAGER, GROUP
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError, NamespaceTerminatingError
from heliostat_kube.resource import EVENTS, Json

REPEAT_SECONDS = 600.0
"""The same event of the same pool is told once in this time: a pool that flaps fills no event
list."""
_MAX_NOTE_BYTES = MAX_DETAIL_CHARACTERS
"""The API server takes 1024 bytes, of whatever characters."""
_MAX_REMEMBERED = 4096

_TOLD_ELSEWHERE = frozenset(
    {
        (ConditionType.READY, ReadyReason.UPDATE_STALLED),
        (ConditionType.READY, ReadyReason.PODS_NOT_READY),
        (ConditionType.PROGRESSING, ProgressingReason.LOADING),
        (ConditionType.PROGRESSING, ProgressingReason.STALLED),
    }
)
"""What another condition tells, and better: Degraded why nothing goes on, Progressing which pods
are to come, Ready that they load."""

log = structlog.get_logger("heliostat.operator")


def transitions(before: Sequence[Condition], now: Sequence[Condition]) -> tuple[Condition, ...]:
    """Give the conditions whose status or reason is not what it was."""
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    return tuple(it for it in now if known.get(it.type) != (it.status, it.reason))


class Notice(NamedTuple):
    """What one event says."""

    reason: str
    note: str
    warning: bool


def notices(before: Sequence[Condition], now: Sequence[Condition]) -> tuple[Notice, ...]:
    """Give what is worth telling of a change, each thing once; of a new pool one thing."""
    stands = {it.type: it for it in now}
    if not before:
        return _first(stands)
    changed = {it.type: it for it in transitions(before, now)}
    degraded, ready = stands.get(ConditionType.DEGRADED), changed.get(ConditionType.READY)
    told: dict[str, Notice] = {}
    known = ""
    if degraded is not None and _holds(degraded):
        known = degraded.reason
        down = ready is not None and ready.reason == known and _held(before, ConditionType.READY)
        if degraded.type in changed or down:
            told[known] = Notice(known, degraded.message, True)
    for kind in (ConditionType.PROGRESSING, ConditionType.READY):
        condition = changed.get(kind)
        if condition is None or condition.reason == known:
            continue
        serves = ready is not None and _holds(ready)
        said = condition.reason == ProgressingReason.COMPLETE and serves
        if condition.reason == ReadyReason.UPDATING and kind is ConditionType.READY:
            said = _held(before, kind)  # Progressing tells that the rollout goes on
        if not said and (kind, condition.reason) not in _TOLD_ELSEWHERE:
            warning = kind is ConditionType.READY and _has_failed(condition)
            told.setdefault(condition.reason, Notice(condition.reason, condition.message, warning))
    return tuple(told.values())


def _first(stands: dict[str, Condition]) -> tuple[Notice, ...]:
    """Tell of a pool that nobody has looked at before what it is at, or what is wrong with it."""
    for kind in (ConditionType.DEGRADED, ConditionType.PROGRESSING, ConditionType.READY):
        condition = stands.get(kind)
        if condition is not None and (_holds(condition) or kind is ConditionType.READY):
            warning = kind is ConditionType.DEGRADED
            return (Notice(condition.reason, condition.message, warning),)
    return ()


def _has_failed(ready: Condition) -> bool:
    """Whether the pool is down; that engines load is as it should be."""
    return not _holds(ready) and ready.reason != ReadyReason.LOADING


def _holds(condition: Condition) -> bool:
    return condition.status is ConditionStatus.TRUE


def _held(before: Sequence[Condition], kind: ConditionType) -> bool:
    return any(it.type == kind and _holds(it) for it in before)


class EventRecorder:
    """Writes events; failing to is logged and of no consequence."""

    def __init__(self, api: KubeApi, identity: str) -> None:
        self._api = api
        self._identity = identity
        self._told: dict[tuple[str, str, str], float] = {}

    async def publish_changes(
        self, pool: Json, before: Sequence[Condition], now: Sequence[Condition]
    ) -> None:
        """Tell what has changed between two statuses of a pool."""
        for notice in notices(before, now):
            await self.publish(pool, notice.reason, notice.note, warning=notice.warning)

    async def publish(self, pool: Json, reason: str, note: str, *, warning: bool = False) -> None:
        """Tell one thing of a pool."""
        metadata = pool["metadata"]
        if not self._is_news(metadata["uid"], reason, note):
            return
        event: Json = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}",
                "namespace": metadata["namespace"],
            },
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": "Reconcile",
            "note": (note or reason).encode()[:_MAX_NOTE_BYTES].decode(errors="ignore"),
            "reportingController": f"{GROUP}/{FIELD_MANAGER}",
            "reportingInstance": self._identity[:128],
        }
        try:
            await self._api.create(EVENTS, event, metadata["namespace"])
        except NamespaceTerminatingError:
            return  # nobody is left to read it
        except KubeError as error:
            log.warning("event-not-written", reason=reason, error=error.message)

    def _is_news(self, uid: str, reason: str, note: str) -> bool:
        now, key = time.monotonic(), (uid, reason, note)
        if now - self._told.get(key, float("-inf")) < REPEAT_SECONDS:
            return False
        if len(self._told) >= _MAX_REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told.pop(key, None)
        self._told[key] = now
        return True

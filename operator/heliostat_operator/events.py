"""Kubernetes events: what `kubectl describe` and `kubectl events` tell of a pool's past."""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from heliostat_crds.conditions import ConditionType, ReadyReason
from heliostat_crds.inference_pool import KIND
from heliostat_crds.status import Condition, ConditionStatus
from heliostat_crds.wire_names import API_VERSION, FIELD_MANAGER, GROUP
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError, NamespaceTerminatingError
from heliostat_kube.resource import EVENTS, Json

REPEAT_SECONDS = 600.0
"""The same event of the same pool is told once in this time: a pool that flaps fills no event
list."""
_MAX_NOTE_CHARACTERS = 1000
_MAX_REMEMBERED = 4096

_COMING = frozenset({ReadyReason.LOADING, ReadyReason.PODS_NOT_READY})
"""Why a pool is not ready yet where nothing is wrong."""

log = structlog.get_logger("heliostat.operator")


def transitions(before: Sequence[Condition], now: Sequence[Condition]) -> tuple[Condition, ...]:
    """Give the conditions whose status or reason is not what it was."""
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    return tuple(it for it in now if known.get(it.type) != (it.status, it.reason))


class EventRecorder:
    """Writes events; failing to is logged and of no consequence."""

    def __init__(self, api: KubeApi, identity: str) -> None:
        self._api = api
        self._identity = identity
        self._told: dict[tuple[str, str, str], float] = {}

    async def publish_transitions(self, pool: Json, changed: Sequence[Condition]) -> None:
        """Tell of each condition that changed, a failure that stands in two of them once."""
        bad = {it.reason for it in changed if _is_bad(it)}
        reasons: set[str] = set()
        for condition in sorted(changed, key=_bad_first):
            if condition.reason in reasons or condition.reason == "AsExpected":
                continue
            reasons.add(condition.reason)
            warning = condition.reason in bad
            await self.publish(pool, condition.reason, condition.message, warning=warning)

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
            "note": (note or reason)[:_MAX_NOTE_CHARACTERS],
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


def _is_bad(condition: Condition) -> bool:
    """Whether it tells of something wrong; that engines start and load is as it should be."""
    if condition.type == ConditionType.DEGRADED:
        return condition.status is ConditionStatus.TRUE
    return (
        condition.type == ConditionType.READY
        and condition.status is ConditionStatus.FALSE
        and condition.reason not in _COMING
    )


def _bad_first(condition: Condition) -> bool:
    return not _is_bad(condition)

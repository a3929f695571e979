"""The status of a pool: what is seen of it, in three conditions that answer "is it up?"."""

from typing import NamedTuple

from heliostat_crds.conditions import (
    ConditionType,
    DegradedReason,
    ProgressingReason,
    ReadyReason,
)
from heliostat_crds.inference_pool import PoolKind
from heliostat_crds.status import Condition, ConditionStatus, PoolStatus
from heliostat_crds.wire_names import POOL_LABEL
from heliostat_operator.observed.instant import format_instant
from heliostat_operator.observed.message import fitted
from heliostat_operator.observed.observation import Observation
from heliostat_operator.observed.tally import Tally, tally


class _Verdict(NamedTuple):
    holds: bool
    reason: ReadyReason | ProgressingReason | DegradedReason
    message: str


_AS_EXPECTED = _Verdict(False, DegradedReason.AS_EXPECTED, "nothing is wrong")


def observe(observation: Observation) -> PoolStatus:
    """Give the pool's status, the whole of it."""
    counts = tally(observation)
    hindrance = _hindrance(observation, counts)
    trouble = hindrance or _blemish(observation, counts)
    ready = _ready(observation, counts, hindrance, trouble)
    verdicts = {
        ConditionType.READY: ready,
        ConditionType.PROGRESSING: _progressing(counts, hindrance, ready),
        ConditionType.DEGRADED: trouble or _AS_EXPECTED,
    }
    return PoolStatus.model_validate(
        {
            "observedGeneration": observation.generation,
            "replicas": counts.staying,
            "readyReplicas": counts.ready,
            "updatedReplicas": counts.updated,
            "selector": _selector(observation),
            "url": observation.url,
            "conditions": [_condition(observation, *item) for item in verdicts.items()],
        }
    )


def _hindrance(observation: Observation, counts: Tally) -> _Verdict | None:
    """Find what keeps the pool from what its spec asks for, the most urgent first."""
    if observation.spec_problem:
        return _degraded(counts, DegradedReason.INVALID_SPEC, observation.spec_problem)
    own_name = _lost_model_name(observation)
    if own_name:
        return _degraded(counts, DegradedReason.NAME_CONFLICT, own_name)
    if counts.failures:
        first = counts.failures[0]
        return _degraded(counts, first.reason or DegradedReason.PODS_NOT_READY, first.detail)
    if _adopts(observation) and not counts.staying:
        return _degraded(counts, DegradedReason.NO_PODS, "spec.selector matches no pod")
    if counts.stalled:
        detail = "pods take longer than startupTimeout to become ready"
        return _degraded(counts, DegradedReason.PODS_NOT_READY, detail)
    return None


def _blemish(observation: Observation, counts: Tally) -> _Verdict | None:
    """Find what is wrong beside that: a name that is not served, while the model is."""
    if observation.adapter_failures:
        failure = observation.adapter_failures[0]
        detail = f'adapter "{failure.adapter}" does not load: {failure.message}'
        return _degraded(counts, DegradedReason.ADAPTER_LOAD_FAILED, detail)
    if observation.conflicts:
        return _degraded(counts, DegradedReason.NAME_CONFLICT, str(observation.conflicts[0]))
    return None


def _ready(
    observation: Observation, counts: Tally, hindrance: _Verdict | None, trouble: _Verdict | None
) -> _Verdict:
    unreadable = observation.pool is None and observation.deployment is None
    serves = counts.ready >= counts.desired and not unreadable
    empty = _adopts(observation) and not counts.staying
    if serves and not empty and not _lost_model_name(observation):
        return _serving(observation, counts, trouble)
    if hindrance is not None:
        return _Verdict(False, ReadyReason[hindrance.reason.name], hindrance.message)
    comes = counts.loading or counts.starting
    reason = ReadyReason.LOADING if comes else ReadyReason.PODS_NOT_READY
    return _Verdict(False, reason, _counted(counts, _coming(counts)))


def _serving(observation: Observation, counts: Tally, trouble: _Verdict | None) -> _Verdict:
    """Word a pool that serves as asked for; what is wrong nevertheless comes with it."""
    reason = ReadyReason.UPDATING if counts.rolling else ReadyReason.ALL_READY
    message = _counted(counts, _updated(counts) if counts.rolling else "")
    if counts.desired == 0:
        left = counts.leaving + counts.staying
        reason = ReadyReason.SCALED_TO_ZERO
        message = f"replicas is 0; {left} still draining" if left else "replicas is 0; nothing runs"
    elif observation.pool is not None and observation.pool.pool_kind is PoolKind.FIXED:
        message = f"{counts.ready} fixed endpoints; routers check their health"
    return _Verdict(True, reason, message if trouble is None else trouble.message)


def _progressing(counts: Tally, hindrance: _Verdict | None, ready: _Verdict) -> _Verdict:
    finished = ready.holds and not counts.rolling and counts.staying <= counts.desired
    if hindrance is not None and not finished and (counts.stalled or not counts.moving):
        return _Verdict(False, ProgressingReason.STALLED, hindrance.message)
    if counts.rolling:
        return _Verdict(True, ProgressingReason.UPDATING, _counted(counts, _updated(counts)))
    if counts.staying < counts.desired:
        return _Verdict(True, ProgressingReason.SCALING, _counted(counts, _coming(counts)))
    if counts.ready < counts.desired:
        return _Verdict(True, ProgressingReason.LOADING, _counted(counts, _coming(counts)))
    left = counts.leaving + max(0, counts.staying - counts.desired)
    if left:
        draining = f"{left} still draining"
        return _Verdict(True, ProgressingReason.DRAINING, _counted(counts, draining))
    if counts.unseen and counts.staying:
        waiting = "the Deployment's controller has yet to begin"
        return _Verdict(True, ProgressingReason.UPDATING, _counted(counts, waiting))
    if hindrance is not None:
        return _Verdict(False, ProgressingReason.STALLED, hindrance.message)
    return _Verdict(False, ProgressingReason.COMPLETE, _counted(counts, ""))


def _updated(counts: Tally) -> str:
    return f"{counts.updated} of {counts.desired} updated"


def _coming(counts: Tally) -> str:
    """Word what the pods that do not serve yet are at."""
    failing = len(counts.failures)
    parts = (
        (counts.loading, "loading the model"),
        (counts.starting, "starting"),
        (counts.unplaced, "waiting for a node"),
        (failing, "failing"),
        (max(0, counts.desired - counts.staying), "to be created"),
    )
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def _degraded(counts: Tally, reason: DegradedReason, detail: str) -> _Verdict:
    return _Verdict(True, reason, _counted(counts, detail))


def _counted(counts: Tally, detail: str) -> str:
    if detail and not counts.desired:
        return detail
    head = f"{counts.ready} of {counts.desired} ready"
    return f"{head}: {detail}" if detail else head


def _adopts(observation: Observation) -> bool:
    pool = observation.pool
    return pool is not None and pool.pool_kind is PoolKind.ADOPTED


def _lost_model_name(observation: Observation) -> str:
    """Say who has the model's own name, without which the pool serves nobody."""
    if observation.pool is None:
        return ""
    own = observation.pool.spec.model.name
    return next((str(lost) for lost in observation.conflicts if lost.name == own), "")


def _selector(observation: Observation) -> str:
    pool = observation.pool
    if pool is None or pool.pool_kind is PoolKind.MANAGED:
        return f"{POOL_LABEL}={observation.name}"
    if pool.spec.selector is None:
        return ""
    labels = sorted(pool.spec.selector.match_labels.items())
    return ",".join(f"{key}={value}" for key, value in labels)


def _condition(observation: Observation, kind: ConditionType, verdict: _Verdict) -> Condition:
    """Write the condition; its time stays what it was while its status does."""
    status = ConditionStatus.TRUE if verdict.holds else ConditionStatus.FALSE
    before = next((it for it in observation.previous if it.type == kind.value), None)
    since = before.last_transition_time if before is not None and before.status is status else None
    return Condition.model_validate(
        {
            "type": kind.value,
            "status": status,
            "reason": verdict.reason.value,
            "message": fitted(verdict.message) or verdict.reason.value,
            "lastTransitionTime": since or format_instant(observation.now),
            "observedGeneration": observation.generation,
        }
    )

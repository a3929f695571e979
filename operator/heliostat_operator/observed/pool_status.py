"""The status of a pool: what is seen of it, in three conditions that answer "is it up?"."""

from typing import NamedTuple

from heliostat_crds.claims import Conflict
from heliostat_crds.conditions import (
    MAX_DETAIL_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    ConditionType,
    DegradedReason,
    ProgressingReason,
    ReadyReason,
)
from heliostat_crds.inference_pool import PoolKind
from heliostat_crds.status import Condition, ConditionStatus, PoolStatus
from heliostat_crds.wire_names import POOL_LABEL
from heliostat_operator.observed.finding import Finding, Stage
from heliostat_operator.observed.instant import format_instant
from heliostat_operator.observed.message import fitted, one_line
from heliostat_operator.observed.observation import Observation
from heliostat_operator.observed.tally import Tally, tally


class _Trouble(NamedTuple):
    """What is wrong, in full, and in fewer words, the longest first, for where there is no room."""

    reason: DegradedReason
    detail: str
    briefs: tuple[str, ...] = ()


class _Verdict(NamedTuple):
    holds: bool
    reason: ReadyReason | ProgressingReason | DegradedReason
    message: str


_PASSING = frozenset({DegradedReason.PODS_NOT_READY, DegradedReason.INSUFFICIENT_CAPACITY})
"""What may pass by itself: names that are not served are told before."""


def observe(observation: Observation) -> PoolStatus:
    """Give the pool's status, the whole of it."""
    counts = tally(observation)
    hindrance = _hindrance(observation, counts)
    troubles = _ranked(hindrance, _blemishes(observation))
    ready = _ready(observation, counts, hindrance, troubles)
    verdicts = {
        ConditionType.READY: ready,
        ConditionType.PROGRESSING: _progressing(counts, hindrance, ready),
        ConditionType.DEGRADED: _degraded(counts, troubles),
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


def _hindrance(observation: Observation, counts: Tally) -> _Trouble | None:
    """Find what keeps the pool from what its spec asks for, the most urgent first."""
    if observation.spec_problem:
        return _Trouble(DegradedReason.INVALID_SPEC, observation.spec_problem)
    own_name = _lost_model_name(observation)
    if own_name is not None:
        return _conflict(own_name)
    if counts.failures:
        return _failure(counts, counts.failures[0])
    if _adopts(observation) and not counts.staying:
        return _Trouble(DegradedReason.NO_PODS, "spec.selector matches no pod")
    if counts.stalled:
        detail = "pods take longer than startupTimeout to become ready"
        return _Trouble(DegradedReason.PODS_NOT_READY, detail)
    return None


def _failure(counts: Tally, failure: Finding) -> _Trouble:
    """Word how a pod fails; where there is no room, for how many there is none."""
    reason = failure.reason or DegradedReason.PODS_NOT_READY
    if failure.stage is not Stage.NO_ROOM:
        return _Trouble(reason, failure.detail, (failure.brief,) if failure.brief else ())
    wait = f"{counts.no_room} {'waits' if counts.no_room == 1 else 'wait'}"
    briefs = f"{wait} for room: {failure.brief}", f"{wait}: {failure.brief}"
    return _Trouble(reason, f"{wait} for room: {failure.detail}", briefs)


def _blemishes(observation: Observation) -> tuple[_Trouble, ...]:
    """Find what is wrong beside that: names that are not served, while the model is."""
    own = _lost_model_name(observation)
    conflicts = [_conflict(lost) for lost in observation.conflicts if lost != own]
    failures = [
        _Trouble(
            DegradedReason.ADAPTER_LOAD_FAILED,
            f'adapter "{it.adapter}" does not load: {it.message}',
        )
        for it in observation.adapter_failures
    ]
    return *conflicts[:1], *failures[:1]


def _conflict(lost: Conflict) -> _Trouble:
    brief = f'"{lost.name}" belongs to pool {lost.holder}'
    detail = f"{brief}: not served under that name"
    return _Trouble(DegradedReason.NAME_CONFLICT, detail, (brief,))


def _ranked(hindrance: _Trouble | None, blemishes: tuple[_Trouble, ...]) -> tuple[_Trouble, ...]:
    """Put what somebody must mend before what may pass by itself."""
    if hindrance is None:
        return blemishes
    passing = hindrance.reason in _PASSING
    return (*blemishes, hindrance) if passing else (hindrance, *blemishes)


def _ready(
    observation: Observation,
    counts: Tally,
    hindrance: _Trouble | None,
    troubles: tuple[_Trouble, ...],
) -> _Verdict:
    unreadable = observation.pool is None and observation.deployment is None
    serves = counts.ready >= counts.desired and not unreadable
    empty = _adopts(observation) and not counts.staying
    if serves and not empty and _lost_model_name(observation) is None:
        if counts.rolling and counts.desired and hindrance is not None and _stuck(counts):
            return _Verdict(True, ReadyReason.UPDATE_STALLED, _short(counts, hindrance))
        return _serving(observation, counts, troubles)
    if hindrance is not None:
        return _Verdict(False, ReadyReason[hindrance.reason.name], _short(counts, hindrance))
    comes = counts.loading or counts.starting
    reason = ReadyReason.LOADING if comes else ReadyReason.PODS_NOT_READY
    return _Verdict(False, reason, _counted(counts, _coming(counts)))


def _serving(observation: Observation, counts: Tally, troubles: tuple[_Trouble, ...]) -> _Verdict:
    """Word a pool that serves as asked for; what is wrong nevertheless comes with it."""
    reason = ReadyReason.UPDATING if counts.rolling else ReadyReason.ALL_READY
    message = _counted(counts, _updated(counts) if counts.rolling else "")
    if counts.desired == 0:
        left = counts.leaving + counts.staying
        reason = ReadyReason.SCALED_TO_ZERO
        message = f"replicas is 0; {left} still draining" if left else "replicas is 0; nothing runs"
    elif observation.pool is not None and observation.pool.pool_kind is PoolKind.FIXED:
        message = f"{counts.ready} fixed endpoints; routers check their health"
    return _Verdict(True, reason, _short(counts, troubles[0]) if troubles else message)


def _stuck(counts: Tally) -> bool:
    """Whether what hinders the pool keeps it from ever going on."""
    return counts.stalled or not counts.moving


def _progressing(counts: Tally, hindrance: _Trouble | None, ready: _Verdict) -> _Verdict:
    finished = ready.holds and not counts.rolling and counts.staying <= counts.desired
    if hindrance is not None and not finished and _stuck(counts):
        return _Verdict(False, ProgressingReason.STALLED, _short(counts, hindrance))
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
        return _Verdict(False, ProgressingReason.STALLED, _short(counts, hindrance))
    return _Verdict(False, ProgressingReason.COMPLETE, _counted(counts, ""))


def _updated(counts: Tally) -> str:
    return f"{counts.updated} of {counts.desired} updated"


def _coming(counts: Tally) -> str:
    """Word what the pods that do not serve yet are at."""
    parts = (
        (counts.loading, "loading the model"),
        (counts.starting, "starting"),
        (counts.unplaced, "waiting for a node"),
        (counts.no_room, "waiting for room"),
        (counts.failing, "failing"),
        (max(0, counts.desired - counts.staying), "to be created"),
    )
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def _degraded(counts: Tally, troubles: tuple[_Trouble, ...]) -> _Verdict:
    """Tell all that is wrong, under the reason of what is told first."""
    if not troubles:
        return _Verdict(False, DegradedReason.AS_EXPECTED, "nothing is wrong")
    whole = "; ".join(trouble.detail for trouble in troubles)
    return _Verdict(True, troubles[0].reason, _counted(counts, whole))


def _short(counts: Tally, trouble: _Trouble) -> str:
    """Word a trouble with as much of it as `kubectl get` shows whole."""
    told = [_counted(counts, detail) for detail in (trouble.detail, *trouble.briefs)]
    return next((it for it in told if len(one_line(it)) <= MAX_MESSAGE_CHARACTERS), told[-1])


def _counted(counts: Tally, detail: str) -> str:
    if detail and not counts.desired:
        return detail
    head = f"{counts.ready} of {counts.desired} ready"
    return f"{head}: {detail}" if detail else head


def _adopts(observation: Observation) -> bool:
    pool = observation.pool
    return pool is not None and pool.pool_kind is PoolKind.ADOPTED


def _lost_model_name(observation: Observation) -> Conflict | None:
    """Find who has the model's own name, without which the pool serves nobody."""
    if observation.pool is None:
        return None
    own = observation.pool.spec.model.name
    return next((lost for lost in observation.conflicts if lost.name == own), None)


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
    whole = kind is ConditionType.DEGRADED
    room = MAX_DETAIL_CHARACTERS if whole else MAX_MESSAGE_CHARACTERS
    since = before.last_transition_time if before is not None and before.status is status else None
    return Condition.model_validate(
        {
            "type": kind.value,
            "status": status,
            "reason": verdict.reason.value,
            "message": fitted(verdict.message, room) or verdict.reason.value,
            "lastTransitionTime": since or format_instant(observation.now),
            "observedGeneration": observation.generation,
        }
    )

"""The pods of a pool, counted by what their statuses say."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from heliostat_crds.conditions import DegradedReason
from heliostat_crds.duration import parse_duration
from heliostat_crds.inference_pool import PoolKind
from heliostat_crds.routing import Phase
from heliostat_operator.observed.finding import Finding, Stage, find
from heliostat_operator.observed.observation import Observation
from heliostat_operator.observed.pod import PodView
from heliostat_operator.scale_down import rollout_runs

_URGENCY = (
    DegradedReason.INVALID_SPEC,
    DegradedReason.IMAGE_PULL_FAILED,
    DegradedReason.MODEL_LOAD_FAILED,
    DegradedReason.ENGINE_CRASHED,
    DegradedReason.PODS_NOT_READY,
    DegradedReason.INSUFFICIENT_CAPACITY,
)
"""Which failure is told where pods fail in several ways: what somebody must mend comes first."""

_LOST_SECONDS = 60
"""How long after the end of its grace period a pod that is still there counts as leaving."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A pool in numbers.

    `staying` are the pods that exist and are not on their way out, `leaving` those that drain,
    deleted or not, `failing` those that fail, `no_room` those that no node takes. `unseen` is true
    while the Deployment's controller has not seen its spec. `failures` are in order of urgency.
    """

    desired: int
    staying: int
    ready: int
    updated: int
    unplaced: int = 0
    starting: int = 0
    loading: int = 0
    leaving: int = 0
    failing: int = 0
    no_room: int = 0
    rolling: bool = False
    unseen: bool = False
    stalled: bool = False
    failures: tuple[Finding, ...] = ()

    @property
    def moving(self) -> bool:
        """Whether something may still change by itself."""
        return bool(
            self.unplaced
            or self.starting
            or self.loading
            or self.leaving
            or any(finding.moving for finding in self.failures)
        )


def tally(observation: Observation) -> Tally:
    """Count the pods, or the fixed endpoints, of a pool."""
    pool, deployment = observation.pool, observation.deployment
    if pool is not None and pool.pool_kind is PoolKind.FIXED:
        ready = sum(it.phase is Phase.READY for it in pool.spec.endpoints)
        return Tally(desired=max(1, ready), staying=ready, ready=ready, updated=ready)
    timeout = None if pool is None else parse_duration(pool.spec.engine.startup_timeout)
    alive = [pod for pod in observation.pods if pod.alive]
    findings = [find(pod, timeout) for pod in sorted(alive, key=lambda it: it.name)]
    stages = [finding.stage for finding in findings]
    failures = [finding for finding in findings if finding.reason is not None]
    if deployment is not None and deployment.creation_failure:
        failures.append(_creation_failure(deployment.creation_failure))
    dying = sum(_dying(pod, observation.now) for pod in observation.pods)
    managed = pool is None or pool.pool_kind is PoolKind.MANAGED
    staying = len(alive) - stages.count(Stage.DRAINING)
    updated = staying
    if managed:
        known = None if deployment is None else deployment.updated_replicas
        updated = min(known or 0, staying)
    return Tally(
        desired=_desired(observation) if managed else staying,
        staying=staying,
        ready=stages.count(Stage.READY),
        updated=updated,
        unplaced=stages.count(Stage.UNPLACED),
        starting=stages.count(Stage.STARTING),
        loading=stages.count(Stage.LOADING),
        leaving=stages.count(Stage.DRAINING) + dying,
        failing=stages.count(Stage.FAILING),
        no_room=stages.count(Stage.NO_ROOM),
        rolling=managed and _rolling(observation, len(alive)),
        unseen=managed and deployment is not None and deployment.updated_replicas is None,
        stalled=deployment is not None and deployment.stalled,
        failures=tuple(sorted(failures, key=_urgency)),
    )


def _dying(pod: PodView, now: datetime) -> bool:
    """Whether a deleted pod still finishes its requests. One that should have been gone for a while
    stands for a node that is lost: it stays until somebody removes the node, and drains nothing."""
    if pod.deleted_at is None or pod.finished:
        return False
    return now - pod.deleted_at < timedelta(seconds=_LOST_SECONDS)


def _desired(observation: Observation) -> int:
    """Give the replicas asked for; of a spec that cannot be read, those that were last."""
    if observation.pool is not None:
        return observation.pool.spec.replicas
    return 0 if observation.deployment is None else observation.deployment.replicas


def _rolling(observation: Observation, alive: int) -> bool:
    """Whether pods of an older template live, or the present one has no pods yet.

    Where the Deployment's controller has not counted the pods that are seen, as those of a new
    pool, nothing is older.
    """
    if rollout_runs(observation.pods):
        return True
    deployment = observation.deployment
    if deployment is None or deployment.updated_replicas is None:
        return False
    counted = min(alive, deployment.replicas, deployment.counted_replicas)
    return deployment.updated_replicas < counted


def _creation_failure(message: str) -> Finding:
    """Tell what keeps pods from being created at all: a quota is capacity, all else the spec."""
    short = re.sub(r'^pods? "[^"]*" is forbidden: ', "", message)
    if "exceeded quota" in message:
        reason = DegradedReason.INSUFFICIENT_CAPACITY
    else:
        reason = DegradedReason.INVALID_SPEC
    return Finding(Stage.UNCREATED, reason, short, moving=False)


def _urgency(finding: Finding) -> int:
    return len(_URGENCY) if finding.reason is None else _URGENCY.index(finding.reason)

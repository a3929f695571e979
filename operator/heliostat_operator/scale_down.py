"""Planned scale-down: pods are drained first and removed afterwards, so that no request is lost.

A ReplicaSet that shrinks deletes, in this order: pods without a node, pending, not ready, those of
lower deletion cost, and by further rules that nobody can set. So every pod that should go gets a
drain mark and a low deletion cost, and a lower one still once it is drained; replicas are lowered
only as far as the pods that would die by this order may die. All state is in the pods' annotations:
whoever plans next, after any crash, goes on from there.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from heliostat_crds.wire_names import DELETION_COST_ANNOTATION, DRAIN_ANNOTATION
from heliostat_operator.observed.instant import format_instant
from heliostat_operator.observed.pod import PodView

DRAINING_COST = -1_000_000
"""Deletion cost of a pod that is being drained."""
DRAINED_COST = -2_000_000
"""Deletion cost of a pod that may go."""

POLL_SECONDS = 1.0
"""How soon to plan again while pods are drained: what routers report is polled, not watched."""
ROLLOUT_POLL_SECONDS = 5.0
"""How soon to plan again while a rollout runs, to keep deletion costs near the live load."""

_MAX_LOAD_COST = 31


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """What to write now. Names are those of pods.

    `mark` get a drain mark of the present instant, `unmark` lose theirs; `deletion_costs` are to
    be written, None takes the annotation off. `replicas` is what the Deployment gets.
    `recheck_seconds` is when to plan again even if nothing is heard; None where only a change of
    the pods or of the pool can matter.
    """

    mark: tuple[str, ...]
    unmark: tuple[str, ...]
    deletion_costs: Mapping[str, int | None]
    replicas: int
    recheck_seconds: float | None

    def annotations(self, now: datetime) -> dict[str, dict[str, str | None]]:
        """Give each pod's annotations as a merge patch: pod name -> annotation -> value."""
        patches: dict[str, dict[str, str | None]] = {}
        for name in self.mark:
            patches.setdefault(name, {})[DRAIN_ANNOTATION] = format_instant(now)
        for name in self.unmark:
            patches.setdefault(name, {})[DRAIN_ANNOTATION] = None
        for name, cost in self.deletion_costs.items():
            text = None if cost is None else str(cost)
            patches.setdefault(name, {})[DELETION_COST_ANNOTATION] = text
        return patches


def rollout_runs(pods: Sequence[PodView]) -> bool:
    """Whether replicas of two versions of the pod template live at the same time."""
    return len({pod.revision for pod in pods if pod.alive}) > 1


def plan_scale_down(
    *,
    desired: int,
    current: int,
    pods: Sequence[PodView],
    inflight: Mapping[str, int | None],
    drained: AbstractSet[str],
    rolling: bool,
    now: datetime,
    drain_timeout_seconds: float,
) -> ScalePlan:
    """Plan the next step from `current` to `desired` replicas of a Deployment.

    `pods` are all of the Deployment. `inflight` holds requests per pod name, over all routers;
    None or missing is unknown. `drained` are the pods that every router shows as draining or does
    not show, with nothing in flight.
    """
    alive = [pod for pod in pods if pod.alive]
    if rolling:
        return _follow_rollout(alive, inflight, desired)
    victims = _victims(alive, inflight, desired, shrinking=current > desired)
    overdue = timedelta(seconds=drain_timeout_seconds)
    removable = {
        pod.name
        for pod in victims
        if not _may_serve(pod)
        or (pod.draining and (pod.name in drained or _late(pod, now, overdue)))
    }
    costs = {pod.name: DRAINED_COST if pod.name in removable else DRAINING_COST for pod in victims}
    replicas = desired
    if current > desired:
        replicas = max(desired, min(current, len(alive) - _dying_well(alive, removable)))
    marked = [pod.name for pod in victims if not _mark_holds(pod, now)]
    return ScalePlan(
        mark=tuple(sorted(marked)),
        unmark=tuple(sorted(pod.name for pod in alive if pod.draining and pod.name not in costs)),
        deletion_costs=_changed_costs(alive, costs),
        replicas=replicas,
        recheck_seconds=POLL_SECONDS if replicas > desired or victims else None,
    )


def _follow_rollout(
    alive: Sequence[PodView], inflight: Mapping[str, int | None], desired: int
) -> ScalePlan:
    """Lower replicas at once, the idlest first: pods that go wait in preStop for their requests."""
    costs: dict[str, int | None] = {}
    for pod in alive:
        load = inflight.get(pod.name)
        costs[pod.name] = (
            _held_cost(pod) if load is None else min(load.bit_length(), _MAX_LOAD_COST)
        )
    return ScalePlan(
        mark=(),
        unmark=tuple(sorted(pod.name for pod in alive if pod.draining)),
        deletion_costs=_changed_costs(alive, costs),
        replicas=desired,
        recheck_seconds=ROLLOUT_POLL_SECONDS,
    )


def _held_cost(pod: PodView) -> int | None:
    """Give the cost that a pod of unknown load keeps: one that a load gave it."""
    cost = pod.deletion_cost
    return cost if cost is not None and cost >= 0 else None


def _victims(
    alive: Sequence[PodView], inflight: Mapping[str, int | None], desired: int, *, shrinking: bool
) -> list[PodView]:
    """Choose the pods that go.

    What the ReplicaSet would take first whatever we write (not running, not ready) goes first. Then
    those that are marked already, then the idlest. Once replicas are lowered no new pod is marked:
    the marked ones are about to die, and keep their marks until they do.
    """

    def order(pod: PodView) -> tuple[object, ...]:
        load = inflight.get(pod.name)
        return (
            _standing(pod),
            not pod.draining,
            load is None,
            load or 0,
            -(pod.created_at.timestamp() if pod.created_at else 0.0),
            pod.name,
        )

    excess = max(0, len(alive) - desired)
    chosen = sorted(alive, key=order)[:excess]
    return chosen if shrinking else [pod for pod in chosen if pod.draining]


def _standing(pod: PodView) -> tuple[int, int, int]:
    """Rank a pod as a ReplicaSet does before it looks at deletion costs; lower dies first."""
    phases = {"Pending": 0, "Unknown": 1}
    return (pod.node is not None, phases.get(pod.phase, 2), pod.ready)


def _dying_well(alive: Sequence[PodView], removable: AbstractSet[str]) -> int:
    """Count the pods that the ReplicaSet may delete now, in its own order, before one that may not.

    Costs are those that the API holds, not those about to be written; among equals the worst case
    is assumed.
    """
    order = sorted(
        alive,
        key=lambda pod: (_standing(pod), pod.deletion_cost or 0, pod.name in removable),
    )
    count = 0
    for pod in order:
        if pod.name not in removable:
            break
        count += 1
    return count


def _may_serve(pod: PodView) -> bool:
    """Whether the pod may hold requests: it has a node, and its containers have started."""
    return pod.node is not None and pod.phase != "Pending"


def _mark_holds(pod: PodView, now: datetime) -> bool:
    """Whether the pod's drain mark is there and tells when the draining began."""
    return pod.draining and pod.drain_since is not None and pod.drain_since <= now


def _late(pod: PodView, now: datetime, timeout: timedelta) -> bool:
    return pod.drain_since is not None and now - pod.drain_since >= timeout


def _changed_costs(
    alive: Sequence[PodView], costs: Mapping[str, int | None]
) -> dict[str, int | None]:
    wanted = {pod: costs.get(pod.name) for pod in alive}
    return {
        pod.name: cost
        for pod, cost in sorted(wanted.items(), key=lambda item: item[0].name)
        if cost != pod.deletion_cost
    }

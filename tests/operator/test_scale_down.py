"""Planned scale-down, against a model of what ReplicaSets, routers and the API do with a plan."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.wire_names import DELETION_COST_ANNOTATION, DRAIN_ANNOTATION
from heliostat_operator.observed.pod import PodView, parse_pod
from heliostat_operator.scale_down import (
    DRAINED_COST,
    DRAINING_COST,
    ScalePlan,
    plan_scale_down,
    rollout_runs,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TIMEOUT_SECONDS = 300.0
PLAIN = parse_pod(
    {
        "metadata": {
            "name": "p",
            "namespace": "default",
            "labels": {"pod-template-hash": "r1"},
            "creationTimestamp": "2029-12-31T00:00:00Z",
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "engine"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
)


def pod(name: str, **changes: object) -> PodView:
    """A ready pod, with changes."""
    return replace(PLAIN, name=name, **changes)


def plan(pods: list[PodView], **changes: object) -> ScalePlan:
    """A plan to go from all pods to fewer, everybody idle and nobody drained."""
    given: dict[str, object] = {
        "desired": len(pods) - 1,
        "current": len(pods),
        "inflight": dict.fromkeys((it.name for it in pods), 0),
        "drained": frozenset(),
        "rolling": False,
        "now": NOW,
        "drain_timeout_seconds": TIMEOUT_SECONDS,
    }
    return plan_scale_down(pods=pods, **{**given, **changes})  # type: ignore[arg-type]


def marked(name: str, *, ago: float = 10, cost: int | None = DRAINING_COST) -> PodView:
    """A pod that drains."""
    since = NOW - timedelta(seconds=ago)
    return pod(name, draining=True, drain_since=since, deletion_cost=cost)


def test_the_idlest_pod_is_marked_and_nothing_removed_yet() -> None:
    """Scale-down begins with a drain mark and a deletion cost on the idlest pod."""
    made = plan([pod("a"), pod("b"), pod("c")], inflight={"a": 3, "b": 1, "c": 2})
    assert (made.mark, made.unmark, made.replicas) == (("b",), (), 3)
    assert made.deletion_costs == {"b": DRAINING_COST}
    assert made.recheck_seconds is not None
    assert made.annotations(NOW) == {
        "b": {DRAIN_ANNOTATION: "2030-01-01T00:00:00Z", DELETION_COST_ANNOTATION: "-1000000"}
    }


def test_a_pod_that_is_not_ready_goes_before_an_idle_one() -> None:
    """A ReplicaSet deletes pods that are not ready first, so they are the ones to choose."""
    made = plan([pod("a"), pod("b", ready=False)], inflight={"a": 0, "b": 9})
    assert made.mark == ("b",)


def test_unknown_load_counts_as_the_highest() -> None:
    """A pod that no router can tell of is taken last."""
    assert plan([pod("a"), pod("b")], inflight={"a": None, "b": 50}).mark == ("b",)
    assert plan([pod("a"), pod("b")], inflight={"b": 50}).mark == ("b",)


def test_a_pod_that_never_started_goes_at_once() -> None:
    """Nobody waits for a pod without a node: it holds no request."""
    made = plan([pod("a"), pod("b", node=None, phase="Pending", ready=False)], inflight={"a": 0})
    assert made.replicas == 1


def test_replicas_wait_until_the_api_holds_which_pod_is_to_die() -> None:
    """Of two pods that drain, the drained one must cost less before replicas are lowered."""
    pods = [pod("a"), marked("b"), marked("c")]
    first = plan(pods, desired=1, drained=frozenset({"c"}))
    assert (first.deletion_costs, first.replicas) == ({"c": DRAINED_COST}, 3)
    pods = [pod("a"), marked("b"), marked("c", cost=DRAINED_COST)]
    second = plan(pods, desired=1, drained=frozenset({"c"}))
    assert (second.deletion_costs, second.replicas) == ({}, 2)


def test_a_pod_reported_drained_before_its_mark_is_not_drained() -> None:
    """A report about an unmarked pod says nothing: the router may send it the next request."""
    assert plan([pod("a"), pod("b")], drained=frozenset({"a", "b"})).replicas == 2
    unready = pod("b", ready=False)
    assert plan([pod("a"), unready], drained=frozenset({"b"})).replicas == 2
    left_over = pod("b", deletion_cost=DRAINED_COST)
    assert plan([pod("a"), left_over], drained=frozenset({"b"})).replicas == 2


def test_a_pod_that_does_not_drain_goes_after_the_timeout() -> None:
    """One request cannot hold a scale-down for ever; preStop still waits for it."""
    early = marked("b", ago=TIMEOUT_SECONDS - 1, cost=DRAINED_COST)
    late = marked("b", ago=TIMEOUT_SECONDS, cost=DRAINED_COST)
    assert plan([pod("a"), early]).replicas == 2
    assert plan([pod("a"), late]).replicas == 1


def test_scaling_up_again_takes_the_marks_off() -> None:
    """Pods that need not go any more serve again."""
    made = plan([pod("a"), marked("b"), marked("c")], desired=3, inflight={})
    assert made.unmark == ("b", "c")
    assert made.deletion_costs == {"b": None, "c": None}
    assert (made.replicas, made.recheck_seconds) == (3, None)


def test_marks_stay_while_the_replicaset_has_not_acted_yet() -> None:
    """Between the lowering of replicas and the deletion nobody returns to a dying pod."""
    made = plan([pod("a"), marked("b", cost=DRAINED_COST)], desired=1, current=1)
    assert (made.mark, made.unmark, made.replicas) == ((), (), 1)


def test_a_rollout_lowers_replicas_at_once_and_keeps_costs_near_the_load() -> None:
    """While a rollout runs the idlest pods die first, and preStop waits for their requests."""
    made = plan([pod("a"), pod("b"), marked("c")], inflight={"a": 5, "b": 0}, rolling=True)
    assert (made.mark, made.unmark, made.replicas) == ((), ("c",), 2)
    assert made.deletion_costs == {"a": 3, "b": 0, "c": None}


def test_mark_of_another_clock_is_written_anew() -> None:
    """A mark from the future, or one that cannot be read, could never time out."""
    future = pod("b", draining=True, drain_since=NOW + timedelta(hours=1))
    unread = pod("b", draining=True, drain_since=None)
    assert plan([pod("a"), future]).mark == ("b",)
    assert plan([pod("a"), unread]).mark == ("b",)


@pytest.mark.parametrize(("revisions", "runs"), [("aa", False), ("ab", True), ("", False)])
def test_two_versions_alive_are_a_rollout(revisions: str, runs: bool) -> None:
    """A rollout runs while pods of two templates live; deleted ones do not count."""
    gone = pod("gone", revision="z", deleted_at=NOW)
    assert rollout_runs([*(pod(it, revision=it) for it in revisions), gone]) is runs


@dataclass
class Cluster:
    """A Deployment's pods, the routers' view of them, and a ReplicaSet that deletes by its rules.

    `later_first` says how the ReplicaSet decides between pods that differ in nothing we can set.
    """

    pods: list[PodView]
    replicas: int
    inflight: dict[str, int]
    later_first: bool
    now: datetime = NOW
    removed: list[PodView] = field(default_factory=list)

    def step(self, desired: int, rolling: bool = False) -> ScalePlan:
        """Plan once and carry it out; then the ReplicaSet acts."""
        drained = {it.name for it in self.pods if it.draining and not self.inflight[it.name]}
        made = plan_scale_down(
            desired=desired,
            current=self.replicas,
            pods=self.pods,
            inflight=self.inflight,
            drained=drained,
            rolling=rolling,
            now=self.now,
            drain_timeout_seconds=TIMEOUT_SECONDS,
        )
        for name, annotations in made.annotations(self.now).items():
            self._annotate(name, annotations)
        self.replicas = made.replicas
        self.shrink()
        return made

    def _annotate(self, name: str, annotations: dict[str, str | None]) -> None:
        index = next(i for i, it in enumerate(self.pods) if it.name == name)
        changes: dict[str, object] = {}
        if DRAIN_ANNOTATION in annotations:
            text = annotations[DRAIN_ANNOTATION]
            changes["draining"] = text is not None
            changes["drain_since"] = None if text is None else datetime.fromisoformat(text)
        if DELETION_COST_ANNOTATION in annotations:
            cost = annotations[DELETION_COST_ANNOTATION]
            changes["deletion_cost"] = None if cost is None else int(cost)
        self.pods[index] = replace(self.pods[index], **changes)

    def shrink(self) -> None:
        """Delete what is too much, in the order of a ReplicaSet."""
        excess = max(0, len(self.pods) - self.replicas)
        order = sorted(
            self.pods,
            key=lambda it: (
                it.node is not None,
                {"Pending": 0, "Unknown": 1}.get(it.phase, 2),
                it.ready,
                it.deletion_cost or 0,
                int(it.name[1:]) * (-1 if self.later_first else 1),
            ),
        )
        self.removed += order[:excess]
        self.pods = order[excess:]


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Any state that crashes, users and other programs may have left."""
    pods = []
    for number in range(draw(st.integers(0, 6))):
        placed = draw(st.booleans()) or draw(st.booleans())
        running = placed and draw(st.integers(0, 3)) > 0
        since = draw(st.none() | st.integers(-100, 600))
        changes: dict[str, object] = {
            "node": f"n{draw(st.integers(0, 2))}" if placed else None,
            "phase": "Running" if running else "Pending",
            "ready": running and draw(st.booleans()),
            "draining": draw(st.booleans()),
            "drain_since": None if since is None else NOW - timedelta(seconds=since),
            "deletion_cost": draw(st.sampled_from([None, 0, 3, DRAINING_COST, DRAINED_COST, 99])),
        }
        if not changes["draining"]:
            changes["drain_since"] = None
        pods.append(pod(f"p{number}", **changes))
    inflight = {it.name: draw(st.integers(0, 3)) if it.phase == "Running" else 0 for it in pods}
    cluster = Cluster(pods, draw(st.integers(0, 8)), inflight, draw(st.booleans()))
    cluster.shrink()
    cluster.removed.clear()
    return cluster


@given(clusters(), st.integers(0, 6))
def test_replicas_never_go_below_what_is_desired(cluster: Cluster, desired: int) -> None:
    """A plan lowers replicas at most to what is asked for, and raises them to it at once."""
    before = cluster.replicas
    made = cluster.step(desired)
    assert made.replicas >= desired
    assert made.replicas == desired or desired < made.replicas <= before


@given(clusters(), st.integers(0, 6))
def test_no_request_is_lost_before_its_time(cluster: Cluster, desired: int) -> None:
    """What the ReplicaSet deletes never served, or is marked, and idle or out of time."""
    for _ in range(4):
        cluster.step(desired)
    for gone in cluster.removed:
        served = gone.node is not None and gone.phase != "Pending"
        since = gone.drain_since
        late = since is not None and NOW - since >= timedelta(seconds=TIMEOUT_SECONDS)
        assert not served or (gone.draining and (cluster.inflight[gone.name] == 0 or late))


@given(clusters(), st.integers(0, 6), st.data())
def test_every_state_converges(cluster: Cluster, desired: int, data: st.DataObject) -> None:
    """From any state, and with requests that end at any time, the plan ends where it should.

    Every step stands for an operator that was killed and started again: it holds no state.
    """
    for _ in range(12):
        cluster.step(desired)
        cluster.now += timedelta(seconds=40)
        for name in cluster.inflight:
            if data.draw(st.booleans()):
                cluster.inflight[name] = 0
    last = cluster.step(desired)
    assert cluster.replicas == desired
    assert len(cluster.pods) <= desired
    assert not any(it.draining or it.deletion_cost is not None for it in cluster.pods)
    assert (last.mark, last.unmark, last.deletion_costs, last.recheck_seconds) == ((), (), {}, None)


@given(clusters(), st.integers(0, 6))
def test_marks_are_on_as_many_pods_as_go(cluster: Cluster, desired: int) -> None:
    """Never do more pods drain than will go, and nobody is both marked and unmarked."""
    excess = max(0, len(cluster.pods) - desired)
    made = cluster.step(desired)
    assert sum(it.draining for it in cluster.pods) <= excess
    assert not set(made.mark) & set(made.unmark)


@given(clusters(), st.integers(0, 6))
def test_a_rollout_follows_at_once(cluster: Cluster, desired: int) -> None:
    """During a rollout replicas are what is desired, and nobody keeps a mark."""
    assert cluster.step(desired, rolling=True).replicas == desired
    assert not any(it.draining for it in cluster.pods)

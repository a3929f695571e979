"""Which events a pool's changes are worth: each thing once, and nothing that only repeats."""

from collections.abc import Sequence
from typing import Any

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.status import Condition
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_operator.events import EventRecorder, Notice, notices
from heliostat_operator.observed.deployment import DeploymentView
from heliostat_operator.observed.observation import Observation
from heliostat_operator.observed.pod import PodView
from heliostat_operator.observed.pool_status import observe
from tests.kube.api_server import running_api_server
from tests.operator.pod_json import (
    BEGAN,
    crashed,
    failing_to_load,
    loading,
    pod,
    serving,
    unplaced,
    waiting,
)

EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events/"


def conditions(
    pods: Sequence[PodView], *, updated: int | None = 1, counted: int = 1
) -> tuple[Condition, ...]:
    """What is said of a pool of one engine."""
    manifest: dict[str, Any] = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "llama", "namespace": "default", "uid": "u"},
        "spec": {"model": {"name": "llama"}, "replicas": 1},
    }
    return observe(
        Observation(
            name="llama",
            generation=1,
            pool=InferencePool.from_object(manifest),
            pods=pods,
            deployment=DeploymentView("default", "llama", "d", 1, updated, counted, "", False),
            previous=(),
            now=BEGAN,
        )
    ).conditions


def story(*states: tuple[Condition, ...]) -> list[tuple[str, str]]:
    """The events of a pool that goes through these states: type and reason."""
    before: tuple[Condition, ...] = ()
    told: list[tuple[str, str]] = []
    for now in states:
        told += (("Warning" if it.warning else "Normal", it.reason) for it in notices(before, now))
        before = now
    return told


NEW = conditions([], updated=None)
FIRST_POD = conditions([pod(node=None)], updated=0, counted=0)
STARTS = conditions([pod(phase="Pending", engine=waiting("ContainerCreating"))])
LOADS = conditions([loading()])
SERVES = conditions([serving()])
NO_ROOM = conditions([unplaced()])


def test_a_first_start_is_three_events() -> None:
    """A pool that starts says that pods come, that they load, and that it serves."""
    assert story(NEW, FIRST_POD, STARTS, LOADS, SERVES) == [
        ("Normal", "Scaling"),
        ("Normal", "Loading"),
        ("Normal", "AllReady"),
    ]


def test_a_pool_that_serves_when_first_seen_is_one_event() -> None:
    """Nothing is told of a pool's way where nobody watched it."""
    assert story(SERVES) == [("Normal", "AllReady")]
    assert story(NO_ROOM) == [("Warning", "InsufficientCapacity")]


def test_a_failure_is_told_once_and_whole() -> None:
    """One warning, with what Degraded says: neither Ready's short form nor Stalled beside it."""
    failed = conditions([failing_to_load()])
    assert notices(LOADS, failed) == (Notice("ModelLoadFailed", failed[2].message, True),)
    assert story(NEW, FIRST_POD, NO_ROOM, STARTS, SERVES) == [
        ("Normal", "Scaling"),
        ("Warning", "InsufficientCapacity"),
        ("Normal", "Loading"),
        ("Normal", "AllReady"),
    ]


def test_a_crash_is_told_at_its_begin_and_end() -> None:
    """While a crashed engine loads again nothing new is said until it serves."""
    assert story(SERVES, conditions([crashed()]), SERVES)[1:] == [
        ("Warning", "EngineCrashed"),
        ("Normal", "AllReady"),
    ]


def test_an_update_that_stalls_is_told_by_its_cause() -> None:
    """An update is told as it begins, by what stops it, and as it completes."""
    new = {"revision": "r2"}
    begins = conditions([serving()], updated=None)
    updates = conditions([serving(), loading("new", **new)])
    stalls = conditions([serving(), failing_to_load("new", **new)])
    assert stalls[0].reason == "UpdateStalled"
    assert story(SERVES, begins, updates, stalls, SERVES)[1:] == [
        ("Normal", "Updating"),
        ("Warning", "ModelLoadFailed"),
        ("Normal", "AllReady"),
    ]


async def test_a_note_fits_whatever_its_characters() -> None:
    """The API server counts bytes: a note of other alphabets is cut, and stays readable."""
    pool = {"metadata": {"name": "llama", "namespace": "default", "uid": "u"}}
    async with running_api_server() as server, KubeApi(Connection(server=server.url)) as api:
        await EventRecorder(api, "test").publish(pool, "ModelLoadFailed", "\u00e4" * 999)
        (event,) = [it for path, it in server.objects.items() if path.startswith(EVENTS)]
    assert event["note"] == "\u00e4" * 500

"""What a pool's status says in every situation that its users meet."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.claims import Conflict
from heliostat_crds.conditions import (
    MAX_DETAIL_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    DegradedReason,
    ProgressingReason,
    ReadyReason,
)
from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.status import Condition, PoolStatus
from heliostat_operator.observed.deployment import DeploymentView
from heliostat_operator.observed.observation import AdapterFailure, Observation
from heliostat_operator.observed.pod import PodView
from heliostat_operator.observed.pool_status import observe
from tests.operator.pod_json import (
    BEGAN,
    at,
    crashed,
    ended,
    failing_to_load,
    loading,
    pod,
    running,
    serving,
    unplaced,
    waiting,
)

NOW = BEGAN + timedelta(seconds=1000)


def pool(**spec: Any) -> InferencePool:
    """A pool of three engines, with changes of its spec."""
    whole = {"model": {"name": "llama-3.1-8b"}, "replicas": 3, **spec}
    if "selector" in spec or "endpoints" in spec:
        del whole["replicas"]
    return InferencePool.from_object(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": "llama", "namespace": "default", "uid": "u"},
            "spec": whole,
        }
    )


def deployment(replicas: int = 3, updated: int | None = 3, **changes: Any) -> DeploymentView:
    """The pool's Deployment."""
    defaults = {"counted_replicas": replicas, "creation_failure": "", "stalled": False}
    return DeploymentView(
        namespace="default",
        name="llama",
        uid="d",
        replicas=replicas,
        updated_replicas=updated,
        **{**defaults, **changes},
    )


def seen(
    pods: Sequence[PodView] = (),
    of: InferencePool | None = None,
    deployed: DeploymentView | None = None,
    **more: Any,
) -> PoolStatus:
    """The status of a pool of three, by default with its Deployment in place."""
    return observe(
        Observation(
            **{
                "name": "llama",
                "generation": 4,
                "pool": of or pool(),
                "pods": pods,
                "deployment": deployed or deployment(),
                "previous": (),
                "now": NOW,
                **more,
            }
        )
    )


class Told(NamedTuple):
    """What the three conditions say."""

    ready: tuple[str, str, str]
    progressing: tuple[str, str]
    degraded: tuple[str, str]


def told(status: PoolStatus) -> Told:
    """Shorten the conditions to what a table can hold."""
    ready, progressing, degraded = status.conditions
    assert [it.type for it in status.conditions] == ["Ready", "Progressing", "Degraded"]
    return Told(
        (ready.status.value, ready.reason, ready.message),
        (progressing.status.value, progressing.reason),
        (degraded.status.value, degraded.reason),
    )


def three(first: PodView, second: PodView | None = None, third: PodView | None = None) -> Any:
    """Three pods, those not given serve."""
    return [first, second or serving("llama-r1-b"), third or serving("llama-r1-c")]


FINE = ("False", "AsExpected")
DONE = ("False", "Complete")
STALLED = ("False", "Stalled")
QUOTA = (
    'pods "llama-r1-x" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1,'
    " used: nvidia.com/gpu=8, limited: nvidia.com/gpu=8"
)
ADOPTED = pool(selector={"matchLabels": {"app": "vllm", "tier": "gpu"}})
OLD, NEW = {"revision": "r1"}, {"revision": "r2"}

SCENARIOS: dict[str, tuple[PoolStatus, Told]] = {
    "all serve": (
        seen(three(serving())),
        Told(("True", "AllReady", "3 of 3 ready"), DONE, FINE),
    ),
    "just created": (
        seen(deployed=deployment(updated=None)),
        Told(("False", "PodsNotReady", "0 of 3 ready: 3 to be created"), ("True", "Scaling"), FINE),
    ),
    "a change that nobody has begun to carry out": (
        seen(three(serving()), deployed=deployment(updated=None)),
        Told(("True", "AllReady", "3 of 3 ready"), ("True", "Updating"), FINE),
    ),
    "scheduler has not looked yet": (
        seen([pod(node=None), pod("b", node=None), pod("c", node=None)]),
        Told(
            ("False", "PodsNotReady", "0 of 3 ready: 3 waiting for a node"),
            ("True", "Loading"),
            FINE,
        ),
    ),
    "image is pulled": (
        seen(three(pod(phase="Pending", engine=waiting("ContainerCreating")))),
        Told(("False", "Loading", "2 of 3 ready: 1 starting"), ("True", "Loading"), FINE),
    ),
    "models load": (
        seen(three(loading(), loading("b"))),
        Told(("False", "Loading", "1 of 3 ready: 2 loading the model"), ("True", "Loading"), FINE),
    ),
    "startup probe has passed, readiness is about to": (
        seen(three(pod(engine=running(started=True)))),
        Told(("False", "Loading", "2 of 3 ready: 1 loading the model"), ("True", "Loading"), FINE),
    ),
    "no GPU left": (
        seen(three(unplaced())),
        Told(
            (
                "False",
                "InsufficientCapacity",
                "2 of 3 ready: 1 waits for room: 0 of 3 nodes fit: 2 Insufficient nvidia.com/gpu",
            ),
            STALLED,
            ("True", "InsufficientCapacity"),
        ),
    ),
    "no node matches": (
        seen(
            three(
                unplaced(
                    message="0/2 nodes are available: 2 node(s) didn't match Pod's node"
                    " affinity/selector. preemption: not helpful."
                )
            )
        ),
        Told(
            (
                "False",
                "InsufficientCapacity",
                "2 of 3 ready: 1 waits: 0 of 2 nodes fit: didn't match node affinity/selector",
            ),
            STALLED,
            ("True", "InsufficientCapacity"),
        ),
    ),
    "claim is missing": (
        seen(
            three(
                unplaced(
                    message='0/2 nodes are available: persistentvolumeclaim "models" not found.'
                    " preemption: 0/2 nodes are available."
                )
            )
        ),
        Told(
            (
                "False",
                "InvalidSpec",
                '2 of 3 ready: persistentvolumeclaim "models" not found',
            ),
            STALLED,
            ("True", "InvalidSpec"),
        ),
    ),
    "secret is missing": (
        seen(three(pod(engine=waiting("CreateContainerConfigError", 'secret "hf" not found')))),
        Told(
            ("False", "PodsNotReady", '2 of 3 ready: secret "hf" not found in namespace default'),
            STALLED,
            ("True", "PodsNotReady"),
        ),
    ),
    "image is missing": (
        seen(
            three(pod(engine=waiting("ImagePullBackOff", 'Back-off pulling image "vllm:missing"')))
        ),
        Told(
            ("False", "ImagePullFailed", "2 of 3 ready: cannot pull vllm:missing"),
            STALLED,
            ("True", "ImagePullFailed"),
        ),
    ),
    "runtime refuses the container": (
        seen(three(pod(engine=waiting("RunContainerError", "no such runtime handler")))),
        Told(
            (
                "False",
                "PodsNotReady",
                "2 of 3 ready: RunContainerError: no such runtime handler",
            ),
            STALLED,
            ("True", "PodsNotReady"),
        ),
    ),
    "engine cannot load its model": (
        seen(three(failing_to_load())),
        Told(
            (
                "False",
                "ModelLoadFailed",
                "2 of 3 ready: loading: exit 1: ValueError: no such model: meta-llama/Llama",
            ),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "engine tells at length why it cannot load": (
        seen(
            [
                pod(
                    engine=waiting(
                        "CrashLoopBackOff",
                        restarts=4,
                        last=ended(
                            1, "RuntimeError: failed to load org/broken: the checkpoint is broken"
                        ),
                    )
                )
            ],
            of=pool(replicas=1),
            deployed=deployment(replicas=1, updated=1),
        ),
        Told(
            (
                "False",
                "ModelLoadFailed",
                "0 of 1 ready: RuntimeError: failed to load org/broken: the checkpoint is broken",
            ),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "loading takes longer than it may": (
        seen(
            three(
                pod(
                    engine=waiting(
                        "CrashLoopBackOff", restarts=3, last=ended(137, since=0, until=1830)
                    )
                )
            )
        ),
        Told(
            (
                "False",
                "ModelLoadFailed",
                "2 of 3 ready: not loaded within startupTimeout; raise it or see the engine's log",
            ),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "init container fails": (
        seen(
            three(
                pod(
                    phase="Pending",
                    engine=waiting("PodInitializing"),
                    init=(
                        {
                            "name": "download",
                            **waiting(
                                "CrashLoopBackOff", restarts=2, last=ended(2, "HTTP error 403")
                            ),
                        },
                    ),
                )
            )
        ),
        Told(
            (
                "False",
                "ModelLoadFailed",
                "2 of 3 ready: init container download: exit 2: HTTP error 403",
            ),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "engine was killed and loads again": (
        seen(three(crashed())),
        Told(
            ("False", "EngineCrashed", "2 of 3 ready: engine: exit 137 (OOMKilled)"),
            ("True", "Loading"),
            ("True", "EngineCrashed"),
        ),
    ),
    "engine died after it was ready, then cannot load": (
        seen(
            three(
                pod(
                    ready_changed=900,
                    engine=waiting(
                        "CrashLoopBackOff",
                        restarts=2,
                        last=ended(1, "OSError: x", since=901, until=950),
                    ),
                )
            )
        ),
        Told(
            ("False", "ModelLoadFailed", "2 of 3 ready: loading: exit 1: OSError: x"),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "sidecar crashes": (
        seen(
            three(
                pod(
                    engine=running(started=True),
                    others=(
                        {
                            "name": "shipper",
                            **waiting("CrashLoopBackOff", last=ended(3, "fatal: boom")),
                        },
                    ),
                )
            )
        ),
        Told(
            ("False", "PodsNotReady", "2 of 3 ready: container shipper: exit 3: fatal: boom"),
            STALLED,
            ("True", "PodsNotReady"),
        ),
    ),
    "engine hangs or its node is lost": (
        seen(three(pod(ready_changed=800, engine=running(since=20)))),
        Told(
            (
                "False",
                "PodsNotReady",
                "2 of 3 ready: readiness lost: the engine hangs or its node is gone",
            ),
            STALLED,
            ("True", "PodsNotReady"),
        ),
    ),
    "quota is used up": (
        seen(
            [serving(), serving("b")],
            deployed=deployment(creation_failure=QUOTA),
        ),
        Told(
            (
                "False",
                "InsufficientCapacity",
                "2 of 3 ready: exceeded quota: gpus, requested: nvidia.com/gpu=1, used...",
            ),
            STALLED,
            ("True", "InsufficientCapacity"),
        ),
    ),
    "pods are refused": (
        seen(
            deployed=deployment(
                creation_failure='pods "x" is forbidden: violates PodSecurity "restricted:latest"'
            )
        ),
        Told(
            ("False", "InvalidSpec", '0 of 3 ready: violates PodSecurity "restricted:latest"'),
            STALLED,
            ("True", "InvalidSpec"),
        ),
    ),
    "rollout surges": (
        seen(
            [*three(serving()), loading("new", **NEW)],
            deployed=deployment(updated=1),
        ),
        Told(("True", "Updating", "3 of 3 ready: 1 of 3 updated"), ("True", "Updating"), FINE),
    ),
    "rollout replaces": (
        seen(
            [serving(), serving("b"), loading("new", **NEW)],
            deployed=deployment(updated=1),
        ),
        Told(("False", "Loading", "2 of 3 ready: 1 loading the model"), ("True", "Updating"), FINE),
    ),
    "rollout finds no GPU": (
        seen(
            [*three(serving()), unplaced("new", **NEW)],
            deployed=deployment(updated=1),
        ),
        Told(
            (
                "True",
                "UpdateStalled",
                "3 of 3 ready: 1 waits for room: 0 of 3 nodes fit: 2 Insufficient nvidia.com/gpu",
            ),
            STALLED,
            ("True", "InsufficientCapacity"),
        ),
    ),
    "rollout to an image that cannot load": (
        seen(
            [*three(serving()), failing_to_load("new", **NEW)],
            deployed=deployment(updated=1),
        ),
        Told(
            (
                "True",
                "UpdateStalled",
                "3 of 3 ready: loading: exit 1: ValueError: no such model: meta-llama/Llama",
            ),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "new template has no pod yet": (
        seen(three(serving()), deployed=deployment(updated=0)),
        Told(("True", "Updating", "3 of 3 ready: 0 of 3 updated"), ("True", "Updating"), FINE),
    ),
    "rollout past its deadline": (
        seen(
            [*three(serving()), loading("new", **NEW)],
            deployed=deployment(updated=1, stalled=True),
        ),
        Told(
            (
                "True",
                "UpdateStalled",
                "3 of 3 ready: pods take longer than startupTimeout to become ready",
            ),
            STALLED,
            ("True", "PodsNotReady"),
        ),
    ),
    "rollout to an image that is missing": (
        seen(
            [
                *three(serving()),
                pod("new", engine=waiting("ErrImagePull", 'image "vllm:missing"'), **NEW),
            ],
            deployed=deployment(updated=1),
        ),
        Told(
            ("True", "UpdateStalled", "3 of 3 ready: cannot pull vllm:missing"),
            STALLED,
            ("True", "ImagePullFailed"),
        ),
    ),
    "rollout whose new pod crashed once and loads again": (
        seen([*three(serving()), crashed("new", **NEW)], deployed=deployment(updated=1)),
        Told(
            ("True", "Updating", "3 of 3 ready: engine: exit 137 (OOMKilled)"),
            ("True", "Updating"),
            ("True", "EngineCrashed"),
        ),
    ),
    "a new pool's first pod, which its Deployment has not counted": (
        seen(
            [pod(node=None)],
            of=pool(replicas=1),
            deployed=deployment(replicas=1, updated=0, counted_replicas=0),
        ),
        Told(
            ("False", "PodsNotReady", "0 of 1 ready: 1 waiting for a node"),
            ("True", "Loading"),
            FINE,
        ),
    ),
    "engine was killed": (
        seen(
            three(
                pod(
                    ready_changed=900,
                    engine=running(
                        901,
                        started=False,
                        last=ended(137, "INFO:     Application startup complete.\n", until=900),
                    ),
                )
            )
        ),
        Told(
            ("False", "EngineCrashed", "2 of 3 ready: engine: exit 137 (SIGKILL)"),
            ("True", "Loading"),
            ("True", "EngineCrashed"),
        ),
    ),
    "more pods than there is room for": (
        seen(
            [
                *(serving(f"s{number}") for number in range(9)),
                *(
                    unplaced(
                        f"u{number}", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
                    )
                    for number in range(11)
                ),
            ],
            of=pool(replicas=20),
            deployed=deployment(replicas=20, updated=20),
        ),
        Told(
            (
                "False",
                "InsufficientCapacity",
                "9 of 20 ready: 11 wait for room: 0 of 2 nodes fit: 2 Insufficient nvidia.com/gpu",
            ),
            STALLED,
            ("True", "InsufficientCapacity"),
        ),
    ),
    "room for none of very many": (
        seen(
            [
                unplaced(
                    f"u{number}", "0/240 nodes are available: 240 Insufficient nvidia.com/gpu."
                )
                for number in range(110)
            ],
            of=pool(replicas=110),
            deployed=deployment(replicas=110, updated=110),
        ),
        Told(
            (
                "False",
                "InsufficientCapacity",
                "0 of 110 ready: 110 wait: 0 of 240 nodes fit: Insufficient nvidia.com/gpu",
            ),
            STALLED,
            ("True", "InsufficientCapacity"),
        ),
    ),
    "scales up": (
        seen([serving()], deployed=deployment()),
        Told(("False", "PodsNotReady", "1 of 3 ready: 2 to be created"), ("True", "Scaling"), FINE),
    ),
    "drains to scale down": (
        seen(
            [
                *three(serving()),
                serving("d", annotations={"heliostat.dev/drain": at(990)}),
                pod("e", ready=True, engine=running(), deleted=True),
            ],
            deployed=deployment(replicas=4, updated=4),
        ),
        Told(("True", "AllReady", "3 of 3 ready"), ("True", "Draining"), FINE),
    ),
    "scaled to zero, still draining": (
        seen(
            [serving(annotations={"heliostat.dev/drain": at(990)})],
            of=pool(replicas=0),
            deployed=deployment(replicas=1, updated=1),
        ),
        Told(
            ("True", "ScaledToZero", "replicas is 0; 1 still draining"), ("True", "Draining"), FINE
        ),
    ),
    "scaled to zero": (
        seen(of=pool(replicas=0), deployed=deployment(replicas=0, updated=0)),
        Told(("True", "ScaledToZero", "replicas is 0; nothing runs"), DONE, FINE),
    ),
    "spec cannot be read, the last one serves": (
        seen(
            three(serving()),
            of=None,
            pool=None,
            spec_problem="spec.engine.args[0]: the operator sets --port itself",
        ),
        Told(
            (
                "True",
                "AllReady",
                "3 of 3 ready: spec.engine.args[0]: the operator sets --port itself",
            ),
            STALLED,
            ("True", "InvalidSpec"),
        ),
    ),
    "spec cannot be read, and nothing ran before": (
        seen(pool=None, deployment=None, spec_problem="spec.model.name: Field required"),
        Told(
            ("False", "InvalidSpec", "spec.model.name: Field required"),
            STALLED,
            ("True", "InvalidSpec"),
        ),
    ),
    "an alias belongs to another pool": (
        seen(three(serving()), conflicts=[Conflict("default/llama", "gpt", "default/old")]),
        Told(
            (
                "True",
                "AllReady",
                '3 of 3 ready: "gpt" belongs to pool default/old: not served under that name',
            ),
            DONE,
            ("True", "NameConflict"),
        ),
    ),
    "the model's name belongs to another pool": (
        seen(
            three(serving()),
            conflicts=[Conflict("default/llama", "llama-3.1-8b", "default/old")],
        ),
        Told(
            (
                "False",
                "NameConflict",
                '3 of 3 ready: "llama-3.1-8b" belongs to pool default/old',
            ),
            STALLED,
            ("True", "NameConflict"),
        ),
    ),
    "an adapter does not load": (
        seen(
            three(serving()),
            adapter_failures=[AdapterFailure("sql", "llama-r1-a", "rank 64 > 16")],
        ),
        Told(
            ("True", "AllReady", '3 of 3 ready: adapter "sql" does not load: rank 64 > 16'),
            DONE,
            ("True", "AdapterLoadFailed"),
        ),
    ),
    "an alias belongs to another pool while a pod waits for room": (
        seen(three(unplaced()), conflicts=[Conflict("default/llama", "gpt", "default/old")]),
        Told(
            (
                "False",
                "InsufficientCapacity",
                "2 of 3 ready: 1 waits for room: 0 of 3 nodes fit: 2 Insufficient nvidia.com/gpu",
            ),
            STALLED,
            ("True", "NameConflict"),
        ),
    ),
    "an alias belongs to another pool, and the model cannot load": (
        seen(three(failing_to_load()), conflicts=[Conflict("default/llama", "gpt", "default/old")]),
        Told(
            (
                "False",
                "ModelLoadFailed",
                "2 of 3 ready: loading: exit 1: ValueError: no such model: meta-llama/Llama",
            ),
            STALLED,
            ("True", "ModelLoadFailed"),
        ),
    ),
    "adopted pods serve": (
        seen([serving(), serving("b")], of=ADOPTED, deployment=None),
        Told(("True", "AllReady", "2 of 2 ready"), DONE, FINE),
    ),
    "an adopted pod loads": (
        seen([serving(), loading("b")], of=ADOPTED, deployment=None),
        Told(("False", "Loading", "1 of 2 ready: 1 loading the model"), ("True", "Loading"), FINE),
    ),
    "adopted pods of two versions are no rollout of ours": (
        seen([serving(), serving("b", **NEW)], of=ADOPTED, deployment=None),
        Told(("True", "AllReady", "2 of 2 ready"), DONE, FINE),
    ),
    "nothing to adopt": (
        seen(of=ADOPTED, deployment=None),
        Told(
            ("False", "NoPods", "spec.selector matches no pod"),
            STALLED,
            ("True", "NoPods"),
        ),
    ),
    "fixed endpoints": (
        seen(
            of=pool(endpoints=[{"address": "10.0.0.7"}, {"address": "10.0.0.8"}]), deployment=None
        ),
        Told(("True", "AllReady", "2 fixed endpoints; routers check their health"), DONE, FINE),
    ),
    "what must be mended is told before what will pass": (
        seen([unplaced(), failing_to_load("b"), crashed("c")]),
        Told(
            (
                "False",
                "ModelLoadFailed",
                "0 of 3 ready: loading: exit 1: ValueError: no such model: meta-llama/Llama",
            ),
            ("True", "Loading"),
            ("True", "ModelLoadFailed"),
        ),
    ),
    "failed pods that were replaced do not count": (
        seen([*three(serving()), pod("evicted", phase="Failed", reason="Evicted")]),
        Told(("True", "AllReady", "3 of 3 ready"), DONE, FINE),
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_status_tells_what_is_the_matter(scenario: str) -> None:
    """Each situation has its own reason, and a message that needs nothing else."""
    status, expected = SCENARIOS[scenario]
    assert told(status) == expected


def test_degraded_tells_the_whole_error() -> None:
    """What is cut in Ready is whole in Degraded, up to what an event holds."""
    error = "RuntimeError: failed to load org/broken: the checkpoint is broken: " + "weights " * 30
    engine = waiting("CrashLoopBackOff", restarts=4, last=ended(1, error))
    ready, _, degraded = seen(three(pod(engine=engine))).conditions
    assert len(ready.message) <= MAX_MESSAGE_CHARACTERS
    assert ready.message.endswith("...")
    assert degraded.message == f"2 of 3 ready: loading: exit 1: {error.strip()}"
    endless = waiting("CrashLoopBackOff", restarts=4, last=ended(1, "ValueError: " + "x" * 5000))
    assert len(seen(three(pod(engine=endless))).conditions[2].message) == MAX_DETAIL_CHARACTERS


def test_degraded_hides_no_trouble_behind_another() -> None:
    """A name that is lost, an adapter that is refused and a lack of room are all told."""
    status = seen(
        three(unplaced()),
        conflicts=[Conflict("default/llama", "gpt", "default/old")],
        adapter_failures=[AdapterFailure("sql", "llama-r1-b", "rank 64 > 16")],
    )
    assert status.conditions[2].message == (
        '2 of 3 ready: "gpt" belongs to pool default/old: not served under that name;'
        ' adapter "sql" does not load: rank 64 > 16;'
        " 1 waits for room: 0 of 3 nodes fit: 2 Insufficient nvidia.com/gpu,"
        " 1 node(s) had untolerated taint {x: y}"
    )


def test_pods_that_wait_for_room_do_not_fail() -> None:
    """Progressing counts pods without room apart from those that fail."""
    pods = [serving(), *(unplaced(f"u{number}") for number in range(4)), loading("l")]
    _, progressing, _ = seen(
        pods, of=pool(replicas=8), deployed=deployment(replicas=8, updated=6)
    ).conditions
    assert progressing.message == (
        "1 of 8 ready: 1 loading the model, 4 waiting for room, 2 to be created"
    )


EVERY_POD = (
    serving,
    loading,
    unplaced,
    failing_to_load,
    crashed,
    lambda name, **what: pod(name, node=None, **what),
    lambda name, **what: pod(name, phase="Failed", **what),
    lambda name, **what: serving(name, deleted=True, **what),
    lambda name, **what: serving(name, annotations={"heliostat.dev/drain": at(1)}, **what),
    lambda name, **what: pod(name, engine=waiting("ErrImagePull", "x" * 500), **what),
    lambda name, **what: pod(name, engine=waiting("Odd\nReason", "a\nb\tc"), **what),
)
POOLS = (
    pool(),
    pool(replicas=0),
    pool(replicas=1),
    ADOPTED,
    pool(endpoints=[{"address": "10.0.0.7"}]),
    None,
)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Any pool with any pods."""
    pods = [
        draw(st.sampled_from(EVERY_POD))(f"p{number}", **draw(st.sampled_from([OLD, NEW])))
        for number in range(draw(st.integers(0, 5)))
    ]
    text = st.text(max_size=200)
    of = draw(st.sampled_from(POOLS))
    deployed = st.builds(
        deployment,
        st.integers(0, 5),
        st.none() | st.integers(0, 5),
        creation_failure=st.just("") | text,
        stalled=st.booleans(),
    )
    names = st.sampled_from(["llama-3.1-8b", "gpt"])
    return Observation(
        name="llama",
        generation=draw(st.integers(1, 9)),
        pool=of,
        pods=pods,
        deployment=draw(st.none() | deployed),
        previous=(),
        now=NOW,
        spec_problem="cannot be read" if of is None else draw(st.just("") | text),
        conflicts=draw(st.just(()) | names.map(lambda it: (Conflict("a/b", it, "a/old"),))),
        adapter_failures=draw(st.just(()) | text.map(lambda it: (AdapterFailure("a", "p", it),))),
    )


REASONS = {
    "Ready": {it.value for it in ReadyReason},
    "Progressing": {it.value for it in ProgressingReason},
    "Degraded": {it.value for it in DegradedReason},
}
HOLDS = {
    "Ready": {"AllReady", "Updating", "UpdateStalled", "ScaledToZero"},
    "Progressing": REASONS["Progressing"] - {"Complete", "Stalled"},
    "Degraded": REASONS["Degraded"] - {"AsExpected"},
}


@given(observations())
def test_reasons_are_of_the_closed_sets_and_messages_fit(observation: Observation) -> None:
    """Whatever is seen, each condition has a known reason of its status and one line that fits."""
    status = observe(observation)
    for condition in status.conditions:
        assert condition.reason in REASONS[condition.type]
        assert (condition.status == "True") == (condition.reason in HOLDS[condition.type])
        whole = condition.type == "Degraded"
        room = MAX_DETAIL_CHARACTERS if whole else MAX_MESSAGE_CHARACTERS
        assert 0 < len(condition.message) <= room
        assert condition.message.isprintable()
        assert condition.observed_generation == status.observed_generation
        assert condition.last_transition_time == "2030-01-01T00:16:40Z"


@given(observations())
def test_ready_is_true_just_when_enough_serve(observation: Observation) -> None:
    """Ready is True where as many serve as asked for, and the model's name is the pool's own."""
    status = observe(observation)
    of, deployed = observation.pool, observation.deployment
    desired = status.replicas
    if of is None:
        desired = deployed.replicas if deployed is not None else 10**6
    elif of is POOLS[0] or of is POOLS[1] or of is POOLS[2]:
        desired = of.spec.replicas
    else:
        desired = max(1, desired)
    own_name = of is None or all(it.name != "llama-3.1-8b" for it in observation.conflicts)
    ready = status.conditions[0].status == "True"
    assert ready == (status.ready_replicas >= desired and own_name)
    assert status.ready_replicas <= status.replicas


@given(observations(), observations())
def test_times_are_kept_while_a_status_stays(first: Observation, then: Observation) -> None:
    """A condition's time changes just when its status does."""
    before = {it.type: it for it in observe(first).conditions}
    later = NOW + timedelta(hours=1)
    told_next = dataclasses.replace(then, previous=tuple(before.values()), now=later)
    for condition in observe(told_next).conditions:
        same = condition.status is before[condition.type].status
        assert (
            condition.last_transition_time == before[condition.type].last_transition_time
        ) is same


@given(observations())
def test_observing_again_changes_nothing(observation: Observation) -> None:
    """With its own conditions given back, a minute later, the status stays what it is."""
    once = observe(observation)
    again = dataclasses.replace(
        observation, previous=once.conditions, now=NOW + timedelta(minutes=1)
    )
    assert observe(again) == once


def test_conditions_read_back_from_the_api_count_as_previous() -> None:
    """What was written to the status subresource can be given back as it is read."""
    once = seen(three(serving()))
    read = [
        Condition.model_validate(it.model_dump(mode="json", by_alias=True))
        for it in once.conditions
    ]
    assert seen(three(serving()), previous=read, now=NOW + timedelta(days=1)) == once


def test_replicas_tell_what_stays() -> None:
    """Pods on their way out are no replicas; an update counts once its controller has seen it."""
    leaving = serving("d", annotations={"heliostat.dev/drain": at(990)})
    status = seen([*three(serving()), leaving], deployed=deployment(replicas=4, updated=4))
    assert (status.replicas, status.ready_replicas, status.updated_replicas) == (3, 3, 3)
    assert seen(three(serving()), deployed=deployment(updated=None)).updated_replicas == 0


def test_deleted_pod_of_a_lost_node_drains_no_more() -> None:
    """A pod that nobody removes after its grace period does not keep the pool busy for ever."""
    leaving = serving("d", deleted=True)
    assert told(seen([*three(serving()), leaving])).progressing == ("True", "Draining")
    later = NOW + timedelta(minutes=10)
    assert told(seen([*three(serving()), leaving], now=later)).progressing == DONE


@pytest.mark.parametrize(
    ("of", "selector"),
    [
        (pool(), "heliostat.dev/pool=llama"),
        (ADOPTED, "app=vllm,tier=gpu"),
        (pool(endpoints=[{"address": "10.0.0.7"}]), ""),
        (None, "heliostat.dev/pool=llama"),
    ],
)
def test_selector_finds_the_pods(of: InferencePool | None, selector: str) -> None:
    """Autoscalers get the labels of the pool's pods; fixed endpoints have none."""
    problem = "" if of is not None else "unreadable"
    status = seen(pool=of, spec_problem=problem, url="http://gw/v1")
    assert (status.selector, status.url, status.observed_generation) == (
        selector,
        "http://gw/v1",
        4,
    )

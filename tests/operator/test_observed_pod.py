"""What is kept of pods and Deployments, and that nothing in them breaks the reading."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_operator.observed.deployment import DeploymentView, parse_deployment
from heliostat_operator.observed.instant import format_instant, parse_instant
from heliostat_operator.observed.last_words import last_words
from heliostat_operator.observed.pod import PodView, parse_pod
from tests.operator.pod_json import BEGAN, at, ended, pod_json, running, serving, waiting

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=5), it, max_size=3),
    max_leaves=8,
)


def test_what_the_operator_decides_by_is_kept() -> None:
    """Every field comes from where Kubernetes keeps it."""
    annotations = {
        "heliostat.dev/drain": at(30),
        "heliostat.dev/adapters": '{"container": "containerd://20", "adapters": ["a", "b"]}',
        "controller.kubernetes.io/pod-deletion-cost": "-1000000",
    }
    pod = serving(annotations=annotations)
    assert (pod.key, pod.pool, pod.revision) == ("default/llama-r1-a", "llama", "r1")
    assert (pod.uid, pod.ip, pod.node, pod.phase) == ("uid-llama-r1-a", "10.0.0.7", "n1", "Running")
    assert pod.ready
    assert pod.ready_changed_at == parse_instant(at(300))
    assert pod.draining
    assert pod.drain_since == parse_instant(at(30))
    assert pod.deletion_cost == -1_000_000
    assert pod.loaded_adapters == {"a", "b"}
    assert pod.alive
    assert not serving(deleted=True).alive


def test_adapters_of_an_earlier_container_are_not_loaded() -> None:
    """An engine that was restarted holds no adapter until somebody loads it again."""
    annotations = {"heliostat.dev/adapters": '{"container": "containerd://1", "adapters": ["a"]}'}
    assert serving(annotations=annotations).loaded_adapters == frozenset()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"container": 1}', '{"adapters": []}', "[" * 9999]
)
def test_broken_adapters_annotation_counts_as_none(text: str) -> None:
    """Whatever somebody writes into the annotation, the pod can be read."""
    assert serving(annotations={"heliostat.dev/adapters": text}).loaded_adapters == frozenset()


def test_broken_drain_mark_still_drains() -> None:
    """Routers go by the mark alone; only its instant is unknown."""
    pod = serving(annotations={"heliostat.dev/drain": "now"})
    assert (pod.draining, pod.drain_since) == (True, None)


def test_engine_of_an_adopted_pod_is_its_first_container() -> None:
    """Where no container is named `engine`, the first one of the spec serves."""
    other = {"name": "vllm", **running()}
    adopted = parse_pod(pod_json(engine=other, others=({"name": "log", **running()},)))
    assert adopted.engine == "vllm"
    assert adopted.engine_container is not None
    ours = parse_pod(pod_json(engine=running(), others=({"name": "log", **running()},)))
    assert ours.engine == "engine"


def test_latest_end_of_a_container_is_kept() -> None:
    """The present container's own end counts before that of the one before."""
    now = {"state": {"terminated": ended(2)}, "lastState": {"terminated": ended(1)}}
    container = parse_pod(pod_json(engine=now)).containers[0]
    assert container.exit is not None
    assert container.exit.code == 2
    before = parse_pod(pod_json(engine=waiting("CrashLoopBackOff", last=ended(1)))).containers[0]
    assert before.exit is not None
    assert before.exit.code == 1


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON)) | JSON
            for key, names in {
                "metadata": ["name", "creationTimestamp", "annotations", "labels"],
                "spec": ["nodeName", "containers"],
                "status": ["phase", "conditions", "containerStatuses", "initContainerStatuses"],
            }.items()
        },
    )
)
def test_any_object_can_be_read(obj: dict[str, Any]) -> None:
    """A pod of any shape gives a view: reading never stops the operator."""
    assert isinstance(parse_pod(obj), PodView)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        (None, ""),
        ("one\ntwo\n\n", ""),
        ("INFO:     Application startup complete.\n", ""),
        ("INFO 11-21 08:00:00 [api_server.py:9] 0 requests failed\n", ""),
        ("WARNING 11-21 08:00:00 [config.py:3] cannot use FlashAttention\n", ""),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'a'\ndone\n", "KeyError: 'a'"),
        (
            "usage: vllm\nvllm: error: unrecognized arguments: --x\n\n",
            "vllm: error: unrecognized arguments: --x",
        ),
        (
            "ERROR:    [Errno 98] error while attempting to bind\nINFO:     bye\n",
            "[Errno 98] error while attempting to bind",
        ),
        ("bash: vllm: command not found\n", "bash: vllm: command not found"),
        ("terminate called\nCUDA error: device-side assert\n", "CUDA error: device-side assert"),
        ("ValueError: bad\nexiting\n", "ValueError: bad"),
        (
            (
                "(EngineCore_0 pid=9) ERROR 11-21 08:00:00 [core.py:718]"
                " torch.OutOfMemoryError: CUDA out of memory\n"
                "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root"
                " cause above.\n"
            ),
            "torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            "RuntimeError: Engine core initialization failed. See root cause above.",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        ("Error: " + "x" * 2000, "Error: " + "x" * 993),
    ],
)
def test_last_words_name_the_cause(log: str | None, words: str) -> None:
    """Of a dead engine's log one line stays: the last error that is not the echo of another."""
    assert last_words(log) == words


@pytest.mark.parametrize("text", ["", "yesterday", "2030-01-01T00:00:00", 3, None])
def test_what_is_no_instant_is_none(text: Any) -> None:
    """An instant needs a time zone; everything else is not there."""
    assert parse_instant(text) is None


def test_instants_are_read_back() -> None:
    """What is written is read as the same instant, also from another time zone."""
    assert parse_instant(format_instant(BEGAN)) == BEGAN
    assert parse_instant("2030-01-01T02:00:00.5+02:00") is not None
    assert format_instant(BEGAN) == "2030-01-01T00:00:00Z"


def deployment(generation: int, observed: int, conditions: list[Any]) -> DeploymentView:
    """A Deployment of three, two of them of its present template."""
    return parse_deployment(
        {
            "metadata": {"namespace": "n", "name": "d", "uid": "u", "generation": generation},
            "spec": {"replicas": 3},
            "status": {
                "observedGeneration": observed,
                "updatedReplicas": 2,
                "conditions": conditions,
            },
        }
    )


def test_updated_replicas_are_unknown_until_the_controller_has_seen_the_spec() -> None:
    """Counts of an older generation say nothing about the present template."""
    assert deployment(4, 4, []).updated_replicas == 2
    assert deployment(5, 4, []).updated_replicas is None


def test_deployment_conditions_tell_of_refused_pods_and_stalled_rollouts() -> None:
    """A quota or an admission policy shows nowhere but in the Deployment."""
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    over = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    found = deployment(1, 1, [failure, over])
    assert (found.replicas, found.creation_failure, found.stalled) == (3, "exceeded quota", True)
    fine = deployment(1, 1, [{**failure, "status": "False"}])
    assert (fine.creation_failure, fine.stalled) == ("", False)


def test_deployment_without_status_can_be_read() -> None:
    """A Deployment that was created this instant has no status."""
    bare = parse_deployment({"metadata": {"name": "d", "generation": 1}, "spec": {}})
    assert (bare.replicas, bare.updated_replicas, bare.stalled) == (1, None, False)

"""What holds of the objects of every pool, whatever its golden file."""

from typing import Any

import pytest

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.metadata import MAX_NAME_CHARACTERS
from heliostat_operator.desired.objects import desired_objects
from heliostat_operator.desired.settings import DesiredSettings, Picker
from heliostat_operator.desired.strategic_merge import PodTemplateError

Json = dict[str, Any]
PICKER = Picker("heliostat", "heliostat-system", 9002, 9002, ("10.0.0.8",))


def pool(name: str = "llama", **spec: Any) -> InferencePool:
    """A pool with a few fields of its spec set."""
    return InferencePool.from_object(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": name, "namespace": "default", "uid": "u-1"},
            "spec": {"model": {"name": "llama-3.1-8b"}, **spec},
        }
    )


def objects(of: InferencePool, **options: Any) -> dict[str, Json]:
    """The pool's objects by kind; of two of a kind the last."""
    settings = DesiredSettings(picker=options.pop("picker", None))
    found = desired_objects(of, replicas=of.spec.replicas, settings=settings, **options)
    return {it["kind"]: it for it in found}


def template(of: InferencePool) -> Json:
    """The pod template."""
    return objects(of)["Deployment"]["spec"]["template"]


ADAPTERS = {"adapters": [{"name": "sql"}]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"replicas": 1}, {"replicas": 7}),
        ({}, {"routing": {"pendingLimit": 3, "policy": "RoundRobin"}}),
        ({}, {"disruption": {"maxUnavailable": 3}}),
        ({}, {"rollout": {"strategy": "Replace"}}),
        ({}, {"model": {"name": "llama-3.1-8b", "aliases": ["llama"]}}),
        ({"engine": ADAPTERS}, {"engine": {"adapters": [{"name": "sql"}, {"name": "b"}]}}),
        ({"engine": {**ADAPTERS, "maxAdapters": 4}}, {"engine": {"maxAdapters": 4}}),
    ],
)
def test_what_concerns_no_engine_restarts_none(before: Json, after: Json) -> None:
    """Replicas, routing, disruption, rollout strategy, aliases and adapters change no template."""
    assert template(pool(**before)) == template(pool(**after))


def test_first_adapter_without_room_for_it_restarts_the_engines() -> None:
    """LoRA is switched on only where it may be used: it costs memory and speed."""
    assert template(pool()) != template(pool(engine=ADAPTERS))


def test_patch_cannot_lose_the_pods() -> None:
    """Whatever podTemplate does to labels, the Deployment still finds its pods."""
    labels = {"$patch": "replace", "team": "x"}
    patched = pool(podTemplate={"metadata": {"labels": labels}})
    deployment = objects(patched)["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    wanted = deployment["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= labels.items()
    assert labels == {"heliostat.dev/pool": "llama", "team": "x"}


def test_broken_patch_is_told_by_field() -> None:
    """A podTemplate that cannot be merged says where it is wrong."""
    with pytest.raises(PodTemplateError, match=r"spec\.podTemplate\.spec\.containers\[0\]: name"):
        objects(pool(podTemplate={"spec": {"containers": [{"image": "x"}]}}))


def test_every_object_dies_with_the_pool_and_holds_up_nothing() -> None:
    """Every object is owned by the pool, without a finalizer and without blocking its deletion."""
    for kind, found in objects(pool(), picker=PICKER).items():
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("InferencePool", "u-1"), kind
        assert owner["blockOwnerDeletion"] is False
        assert "finalizers" not in found["metadata"]
        assert found["metadata"]["labels"]["heliostat.dev/pool"] == "llama"


def test_names_fit_where_kubernetes_bounds_them() -> None:
    """The longest pool name still gives names that Services may have, no two of them the same."""
    longest = pool("a" * MAX_NAME_CHARACTERS)
    found = desired_objects(longest, replicas=1, settings=DesiredSettings(picker=PICKER))
    services = [it["metadata"]["name"] for it in found if it["kind"] == "Service"]
    assert len(services) == len(set(services)) == 2
    assert max(map(len, services)) <= 63


def test_grace_period_covers_draining_and_shutting_down() -> None:
    """The kubelet kills only after the drain timeout and vLLM's own shutdown have passed."""
    spec = template(pool(engine={"drainTimeout": "90s"}))["spec"]
    engine = spec["containers"][0]
    shutdown = int(engine["args"][engine["args"].index("--shutdown-timeout") + 1])
    assert engine["lifecycle"]["preStop"]["exec"]["command"][-1] == "90"
    assert spec["terminationGracePeriodSeconds"] > 90 + shutdown


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("10s", 10), ("61s", 62), ("30m", 1800), ("24h", 86400)]
)
def test_startup_probe_lasts_as_long_as_asked_for(timeout: str, seconds: int) -> None:
    """An engine gets its whole startup timeout, rounded up to a probe."""
    probe = template(pool(engine={"startupTimeout": timeout}))["spec"]["containers"][0][
        "startupProbe"
    ]
    assert probe["periodSeconds"] * probe["failureThreshold"] == seconds


@pytest.mark.parametrize(
    "arg",
    [
        "--tensor-parallel-size=2",
        "--tensor_parallel_size",
        "-tp=2",
        "-tp",
        "--pipeline-parallel-size=4",
        "--data-parallel-size=8",
    ],
)
def test_own_choice_of_parallelism_stands(arg: str) -> None:
    """Where the user splits the model, the operator does not split it again."""
    args = template(pool(accelerator={"count": 8}, engine={"args": [arg]}))["spec"]["containers"][
        0
    ]["args"]
    assert [it for it in args if "parallel" in it or it.startswith("-tp")] == [arg]


def test_objects_share_nothing() -> None:
    """Changing one part of what is returned changes no other part."""
    found = objects(pool())["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    found["livenessProbe"]["httpGet"]["path"] = "/other"
    assert found["readinessProbe"]["httpGet"]["path"] == "/health"
    assert (
        template(pool())["spec"]["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/health"
    )

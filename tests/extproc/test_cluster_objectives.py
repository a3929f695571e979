"""InferenceObjectives of a cluster, by a real client of an API server that the test scripts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from heliostat_extproc.discovery.cluster import ClusterSettings, KubernetesDiscovery
from heliostat_extproc.discovery.objectives import Objective, parse_objective
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from tests.kube.api_server import running_api_server

DEADLINE_SECONDS = 10.0
POOLS = "/apis/heliostat.dev/v1alpha1/namespaces/ns/inferencepools"
UPSTREAM = "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools"
OBJECTIVES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferenceobjectives"


def pool(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"model": {"name": name}, "endpoints": [{"address": "10.0.0.1:8000"}]},
    }


def objective(priority: object, pool: str = "m") -> dict[str, Any]:
    return {"spec": {"priority": priority, "poolRef": {"name": pool}}}


async def next_with(
    stream: AsyncIterator[Snapshot], priorities: dict[tuple[str, str], int]
) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for snapshot in stream:
            if snapshot.priorities == priorities:
                return
    raise AssertionError("the discovery has ended")


async def test_objectives_come_change_and_go() -> None:
    """Each gives its priority in the pool that it names, and in no other."""
    async with running_api_server() as server:
        for name in ("m", "other"):
            server.put(f"{POOLS}/{name}", pool(name))
        server.put(f"{OBJECTIVES}/premium", objective(10))
        server.put(f"{OBJECTIVES}/stray", objective(10, pool="nowhere"))
        discovery = KubernetesDiscovery(
            ClusterSettings(picker_service="picker"),
            lambda: KubeApi(Connection(server=server.url)),
        )
        stream = discovery.watch()
        await next_with(stream, {("ns/m", "premium"): 10})
        server.put(f"{OBJECTIVES}/premium", objective(-1))
        await next_with(stream, {("ns/m", "premium"): -1})
        server.put(f"{OBJECTIVES}/batch", objective(5, pool="other"))
        await next_with(stream, {("ns/m", "premium"): -1, ("ns/other", "batch"): 5})
        server.remove(f"{OBJECTIVES}/premium")
        await next_with(stream, {("ns/other", "batch"): 5})
        await stream.aclose()  # type: ignore[attr-defined] # an async generator has it


def test_what_makes_no_sense_is_no_objective() -> None:
    """Without a priority it has 0, as the API says; a number beyond all bounds is none."""
    meta = {"metadata": {"namespace": "ns", "name": "o"}}
    assert parse_objective(meta | {"spec": {"poolRef": {"name": "m"}}}) == Objective(
        "ns", "o", "m", 0
    )
    for spec in (None, {}, {"poolRef": {}}, {"poolRef": {"name": 1}}):
        assert parse_objective(meta | {"spec": spec}) is None
    for priority in ("high", 2**31, 1.5):
        assert parse_objective(meta | objective(priority)) is None

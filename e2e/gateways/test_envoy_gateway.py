"""The real Envoy Gateway in front of the router, by the manifests of docs/gateways."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from heliostat_cluster.cluster import Cluster
from heliostat_cluster.envoy_gateway import (
    build_envoy_gateway,
    definitions,
    running_envoy_gateway,
)
from heliostat_cluster.region import Region, eventually, pool_manifest
from heliostat_kube.api import KubeApi


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


pytestmark = pytest.mark.asyncio(loop_scope="session")

MANIFESTS = Path(__file__).parents[2] / "docs" / "gateways" / "envoy-gateway.yaml"
PORT = find_free_port()
URL = f"http://127.0.0.1:{PORT}/v1/chat/completions"
POLICIES = ("envoyextensionpolicy/llama", "backendtrafficpolicy/llama", "httproute/llama")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def region() -> AsyncIterator[Region]:
    """Give a cluster with the chart, a pool of two engines, and Envoy Gateway beside it."""
    program = await asyncio.to_thread(build_envoy_gateway)
    folder = await asyncio.to_thread(definitions)
    with tempfile.TemporaryDirectory(prefix="heliostat-e2e-") as state:
        async with Cluster(Path(state)) as cluster, KubeApi.connect(cluster.kubeconfig) as api:
            region = Region(cluster, api)
            await cluster.kubectl("apply", "--server-side", "--recursive", "-f", str(folder))
            await region.install("--set", "gateway.picker.fallbacks=1")
            await region.apply(pool_manifest("default", "llama", replicas=2))
            await region.until_settled("default", "llama", 2)
            home = Path(state) / "envoy-gateway"
            home.mkdir()
            async with running_envoy_gateway(program, cluster, home):
                router = (await region.component_pods("gateway"))[0]["status"]["podIP"]
                manifests = yaml.safe_dump_all(adapted(router))
                await cluster.kubectl("apply", "-f", "-", stdin=manifests)
                yield region


def adapted(router: str) -> list[Any]:
    """Give the manifests with the router's address, as the cluster has no DNS, and a free port."""
    objects = list(yaml.safe_load_all(MANIFESTS.read_text()))
    (backend,) = (it for it in objects if it["kind"] == "Backend")
    (endpoint,) = backend["spec"]["endpoints"]
    backend["spec"]["endpoints"] = [{"ip": {"address": router, "port": endpoint["fqdn"]["port"]}}]
    (gateway,) = (it for it in objects if it["kind"] == "Gateway")
    gateway["spec"]["listeners"][0]["port"] = PORT
    return objects


async def ask(text: str) -> tuple[int, str]:
    body = {"model": "llama", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(URL, json=body) as response,
    ):
        return response.status, await response.text()


async def picked_and_serving(region: Region, text: str) -> tuple[set[str], set[str]]:
    """Ask, and while the answer runs say where the router has sent it, and where it runs."""
    messages = [{"role": "user", "content": text}]
    body = {"model": "llama", "messages": messages, "max_tokens": 100, "stream": True}
    (gateway,) = await region.component_pods("gateway")
    url = f"http://{gateway['status']['podIP']}:9090/endpoints"
    async with aiohttp.ClientSession() as session, session.post(URL, json=body) as response:
        assert response.status == 200
        await response.content.readany()
        async with session.get(url) as report:
            endpoints = (await report.json())["endpoints"]
        running = {it for it in endpoints if await running_requests(session, it)}
        await response.read()
    return {it for it, endpoint in endpoints.items() if endpoint["inflight"]}, running


async def running_requests(session: aiohttp.ClientSession, engine: str) -> int:
    async with session.get(f"http://{engine}/metrics") as response:
        lines = (await response.text()).splitlines()
    running = (line for line in lines if line.startswith("vllm:num_requests_running{"))
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in running))


async def accepted(region: Region, name: str) -> bool:
    """Say whether the controller has accepted an object for some parent."""
    path = "{.status.ancestors[*].conditions[*].type}{.status.parents[*].conditions[*].type}"
    types = await region.cluster.kubectl("get", name, "-o", f"jsonpath={path}")
    return "Accepted" in types


async def test_envoy_gateway_sends_requests_where_the_router_says(region: Region) -> None:
    """Its own Gateway, HTTPRoute and policies lead each request to the engine that is picked."""

    async def up() -> bool:
        return (await ask("Are you there?"))[0] == 200

    await eventually(up, "Envoy Gateway serves the pool", within_seconds=120)
    for name in POLICIES:
        assert await accepted(region, name), name
    for number in range(6):
        picked, serving = await picked_and_serving(region, f"Prompt {number}. " * 50)
        assert len(picked) == 1
        assert serving == picked
    status, answer = await ask("x" * 80_000)
    assert status == 200, answer[:300]


async def test_without_the_router_envoy_gateway_balances_itself(region: Region) -> None:
    """The policy fails open: engines are asked directly while no router is there."""
    (pod,) = await region.component_pods("gateway")
    await region.cluster.kill(pod["metadata"]["name"], "router")
    statuses = [(await ask("Are you still there?"))[0] for _ in range(4)]
    assert statuses == [200] * 4

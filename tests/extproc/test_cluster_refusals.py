"""What the API server refuses to one pool, or to one watch, and the pools beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_extproc.discovery.cluster import ClusterSettings, KubernetesDiscovery
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from tests.kube.api_server import FakeApiServer, status

DEADLINE_SECONDS = 10.0
POOLS = "/apis/heliostat.dev/v1alpha1/namespaces/ns/inferencepools"
PODS = "/api/v1/namespaces/ns/pods"


class RefusingApiServer(FakeApiServer):
    """Refuses requests whose label selector or path it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.failing: set[str] = set()
        self.failed = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if {request.query.get("labelSelector"), request.path} & self.refused:
            return web.json_response(status(400, "BadRequest", "no such thing"), status=400)
        if request.query.get("labelSelector") in self.failing:
            self.failed.set()
            return web.json_response(status(500, "InternalError"), status=500)
        return await super().handle(request)


@pytest.fixture
async def server() -> AsyncIterator[RefusingApiServer]:
    running = RefusingApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", running.handle)
    http = TestServer(app)
    await http.start_server()
    running.url = f"http://127.0.0.1:{http.port}"
    yield running
    running.cut_watches()
    await http.close()


@asynccontextmanager
async def snapshots(
    server: RefusingApiServer, settings: ClusterSettings | None = None
) -> AsyncIterator[AsyncIterator[Snapshot]]:
    """Give the snapshots of a discovery that follows this server."""

    def connect() -> AbstractAsyncContextManager[KubeApi]:
        return KubeApi(Connection(server=server.url))

    stream = KubernetesDiscovery(settings or ClusterSettings(), connect).watch()
    try:
        yield stream
    finally:
        await stream.aclose()  # type: ignore[attr-defined] # an async generator has it


async def next_with(stream: AsyncIterator[Snapshot], *addresses: str) -> Snapshot:
    """Wait for the snapshot whose endpoints are just these."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for snapshot in stream:
            if addresses_of(snapshot) == set(addresses):
                return snapshot
    raise AssertionError("the discovery has ended")


def addresses_of(snapshot: Snapshot) -> set[str]:
    return {endpoint.address for pool in snapshot.pools for endpoint in pool.endpoints}


def pool(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"model": {"name": name}, **spec},
    }


def pod(pool_name: str, ip: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"heliostat.dev/pool": pool_name}},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": "engine", "started": True, "state": {"running": {}}},
            ],
        },
    }


async def test_a_refused_selector_stops_its_own_pool_alone(server: RefusingApiServer) -> None:
    """The others are served from the first snapshot on and go on changing; the problem is told."""
    server.refused = {"app=bad"}
    server.put(f"{POOLS}/chat", pool("chat"))
    server.put(f"{POOLS}/bad", pool("bad", selector={"matchLabels": {"app": "bad"}}))
    server.put(f"{PODS}/one", pod("chat", "10.0.0.1"))
    async with snapshots(server) as stream:
        first = await next_with(stream, "10.0.0.1:8000")
        server.put(f"{PODS}/two", pod("chat", "10.0.0.2"))
        await next_with(stream, "10.0.0.1:8000", "10.0.0.2:8000")
    assert first.problems == ("InferencePool ns/bad: its pods cannot be watched: no such thing",)


async def test_a_new_pool_whose_pods_cannot_be_listed_now_holds_up_nobody(
    server: RefusingApiServer,
) -> None:
    """The others' pods come and go while the API server fails for one selector."""
    server.failing = {"app=bad"}
    server.put(f"{POOLS}/chat", pool("chat"))
    server.put(f"{PODS}/one", pod("chat", "10.0.0.1"))
    async with snapshots(server) as stream:
        await next_with(stream, "10.0.0.1:8000")
        server.put(f"{POOLS}/bad", pool("bad", selector={"matchLabels": {"app": "bad"}}))
        following = asyncio.ensure_future(next_with(stream, "10.0.0.2:8000"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await server.failed.wait()
        server.remove(f"{PODS}/one")
        server.put(f"{PODS}/two", pod("chat", "10.0.0.2"))
        await following


async def test_pools_of_the_gateway_api_that_may_not_be_read_hold_up_nobody(
    server: RefusingApiServer,
) -> None:
    """A cluster that serves them and forbids them still has our own pools."""
    group = "/apis/inference.networking.k8s.io/v1"
    server.served = {group}
    server.refused = {f"{group}/inferencepools"}
    server.put(f"{POOLS}/chat", pool("chat"))
    server.put(f"{PODS}/one", pod("chat", "10.0.0.1"))
    async with snapshots(server, ClusterSettings(picker_service="picker")) as stream:
        await next_with(stream, "10.0.0.1:8000")


async def test_pods_that_share_an_address_leave_alone(server: RefusingApiServer) -> None:
    """On the host's network engines differ by port: when one goes, the other stays throughout."""
    for name, port in (("chat", 9001), ("code", 9002)):
        server.put(f"{POOLS}/{name}", pool(name, engine={"port": port}))
        server.put(f"{PODS}/{name}", pod(name, "10.9.9.9"))
    async with snapshots(server) as stream:
        await next_with(stream, "10.9.9.9:9001", "10.9.9.9:9002")
        server.remove(f"{PODS}/code")
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert addresses_of(await anext(stream)) == {"10.9.9.9:9001"}


async def test_an_address_that_passes_to_another_pod_is_gone_in_between(
    server: RefusingApiServer,
) -> None:
    """However fast it goes, the core hears that the engine behind the address is a new one."""
    server.put(f"{POOLS}/chat", pool("chat"))
    server.put(f"{PODS}/old", pod("chat", "10.0.0.1"))
    async with snapshots(server) as stream:
        await next_with(stream, "10.0.0.1:8000")
        server.remove(f"{PODS}/old")
        server.put(f"{PODS}/new", pod("chat", "10.0.0.1"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert addresses_of(await anext(stream)) == set()
            assert addresses_of(await anext(stream)) == {"10.0.0.1:8000"}

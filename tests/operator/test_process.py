"""The process as a whole: when it may lead, what holds up whom, what ends first."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_operator import process
from heliostat_operator.health import Metrics
from heliostat_operator.process import Operator
from heliostat_operator.settings import LeaseTiming, OperatorSettings
from tests.kube.api_server import FakeApiServer, Json, running_api_server

LEASE = "/apis/coordination.k8s.io/v1/namespaces/h/leases/heliostat-operator"


@asynccontextmanager
async def running_operator(server: FakeApiServer) -> AsyncIterator[None]:
    """An operator that looks at a server, until the block ends."""
    settings = OperatorSettings(
        own_namespace="h", identity="one", lease_timing=LeaseTiming(15, 10, 0.01)
    )
    async with (
        KubeApi(Connection(server=server.url)) as api,
        aiohttp.ClientSession() as session,
        asyncio.timeout(10),
    ):
        operator = Operator(api, session, settings, Metrics())
        running = asyncio.create_task(operator.run(asyncio.Event()))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def workers() -> list[str]:
    """The tasks that work on pools and pods."""
    coroutines = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in coroutines if name == "WorkQueue._serve"]


async def test_whoever_loses_the_lease_writes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf's thread may take seconds to end: by then nobody works on pools any more."""
    left: list[list[str]] = []
    leads, lost = asyncio.Event(), asyncio.Event()

    async def follow(*_: object) -> None:
        leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.append(workers())
            lost.set()

    monkeypatch.setattr(process, "follow_pool_events", follow)
    async with running_api_server() as server, running_operator(server):
        await leads.wait()
        await until(lambda: bool(workers()))
        lease = server.objects[LEASE]
        server.put(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
        await lost.wait()
    assert left == [[]]


async def test_whoever_cannot_read_the_cluster_does_not_lead() -> None:
    """A replica that may not list pods leaves the Lease to one that may."""
    async with running_api_server() as server:
        server.missing = {"/api/v1/pods"}
        async with running_operator(server):
            await until(lambda: sum(path == "/api/v1/pods" for _, path, _ in server.requests) >= 3)
            assert LEASE not in server.objects
            server.missing.clear()
            await until(lambda: LEASE in server.objects)


async def test_engines_that_hang_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are loaded on many engines at a time: some take minutes to answer."""
    asked = 0

    async def models(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def follow(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(process, "follow_pool_events", follow)
    engine = web.Application()
    engine.router.add_get("/v1/models", models)
    async with TestServer(engine) as http, running_api_server() as server:
        server.put(
            "/apis/heliostat.dev/v1alpha1/namespaces/a/inferencepools/llama",
            {
                "apiVersion": "heliostat.dev/v1alpha1",
                "kind": "InferencePool",
                "metadata": {"generation": 1},
                "spec": {
                    "model": {"name": "llama"},
                    "replicas": 20,
                    "engine": {"port": http.port, "adapters": [{"name": "sql"}]},
                },
            },
        )
        for number in range(20):
            server.put(f"/api/v1/namespaces/a/pods/p{number}", engine_pod())
        async with running_operator(server):
            await until(lambda: asked == 20)


def engine_pod() -> Json:
    """A pod of the pool, ready, at the address where its engine is."""
    return {
        "metadata": {"labels": {"heliostat.dev/pool": "llama"}},
        "spec": {"containers": [{"name": "engine"}]},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "engine", "containerID": "c", "state": {"running": {}}}],
        },
    }


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while not holds():  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.002)

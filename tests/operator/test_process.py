"""The process as a whole: in which order it ends when it must no longer write."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_operator import process
from heliostat_operator.health import Metrics
from heliostat_operator.process import Operator
from heliostat_operator.settings import LeaseTiming, OperatorSettings
from tests.kube.api_server import running_api_server

LEASE = "/apis/coordination.k8s.io/v1/namespaces/h/leases/heliostat-operator"


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
    settings = OperatorSettings(
        own_namespace="h", identity="one", lease_timing=LeaseTiming(15, 10, 0.01)
    )
    async with (
        running_api_server() as server,
        KubeApi(Connection(server=server.url)) as api,
        aiohttp.ClientSession() as session,
        asyncio.timeout(10),
    ):
        stop = asyncio.Event()
        running = asyncio.create_task(Operator(api, session, settings, Metrics()).run(stop))
        await leads.wait()
        await until(lambda: bool(workers()))
        lease = server.objects[LEASE]
        server.put(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
        await lost.wait()
        stop.set()
        await running
    assert left == [[]]


async def test_whoever_cannot_read_the_cluster_does_not_lead() -> None:
    """A replica that may not list pods leaves the Lease to one that may."""
    settings = OperatorSettings(
        own_namespace="h", identity="one", lease_timing=LeaseTiming(15, 10, 0.01)
    )
    async with (
        running_api_server() as server,
        KubeApi(Connection(server=server.url)) as api,
        aiohttp.ClientSession() as session,
        asyncio.timeout(10),
    ):
        server.missing = {"/api/v1/pods"}
        stop = asyncio.Event()
        running = asyncio.create_task(Operator(api, session, settings, Metrics()).run(stop))
        await until(lambda: sum(path == "/api/v1/pods" for _, path, _ in server.requests) >= 3)
        assert LEASE not in server.objects
        server.missing.clear()
        await until(lambda: LEASE in server.objects)
        stop.set()
        await running


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while not holds():  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.002)

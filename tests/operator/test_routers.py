"""What routers report, and when a pod counts as drained."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_operator.observed.pod import PodView, parse_pod
from heliostat_operator.routers import Reports, RouterReports, parse_report, routers_to_ask

POD = "10.0.0.7:8000"


def report(phase: str | None, inflight: int = 0, *, synced: bool = True) -> Any:
    """A router's answer, of one endpoint or, with phase None, of none."""
    endpoints = (
        {} if phase is None else {POD: {"pool": "a/b", "phase": phase, "inflight": inflight}}
    )
    return {"synced": synced, "endpoints": endpoints}


@pytest.mark.parametrize(
    ("answers", "drained", "inflight"),
    [
        ([], True, 0),
        ([report("draining")], True, 0),
        ([report(None)], True, 0),
        ([report("ready")], False, 0),
        ([report("draining", 2)], False, 2),
        ([report("draining", 1), report("ready", 2)], False, 3),
        ([report("draining"), report(None)], True, 0),
        ([report("draining"), None], False, None),
        ([report("draining"), report("draining", synced=False)], False, None),
        ([{"synced": True}], False, None),
        ([{"synced": True, "endpoints": {POD: {"phase": "draining"}}}], False, None),
    ],
)
def test_a_pod_is_drained_when_every_router_says_so(
    answers: list[Any], drained: bool, inflight: int | None
) -> None:
    """One router that is silent, not synced, or still sends there, holds the pod."""
    reports = Reports(tuple(parse_report(answer) for answer in answers))
    assert reports.drained(POD) is drained
    assert reports.inflight(POD) == inflight


def router_pod(phase: str, *, ip: str = "10.0.0.1", running: bool = True) -> PodView:
    state: dict[str, Any] = {"running": {}} if running else {"waiting": {}}
    return parse_pod(
        {
            "metadata": {"name": "gateway", "namespace": "h"},
            "status": {"phase": phase, "podIP": ip, "containerStatuses": [{"state": state}]},
        }
    )


def test_routers_are_asked_while_they_may_hold_requests() -> None:
    """A pod that has not started or has ended holds none."""
    pods = [
        router_pod("Running", ip="10.0.0.1"),
        router_pod("Pending", ip="10.0.0.2", running=False),
        router_pod("Succeeded", ip="10.0.0.3"),
        router_pod("Running", ip=""),
    ]
    assert routers_to_ask(pods) == ("10.0.0.1",)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def test_reports_come_over_http_once_for_all(session: aiohttp.ClientSession) -> None:
    """Pools that drain at the same time share one round; a router that is gone is unknown."""
    asked = 0

    async def endpoints(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(report("draining", 1))

    app = web.Application()
    app.router.add_get("/endpoints", endpoints)
    async with TestServer(app, host="127.0.0.1") as server:
        reports = RouterReports(session, server.port or 0)
        first = await reports.fetch(["127.0.0.1"])
        assert await reports.fetch(["127.0.0.1"]) is first
        assert first.inflight(POD) == 1
        assert asked == 1
        both = await reports.fetch(["127.0.0.1", "127.0.0.2"])
        assert both.inflight(POD) is None

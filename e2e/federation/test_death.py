"""Gateways, engines and whole regions die under load, and come back."""

import asyncio
import time

import pytest

from heliostat_federation.clients import Clients, Ending, under_way
from heliostat_federation.federation import Federation

pytestmark = pytest.mark.asyncio(loop_scope="session")

DETECTION_SECONDS = 0.7
ADDED_SECONDS = 2.0
"""What a death elsewhere may add to a request's time to first token."""
HOT = 14


async def test_a_region_killed_under_load_costs_others_no_request(federation: Federation) -> None:
    """Noticed in 0.7 s; what it had not begun to answer is served elsewhere, soon and once."""
    us, eu = federation["us"], federation["eu"]
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        clients.hold("eu", 2)
        await clients.ended(50)
        usual = clients.ttft_seconds(99, "us")
        killed_at = time.monotonic()
        await eu.kill()
        await us.until_peer("eu", "Unreachable")
        noticed = time.monotonic() - killed_at
        await clients.ended(60)
        eu.start()
        await eu.until_ready()
        await us.until_peer("eu", "Connected")
        await clients.ended(40)
    assert noticed <= DETECTION_SECONDS, noticed
    hit = under_way(killed_at, slack_seconds=0.7)
    clients.expect_nothing_lost(but=["eu"], cut=hit)
    await clients.expect_none_twice(but=hit)
    struck = [r for r in clients.requests if hit(r) and r.region == "us"]
    slowest = max(r.ttft_seconds for r in struck if r.ending is Ending.SERVED)
    assert slowest <= usual + ADDED_SECONDS, (slowest, usual)
    later = [r for r in clients.requests if r.region == "eu" and r.ending is Ending.SERVED]
    assert any(r.started_at > killed_at for r in later), "eu serves its clients again"


async def test_a_gateway_killed_leaves_its_engines_to_nobody(federation: Federation) -> None:
    """Without its gateway a region is gone for the others, though its engines run."""
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(40)
        killed_at = time.monotonic()
        await federation["asia"].kill_gateway()
        await federation["us"].until_peer("asia", "Unreachable")
        await clients.ended(40)
        federation["asia"].start()
        await federation["us"].until_peer("asia", "Connected", within_seconds=30)
        await clients.ended(40)
    clients.expect_nothing_lost(cut=under_way(killed_at))
    await clients.expect_none_twice(but=under_way(killed_at))


async def test_a_gateway_that_is_stopped_gives_back_what_it_holds(federation: Federation) -> None:
    """A planned stop of a peer's gateway costs nobody a request, not even a cut stream."""
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(40)
        stop = asyncio.create_task(federation["eu"].stop_gateway())
        await clients.ended(40)
        await stop
        federation["eu"].start()
        await federation["us"].until_peer("eu", "Connected", within_seconds=30)
        await clients.ended(20)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()


async def test_with_all_peers_gone_a_region_serves_alone(federation: Federation) -> None:
    """Both peers dead: us serves all of its clients, slower, and none is turned away."""
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(40)
        killed_at = time.monotonic()
        await asyncio.gather(federation["eu"].kill(), federation["asia"].kill())
        for region in ("eu", "asia"):
            await federation["us"].until_peer(region, "Unreachable")
        alone_from = len(clients.requests)
        await clients.ended(40)
        alone = clients.requests[alone_from:]
    clients.expect_nothing_lost(cut=under_way(killed_at))
    tally = await federation.tally()
    ended = [r for r in alone if r.ending is Ending.SERVED]
    assert ended
    assert all(set(tally[r.request_id]) == {"us"} for r in ended)

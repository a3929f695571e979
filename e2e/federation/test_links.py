"""The way between two regions breaks, in every way that networks know."""

import asyncio
import time

import pytest

from heliostat_federation.clients import Clients, under_way
from heliostat_federation.federation import Federation
from heliostat_federation.region import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

DETECTION_SECONDS = 0.7
"""From the last packet to the report that the region is not reached."""
HOT = 14
"""Clients that keep a region above what it can serve alone."""


async def detection_seconds(federation: Federation, here: str, there: str) -> float:
    """How long, from now, until a region's router holds another unreachable."""
    started_at = time.monotonic()
    await federation[here].until_peer(there, "Unreachable", within_seconds=10)
    return time.monotonic() - started_at


@pytest.mark.parametrize("cut_ways", ["both", "there", "back"])
async def test_a_partition_loses_no_request(federation: Federation, cut_ways: str) -> None:
    """Cut both ways or one way under load: noticed in 0.7 s, nothing without headers is lost."""
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        clients.hold("eu", 2)
        await clients.ended(40)
        cut_at = time.monotonic()
        if cut_ways in ("both", "there"):
            await federation.network.cut_one_way("us", "eu")
        if cut_ways in ("both", "back"):
            await federation.network.cut_one_way("eu", "us")
        seconds = await detection_seconds(federation, "us", "eu")
        await federation["eu"].until_peer("us", "Unreachable")
        await clients.ended(40)
        await federation.network.heal()
        await federation["us"].until_peer("eu", "Connected")
        await clients.ended(20)
    assert seconds <= DETECTION_SECONDS, seconds
    clients.expect_nothing_lost(cut=under_way(cut_at))
    await clients.expect_none_twice(but=under_way(cut_at))


async def test_a_region_that_is_slow_to_reach_is_used_less(federation: Federation) -> None:
    """With a round trip of 1 s nothing fails, the router knows it, and prefers the nearer one."""
    await federation.network.slow_down("us", "asia", 1.0)

    async def known() -> bool:
        peer = await federation["us"].peer("asia")
        return (peer["round_trip_seconds"] or 0) > 0.8

    await eventually(known, "the round trip is measured anew")
    async with Clients(federation) as clients:
        clients.hold("us", 10)
        await clients.ended(60)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    served = (await clients.served_by())["us"]
    assert served["eu"] > 2 * served["asia"], served


async def test_a_flapping_link_loses_no_request(federation: Federation) -> None:
    """Cut and healed ten times under load, at the pace of the router's own notice."""
    cuts: list[float] = []
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(20)
        for _ in range(10):
            cuts.append(time.monotonic())
            await federation.network.cut("us", "eu")
            await federation["us"].until_peer("eu", "Unreachable")
            await federation.network.heal()
            await federation["us"].until_peer("eu", "Connected")
        await clients.ended(20)
    clients.expect_nothing_lost(cut=under_way(*cuts))
    await clients.expect_none_twice(but=under_way(*cuts))


async def test_short_blackouts_go_unnoticed(federation: Federation) -> None:
    """A link that is dead for less than the notice takes costs no request, headers or not."""
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(20)
        for _ in range(5):
            await federation.network.cut("us", "eu")
            await asyncio.sleep(0.2)  # the network's own time
            await federation.network.heal()
            await clients.ended(8)
    clients.expect_nothing_lost()


async def test_a_lossy_link_loses_no_request(federation: Federation) -> None:
    """Every fiftieth packet lost: slower, but everything is served once."""
    await federation.network.lose(0.02)
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(80)
    clients.expect_nothing_lost()

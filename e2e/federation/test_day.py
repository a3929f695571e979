"""Load with one fault after the other: a round in the usual run, ten minutes with --long."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable

import pytest

from heliostat_federation.clients import Clients, under_way
from heliostat_federation.federation import Federation

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG_SECONDS = 600.0
SETTLED_SECONDS = 4.0
"""From a fault until whatever it struck has ended or begun anew."""

Step = Callable[[Federation], Awaitable[None]]


async def partition(federation: Federation) -> None:
    await federation.network.cut("us", "eu")
    await federation["us"].until_peer("eu", "Unreachable")
    await federation.network.heal()


async def half_partition(federation: Federation) -> None:
    await federation.network.cut_one_way("asia", "us")
    await federation["us"].until_peer("asia", "Unreachable")
    await federation.network.heal()


async def slow_link(federation: Federation) -> None:
    await federation.network.slow_down("us", "eu", 0.6)


async def death_of_a_gateway(federation: Federation) -> None:
    await federation["eu"].kill_gateway()
    await federation["us"].until_peer("eu", "Unreachable")


async def death_of_a_region(federation: Federation) -> None:
    await federation["asia"].kill()
    await federation["us"].until_peer("asia", "Unreachable")


async def new_certificates(federation: Federation) -> None:
    for region in federation.regions:
        federation.certificates.issue(region)


ROUND: tuple[Step, ...] = (
    *(partition, slow_link, new_certificates),
    *(death_of_a_gateway, half_partition, death_of_a_region),
)


async def run_faults(federation: Federation, steps: Iterable[Step], until: float) -> None:
    struck: list[float] = []
    async with Clients(federation) as clients:
        clients.hold("us", 14)
        clients.hold("eu", 2)
        clients.hold("asia", 2)
        await clients.ended(30)
        for step in steps:
            if time.monotonic() > until:
                break
            struck.append(time.monotonic())
            await step(federation)
            await clients.ended(20)
            struck.append(time.monotonic())
            await federation.mend()
            await clients.ended(20)
    hit = under_way(*struck, slack_seconds=SETTLED_SECONDS)
    clients.expect_nothing_lost(but=["eu", "asia"], cut=hit)
    await clients.expect_none_twice(but=hit)


async def test_a_round_of_faults_loses_no_request(federation: Federation) -> None:
    """Each fault once, mended before the next, under load in all regions."""
    await run_faults(federation, ROUND, time.monotonic() + LONG_SECONDS)


@pytest.mark.long
async def test_ten_minutes_of_faults_lose_no_request(federation: Federation) -> None:
    """The same for ten minutes."""
    await run_faults(federation, itertools.cycle(ROUND), time.monotonic() + LONG_SECONDS)

"""The router of the ingress region restarts while its Envoy goes on, as its container would."""

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from heliostat_federation.clients import Clients, Ending
from heliostat_federation.federation import Federation, FederationSettings, running_federation
from heliostat_federation.region import RegionSettings, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

BACK_SECONDS = 2.0
"""From when the router answers again until it has the state of all regions."""
HERD_SECONDS = 2.0
"""What its forgetting may add to the 90th percentile of times to first token."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def split() -> AsyncIterator[Federation]:
    """Us has Envoy and router as two processes."""
    settings = FederationSettings(differing={"us": RegionSettings(split=True)})
    async with running_federation(settings) as running:
        yield running


async def test_a_restarted_router_has_the_state_back_and_no_herd(split: Federation) -> None:
    """Streams go on, the state is back in 2 s, and no region is overrun by a router without one."""
    us = split["us"]
    async with Clients(split) as clients:
        clients.hold("us", 14)
        await clients.ended(50)
        usual = clients.ttft_seconds(90, "us")
        killed_at = time.monotonic()
        await us.kill_gateway()
        us.start_gateway()
        await eventually(lambda: us.ask("/peers"), "the router answers", within_seconds=30)
        answers_at = time.monotonic()
        for region in ("eu", "asia"):
            await us.until_peer(region, "Connected")
        connected_at = time.monotonic()
        await clients.ended(60)
    assert connected_at - answers_at <= BACK_SECONDS
    assert clients.ttft_seconds(90, "us", after=connected_at) <= usual + HERD_SECONDS
    for request in clients.requests:
        open_then = killed_at - 0.5 <= request.started_at <= connected_at
        streamed = request.headers_at is not None and request.headers_at < killed_at
        assert request.ending is Ending.SERVED or (open_then and not streamed), request.detail
    await clients.expect_none_twice()

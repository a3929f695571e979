"""Peers that are authenticated, and wrong: who lies, floods, or speaks an older protocol."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from heliostat_extproc.discovery.peering import digest_of
from heliostat_extproc.envoy.wire import DECLARATION_HEADER
from heliostat_extproc.federation.protocol import VERSION, WATCH_PATH
from heliostat_extproc.federation.state_pb2 import Hello, WatchRequest
from heliostat_federation.clients import Clients
from heliostat_federation.federation import Federation
from heliostat_federation.region import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIAR = ("-m", "heliostat_federation.lying_gateway")
HOT = 14
FORWARDS_PER_SECOND = 5.0
"""What one liar may cost, whatever the load is."""
FLOOD_STREAMS = 200


@pytest_asyncio.fixture(loop_scope="session")
async def honest_again(federation: Federation) -> AsyncIterator[None]:
    """End the doubles; the next scenario starts honest gateways."""
    yield
    for region in ("eu", "asia"):
        await federation[region].kill_gateway()


async def replace_gateway(federation: Federation, region: str, *program: str) -> None:
    """Have a double in the place of a region's gateway, known to us."""
    await federation[region].kill_gateway()
    await federation["us"].until_peer(region, "Unreachable")
    federation[region].start_gateway(program)
    await federation[region].until_ready()


@pytest.mark.usefixtures("honest_again")
async def test_liars_cost_little_and_lose_nothing(federation: Federation) -> None:
    """Both peers claim room and refuse all: served at home, few forwards, however hot it is."""
    us = federation["us"]
    for region in ("eu", "asia"):
        federation[region].write_pool(federation={"mode": "Send"})
        await replace_gateway(federation, region, *LIAR)
        await us.until_peer(region, "Connected", within_seconds=30)
    before = {region: (await us.peer(region))["sent"] for region in ("eu", "asia")}
    started_at = time.monotonic()
    async with Clients(federation) as clients:
        clients.hold("us", 2 * HOT)
        await clients.ended(60, within_seconds=90)
    seconds = time.monotonic() - started_at
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    assert set((await clients.served_by())["us"]) == {"us"}
    for region in ("eu", "asia"):
        sent = (await us.peer(region))["sent"] - before[region]
        assert 0 < sent <= FORWARDS_PER_SECOND * seconds + 10, (sent, seconds)


@pytest.mark.usefixtures("honest_again")
async def test_a_peer_of_an_older_protocol_is_served_and_serves(federation: Federation) -> None:
    """A version before ours, without heads and with block keys we do not know, works otherwise."""
    await replace_gateway(federation, "eu", *LIAR, "--old-protocol")

    async def heard() -> bool:
        peer = await federation["us"].peer("eu")
        return bool(peer["state"] != "Unreachable" and peer["pools"])

    await eventually(heard, "us hears eu")
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(50)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    assert (await clients.served_by())["us"]["eu"] > 5


async def test_a_flood_of_streams_and_pings_is_borne(federation: Federation) -> None:
    """Hundreds of state streams and as many pings as fit, with eu's own certificate."""
    us = await federation["eu"].peer("us")
    declaration = digest_of(us["address"], us["identity"])
    flood = asyncio.create_task(_flood(federation["eu"].links_socket(), declaration))
    try:
        async with Clients(federation) as clients:
            clients.hold("us", 4)
            clients.hold("asia", 2)
            await clients.ended(30)
            peer = await federation["us"].peer("asia")
            assert peer["state"] == "Connected", peer
        assert not flood.done(), flood.result()
    finally:
        flood.cancel()
        await asyncio.wait([flood])
    clients.expect_nothing_lost()
    await federation["eu"].until_peer("us", "Connected")


async def _flood(socket: Path, declaration: str) -> None:
    """Open streams to us through eu's Envoy, and ping on each without end."""
    options = (("grpc.default_authority", "us"),)
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
        watch = channel.stream_stream(WATCH_PATH, None, None)

        async def ping(number: int) -> None:
            while True:
                call = watch(None, metadata=((DECLARATION_HEADER, declaration),))
                hello = Hello(version=VERSION, region="eu", router=f"flood-{number}", epoch=1)
                try:
                    await call.write(WatchRequest(hello=hello, ping=1).SerializeToString())
                    for count in range(2, 1000):
                        await call.write(WatchRequest(ping=count).SerializeToString())
                except (grpc.RpcError, asyncio.InvalidStateError):
                    await asyncio.sleep(0.05)
                finally:
                    call.cancel()

        await asyncio.gather(*(ping(number) for number in range(FLOOD_STREAMS)))

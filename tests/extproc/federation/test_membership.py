"""A router of a region, without an Envoy: what it tells others of itself, and its operator."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc
import pytest
from structlog.testing import capture_logs

from heliostat_extproc.discovery.folder import FolderDiscovery
from heliostat_extproc.envoy.addresses import state_socket
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.wire import IDENTITY_HEADER
from heliostat_extproc.federation.protocol import WATCH_PATH, hello_of
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.region_certificate import SharedSecret
from heliostat_extproc.federation.state_pb2 import WatchRequest, WatchResponse
from heliostat_extproc.membership import MembershipSettings
from heliostat_extproc.process import RouterProcess, RouterSettings, run_router
from heliostat_routing.router import Router

from .conftest import eventually

ADDRESS = "10.0.0.1:8000"
POOL = f"""
apiVersion: heliostat.dev/v1alpha1
kind: InferencePool
metadata: {{name: chat}}
spec:
  model: {{name: llama}}
  endpoints: [{{address: "{ADDRESS}"}}]
"""
PEER = """
apiVersion: heliostat.dev/v1alpha1
kind: RegionPeer
metadata: {name: europe}
spec:
  region: eu
  gateway: {address: "10.0.0.2:8443"}
  identity: spiffe://test/region/eu
"""


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    """A folder with one pool."""
    folder = tmp_path / "pools"
    folder.mkdir()
    (folder / "chat.yaml").write_text(POOL)
    return folder


def membership(folder: Path) -> MembershipSettings:
    (folder / "secret").write_text("a-word-of-some-length")
    envoy = FederationSettings.beside(folder / "r.sock", 1)
    return MembershipSettings(Region("us", "us-1"), SharedSecret(folder / "secret", "us"), envoy)


@asynccontextmanager
async def running(
    pools: Path, membership: MembershipSettings | None = None
) -> AsyncIterator[RouterProcess]:
    """Run a router until it knows the pools and may pick from them."""
    settings = RouterSettings(
        FolderDiscovery(pools), pools.parent / "r.sock", admin_port=0, membership=membership
    )
    async with run_router(settings, Router()) as router:
        await eventually(lambda: router.pools.is_synced)
        router.pools.on_acked({"chat": frozenset({ADDRESS})})
        yield router


@asynccontextmanager
async def watching(socket: Path) -> AsyncIterator[list[WatchResponse]]:
    """Watch as a sibling does; the list grows."""
    told: list[WatchResponse] = []

    async def listen() -> None:
        while isinstance(message := await call.read(), bytes):
            told.append(WatchResponse.FromString(message))

    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        metadata = ((IDENTITY_HEADER, "URI=spiffe://heliostat/region/us"),)
        call = channel.stream_stream(WATCH_PATH)(metadata=metadata)
        await call.write(WatchRequest(hello=hello_of(Region("us", "us-2"))).SerializeToString())
        reader = asyncio.create_task(listen())
        try:
            yield told
        finally:
            reader.cancel()
            call.cancel()


async def test_a_router_that_drains_says_so_at_once(pools: Path) -> None:
    """Those that watch hear within 0.2 s that every pool takes nothing new."""

    def last() -> list[tuple[str, bool]]:
        slots = [slot for response in told for slot in response.slots]
        return [(pool.model, pool.draining) for slot in slots[-1:] for pool in slot.pools]

    async with (
        running(pools, membership(pools.parent)) as router,
        watching(state_socket(pools.parent / "r.sock")) as told,
    ):
        await eventually(lambda: last() == [("llama", False)])
        await router.drain()
        await eventually(lambda: last() == [("llama", True)], seconds=0.2)


async def get(router: RouterProcess, path: str) -> str:
    """What the admin port answers."""
    async with aiohttp.ClientSession() as http, http.get(router.admin_url + path) as response:
        return await response.text()


async def test_a_certificate_of_no_use_is_told_and_a_good_one_is_measured(pools: Path) -> None:
    """The problem stands in /pools, the time that is left among the metrics."""
    good = membership(pools.parent)
    gauge = "heliostat_router_region_certificate_expires_seconds"
    async with running(pools, good) as router:
        assert json.loads(await get(router, "/pools"))["problems"] == []
        page = await get(router, "/metrics")
        (line,) = [it for it in page.splitlines() if it.startswith(gauge)]
        assert 29 * 86400 < float(line.split()[1]) <= 30 * 86400
    (pools.parent / "secret").write_text("short")
    async with running(pools, good) as router:
        (problem,) = json.loads(await get(router, "/pools"))["problems"]
        assert problem.startswith("region certificate of no use: ")
        assert f"{gauge} NaN" in await get(router, "/metrics")


async def problems(router: RouterProcess) -> list[str]:
    """What the operator is told."""
    said: list[str] = json.loads(await get(router, "/pools"))["problems"]
    return said


async def test_peers_of_a_gateway_without_a_region_are_a_problem(pools: Path) -> None:
    """One sentence says what the gateway lacks, and one warning in the log, however often read."""
    (pools / "europe.yaml").write_text(PEER)
    with capture_logs() as lines:
        async with running(pools) as router:
            (problem,) = await problems(router)
            assert problem == (
                "RegionPeer eu: this gateway reaches no regions: give it --region,"
                " --federation-port and --region-certificates"
            )
            (pools / "chat.yaml").unlink()
            await eventually(lambda: not router.pools.models())
        assert [it["event"] for it in lines if it["log_level"] == "warning"] == ["declared in vain"]
        async with running(pools, membership(pools.parent)) as router:
            assert await problems(router) == []


async def test_a_pool_that_may_not_be_served_here_is_a_problem(pools: Path) -> None:
    """Its residency must name this region or one of its groups."""
    rule = "  federation: {residency: [eu, west]}\n"
    (pools / "chat.yaml").write_text(POOL + rule)
    settings = membership(pools.parent)
    async with running(pools, settings) as router:
        (problem,) = await problems(router)
        assert problem == (
            "InferencePool chat: its residency, eu, west, leaves out this region, us: all its"
            " requests are refused here with 421: add it, or delete the pool here"
        )
    async with running(pools) as router:
        (problem,) = await problems(router)
        assert "gateway without a region" in problem
    in_group = replace(settings, region=replace(settings.region, groups=frozenset({"west"})))
    async with running(pools, in_group) as router:
        assert await problems(router) == []

"""Two whole gateways that serve each other: Envoys, routers and cores, with mutual TLS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from heliostat_cli.authority import open_authority
from heliostat_extproc.federation.region import Region

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


def declare(gateway: Any, other: Any, region: str) -> None:
    """Tell one gateway of the other."""
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "RegionPeer",
        "metadata": {"name": region},
        "spec": {
            "region": region,
            "gateway": {"address": f"127.0.0.1:{other.federation_port}"},
            "identity": f"spiffe://heliostat.example/region/{region}",
        },
    }
    gateway.write_file(f"peer-{region}.yaml", yaml.safe_dump(manifest))


def connected(gateway: Any) -> bool:
    return all(it.state == "Connected" for it in gateway.router.membership.reports())


@pytest_asyncio.fixture(loop_scope="module")
async def regions(
    tmp_path: Path, start_gateway: Any, eventually: Eventually
) -> AsyncIterator[tuple[Any, Any]]:
    """The gateways of us and eu, each other's peers."""
    authority = open_authority(tmp_path, None, "heliostat.example", datetime.now(UTC))
    async with AsyncExitStack() as stack:
        gateways = {}
        for name in ("us", "eu"):
            files = authority.issue(name, timedelta(days=30), datetime.now(UTC))
            gateways[name] = await stack.enter_async_context(
                start_gateway(region=Region(name, f"gw-{name}"), certificates=files.folder)
            )
        us, eu = gateways["us"], gateways["eu"]
        declare(us, eu, "eu")
        declare(eu, us, "us")
        await eventually(
            lambda: us.router.membership.reports() and connected(us) and connected(eu),
            "both are connected",
        )
        yield us, eu


async def until_told(us: Any, eventually: Eventually, region: str = "eu") -> None:
    """Wait until us has heard that the region has room for the model."""

    def told() -> bool:
        (report,) = us.router.membership.reports()
        return any(pool.pool == "m" and pool.free for pool in report.pools)

    await eventually(told, f"{region} tells its room")


async def ended(gateway: Any, request_id: str, eventually: Eventually) -> dict[str, Any]:
    """What a gateway tells of a request, once it has ended."""

    def told() -> list[dict[str, Any]]:
        found = gateway.router.observation.stories(request_id, 10)
        return [story for story in found if story["outcome"] is not None]

    await eventually(told, f"{request_id} has ended")
    (story,) = told()
    return story


async def test_a_full_region_is_served_by_the_other(
    regions: tuple[Any, Any], engines: Any, eventually: Eventually
) -> None:
    """What would wait here goes there; engines see a plain request, clients a plain answer."""
    us, eu = regions
    here, there = await engines(), await engines()
    await us.add_pool("m", here.address)
    await eu.add_pool("m", there.address)
    await until_told(us, eventually)
    here.release.clear()
    first = asyncio.create_task(us.chat("m"))
    await eventually(lambda: us.view("m").inflight == 1, "the first is at the engine here")
    here.waiting_requests = 1
    await us.until_waiting("m", 1)
    reply = await us.chat("m")
    assert reply.status == 200
    assert reply.body["served_by"] == there.address
    ours = {name for name in there.last_headers if name.startswith("x-heliostat-")}
    assert ours == {"x-heliostat-ticket"}
    request_id = reply.headers["x-request-id"]
    sent = await ended(us, request_id, eventually)
    assert (sent["outcome"], sent["endpoint"]) == ("served-elsewhere", "region/eu")
    served = await ended(eu, request_id, eventually)
    assert (served["outcome"], served["endpoint"]) == ("served", there.address)
    assert served["origin"] == "us/gw-us"
    here.release.set()
    assert (await first).body["served_by"] == here.address
    await us.until_idle()
    await eu.until_idle()


async def test_a_request_that_all_engines_here_refuse_is_served_there(
    regions: tuple[Any, Any], engines: Any, refusing_engine: str, eventually: Eventually
) -> None:
    """Engines that have just died cost their requests nothing but a way."""
    us, eu = regions
    there = await engines()
    await eu.add_pool("m", there.address)
    await us.add_pool("m", refusing_engine)
    await until_told(us, eventually)
    for _ in range(6):
        reply = await us.chat("m")
        assert reply.status == 200, reply
        assert reply.body["served_by"] == there.address
    await us.until_idle()
    await eu.until_idle()


async def test_a_request_that_nobody_can_serve_ends_with_its_reason(
    regions: tuple[Any, Any], refusing_engine: str, eventually: Eventually
) -> None:
    """It comes back, waits for what may come, and is answered at its deadline, once."""
    us, _eu = regions
    await us.add_pool("m", refusing_engine, queueTimeout="1s")
    reply = await us.chat("m")
    assert reply.status == 503
    assert reply.code in ("deadline-passed", "no-endpoints")
    assert reply.headers["x-envoy-ratelimited"] == "true"
    story = await ended(us, reply.headers["x-request-id"], eventually)
    assert (story["outcome"], story["returns"] > 0) == (reply.code, True)
    await us.until_idle()


async def test_what_a_peer_gives_back_is_served_here(
    regions: tuple[Any, Any], engines: Any, eventually: Eventually
) -> None:
    """A region whose engines have died since it spoke refuses; the client never learns of it."""
    us, eu = regions
    here, there = await engines(), await engines()
    here.waiting_requests = 1
    await us.add_pool("m", here.address)
    await eu.add_pool("m", there.address, queueTimeout="1s")
    await us.until_waiting("m", 1)
    await until_told(us, eventually)
    there.waiting_requests = 1
    await eu.until_waiting("m", 1)
    asked = asyncio.create_task(us.chat("m"))
    here.waiting_requests = 0
    reply = await asked
    assert reply.status == 200
    await us.until_idle()
    await eu.until_idle()

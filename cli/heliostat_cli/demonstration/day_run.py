"""One day of the three regions, each for itself or federated, with a region that dies in it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import aiohttp

from heliostat_cli.authority import open_authority
from heliostat_cli.demonstration.children import ChildError
from heliostat_cli.demonstration.crowd import Crowd
from heliostat_cli.demonstration.lookout import Federation, watch_federation
from heliostat_cli.demonstration.ports import free_ports
from heliostat_cli.demonstration.region import (
    PeerAddress,
    Region,
    RegionPorts,
    open_regions,
    start_all,
)
from heliostat_cli.demonstration.sea import Sea, open_sea
from heliostat_cli.demonstration.sun import REGIONS, Day, titles
from heliostat_cli.demonstration.tally import Tally
from heliostat_cli.loading.lag import watch_lag

_TRUST_DOMAIN = "heliostat.example"
_SETTLE_SECONDS = 20.0
_SHOW_SECONDS = 0.25


class Mode(StrEnum):
    """How the regions are run."""

    REGION_LOCAL = "region-local"
    FEDERATED = "federated"


@dataclass(slots=True)
class DayState:
    """Where a run stands: all that the view shows of it."""

    mode: Mode
    day: Day
    tally: Tally
    federation: Federation = field(default_factory=Federation)
    running: bool = False
    """Whether the day has begun."""
    done: bool = False
    active: int = 0
    """Requests that wait for their answers."""
    news: str = ""
    """What has happened to a region."""
    down: str = ""
    """The region of which nothing runs; empty if there is none."""

    @property
    def elapsed_seconds(self) -> float:
        """Of the day, at most all of it; 0 before its begin."""
        if self.done:
            return self.day.seconds
        return min(self.day.seconds, self.tally.elapsed_seconds) if self.running else 0.0


async def run_day(state: DayState, folder: Path, show: Callable[[], None]) -> None:
    """Start the regions, live through the day and stop them. Raises ChildError, PortError."""
    async with _running_regions(state, folder) as (regions, sea), _client_session(state) as http:
        crowd = Crowd(state.day, sea.client_urls, http, state.tally)
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(work)
                    for work in (
                        watch_federation(_admin_urls(regions), state.federation, state.tally),
                        watch_lag(state.tally.lag),
                        _showing(state, crowd, show),
                        _watch_children(regions),
                    )
                ]
                state.running = True
                background.append(group.create_task(_break_region(state, regions)))
                await crowd.run()
                for task in background:
                    task.cancel()
        except* ChildError as errors:
            raise errors.exceptions[0] from None
    state.done = True


def _client_session(state: DayState) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=state.day.timeout_seconds)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def _admin_urls(regions: Sequence[Region]) -> dict[str, str]:
    return {region.plan.name: region.ports.admin_url for region in regions}


async def _showing(state: DayState, crowd: Crowd, show: Callable[[], None]) -> None:
    while True:
        state.active = crowd.active
        show()
        await asyncio.sleep(_SHOW_SECONDS)


async def _watch_children(regions: Sequence[Region]) -> None:
    while True:
        for region in regions:
            region.check()
        await asyncio.sleep(_SHOW_SECONDS)


async def _break_region(state: DayState, regions: Sequence[Region]) -> None:
    """Kill a region amid the day, and start it again later."""
    outage, day, tally = state.day.outage, state.day, state.tally
    region = next(region for region in regions if region.plan.name == outage.region)
    title = titles()[outage.region]
    await asyncio.sleep(max(0.0, outage.from_ratio * day.seconds - tally.elapsed_seconds))
    tally.on_kill()
    state.down, state.news = outage.region, f"{title} is lost: gateway and engines were killed"
    await region.kill()
    await asyncio.sleep(max(0.0, outage.restart_ratio * day.seconds - tally.elapsed_seconds))
    state.news = f"{title} is lost, and starts again"
    await region.start()
    state.down, state.news = "", f"{title} was lost, and is back"


@asynccontextmanager
async def _running_regions(
    state: DayState, folder: Path
) -> AsyncIterator[tuple[list[Region], Sea]]:
    """All regions, ready for requests, and federated if that is the mode."""
    numbers = iter(free_ports(3 * len(REGIONS)))
    ports = {plan: RegionPorts(next(numbers), next(numbers), next(numbers)) for plan in REGIONS}
    async with AsyncExitStack() as stack:
        by_name = {plan.name: its_ports for plan, its_ports in ports.items()}
        sea = await stack.enter_async_context(open_sea(by_name))
        regions = await stack.enter_async_context(open_regions(state.day, ports, folder))
        if state.mode is Mode.FEDERATED:
            _federate(regions, sea, folder / "certificates")
        await start_all(regions)
        await _until_ready(regions, state.mode)
        yield regions, sea


def _federate(regions: Sequence[Region], sea: Sea, folder: Path) -> None:
    """Give every region a certificate and the others as peers."""
    now = datetime.now(UTC)
    authority = open_authority(folder, None, _TRUST_DOMAIN, now)
    names = [region.plan.name for region in regions]
    files = {name: authority.issue(name, timedelta(days=30), now) for name in names}
    for region in regions:
        own = region.plan.name
        peers = [
            PeerAddress(other, sea.federation_ports[own, other], files[other].identity)
            for other in names
            if other != own
        ]
        region.join(files[own].folder, peers)


async def _until_ready(regions: Sequence[Region], mode: Mode) -> None:
    """Wait until each router knows its engines, and where they federate each other."""
    federation, tally = Federation(), Tally(1.0)
    watching = asyncio.create_task(watch_federation(_admin_urls(regions), federation, tally))
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            while not _is_ready(federation, mode):
                for region in regions:
                    region.check()
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        what = "engines and peers" if mode is Mode.FEDERATED else "engines"
        raise ChildError(f"the gateways did not find their {what} in time") from error
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _is_ready(federation: Federation, mode: Mode) -> bool:
    statuses = list(federation.routers.values())
    if not all(s is not None and s.pools and all(p.free for p in s.pools) for s in statuses):
        return False
    links = [federation.link(one, other) for one, other in federation.passed_on]
    return mode is Mode.REGION_LOCAL or all(
        link is not None and link.state == "Connected" and link.pools for link in links
    )

"""The ways between the regions of the demo, delayed as the real ones are."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import permutations

from heliostat_cli.demonstration.delay_line import DelayLine
from heliostat_cli.demonstration.region import RegionPorts
from heliostat_cli.demonstration.sun import ROUND_TRIPS, nearest

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sea:
    """Where the ways begin, by (from, to)."""

    federation_ports: Mapping[Pair, int]
    """To other regions' federation ports."""
    client_urls: Mapping[str, Mapping[str, str]]
    """For a region's clients: all regions' gateways, its own first, then by distance."""


@asynccontextmanager
async def open_sea(ports: Mapping[str, RegionPorts]) -> AsyncIterator[Sea]:
    """All ways there are between these regions, for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        federation: dict[Pair, int] = {}
        clients: dict[Pair, str] = {(name, name): its.url for name, its in ports.items()}
        for one, other in permutations(ports, 2):
            seconds, far = ROUND_TRIPS[frozenset((one, other))], ports[other]
            line = await stack.enter_async_context(DelayLine(far.federation, seconds))
            federation[one, other] = line.port
            line = await stack.enter_async_context(DelayLine(far.clients, seconds))
            clients[one, other] = f"http://127.0.0.1:{line.port}"
        urls = {one: {other: clients[one, other] for other in nearest(one)} for one in ports}
        yield Sea(federation, urls)

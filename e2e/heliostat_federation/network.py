"""Network namespaces of regions, and the way between them as a test bends it."""

import asyncio
import ipaddress
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from heliostat_cluster.bridge import Bridge, open_bridge, run_ip
from heliostat_extproc.envoy import leash
from heliostat_federation.errors import HarnessError
from heliostat_federation.wan import Way

_WAN = ipaddress.IPv4Network("198.18.0.0/24")
"""Set aside for tests of networks (RFC 2544); inside the namespaces only."""

ROUND_TRIPS_SECONDS = {
    frozenset({"us", "asia"}): 0.134,
    frozenset({"us", "eu"}): 0.102,
    frozenset({"asia", "eu"}): 0.223,
}
"""Ohio, Tokyo and Frankfurt, as the SkyLB paper measured them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a region's processes run."""

    region: str
    namespace: str
    """The network namespace; its own engines are on its loopback."""
    address: str
    """For clients and tests on this machine, without delay."""
    wan_address: str
    """For the other regions."""

    def command(self, *command: str) -> list[str]:
        """The command line that runs a program there."""
        return ["/usr/bin/env", "ip", "netns", "exec", self.namespace, *command]


class Network:
    """Places, and the ways between them. Made by `open_network`."""

    def __init__(
        self,
        places: Mapping[str, Place],
        process: asyncio.subprocess.Process,
        round_trips: Mapping[frozenset[str], float],
        loss_ratio: float,
    ) -> None:
        self.places = places
        self._process = process
        self._numbers = {region: number for number, region in enumerate(places)}
        self._whole = {
            (one, other): Way(
                self._numbers[one],
                self._numbers[other],
                round_trips[frozenset({one, other})] / 2,
                loss_ratio,
            )
            for one, other in itertools.permutations(places, 2)
        }
        self._ways = dict(self._whole)
        self._turn = asyncio.Lock()

    async def heal(self, *regions: str) -> None:
        """Make all ways of these regions whole again; of all regions where none is named."""
        for pair, way in self._whole.items():
            if not regions or set(regions) & set(pair):
                await self._set(pair, way)

    async def cut(self, one: str, other: str) -> None:
        """Lose whatever these two send to each other."""
        await self.cut_one_way(one, other)
        await self.cut_one_way(other, one)

    async def cut_one_way(self, source: str, target: str) -> None:
        """Lose whatever one sends to the other; what comes back still arrives."""
        await self._set((source, target), replace(self._ways[source, target], is_cut=True))

    async def isolate(self, region: str) -> None:
        """Cut a region off from all others."""
        for other in self.places:
            if other != region:
                await self.cut(region, other)

    async def slow_down(self, one: str, other: str, round_trip_seconds: float) -> None:
        """Change the round trip between these two."""
        for pair in ((one, other), (other, one)):
            way = replace(self._ways[pair], delay_seconds=round_trip_seconds / 2)
            await self._set(pair, way)

    async def lose(self, loss_ratio: float) -> None:
        """Change the share of packets that is lost on every way."""
        for pair, way in self._ways.items():
            await self._set(pair, replace(way, loss_ratio=loss_ratio))

    async def _set(self, pair: tuple[str, str], way: Way) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise HarnessError("the network has no pipes")
        async with self._turn:
            stdin.write(way.to_json().encode() + b"\n")
            if await stdout.readline() != b"ok\n":
                raise HarnessError("the network between the regions has ended")
            self._ways[pair] = way

    async def start(self) -> None:
        """Set every way for the first time."""
        await self.heal()


@asynccontextmanager
async def open_network(
    regions: Iterable[str],
    round_trips: Mapping[frozenset[str], float] = ROUND_TRIPS_SECONDS,
    loss_ratio: float = 0.001,
) -> AsyncIterator[Network]:
    """Make a namespace for each region and the ways between; all is gone at the end."""
    names = list(regions)
    with open_bridge() as bridge:
        prefix = f"{bridge.cluster_id}w"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), sys.executable),
            *("-m", "heliostat_federation.wan", prefix, str(len(names))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            if process.stdout is None or await process.stdout.readline() != b"ready\n":
                raise HarnessError("no TUN devices: is this root, and is there /dev/net/tun?")
            places = {
                region: _open_place(bridge, region, number, f"{prefix}{number}")
                for number, region in enumerate(names)
            }
            network = Network(places, process, round_trips, loss_ratio)
            await network.start()
            yield network
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _open_place(bridge: Bridge, region: str, number: int, wan_device: str) -> Place:
    namespace = f"{bridge.cluster_id}-{region}"
    outside = f"{bridge.cluster_id}v{number}"
    address = str(bridge.subnet.network_address + 10 + number)
    wan_address = str(_WAN.network_address + 1 + number)
    run_ip(
        f"netns add {namespace}",
        f"link add {outside} type veth peer name eth0 netns {namespace}",
        f"link set {outside} master {bridge.name} up",
        f"link set {wan_device} netns {namespace}",
    )
    run_ip(
        "link set lo up",
        f"addr add {address}/{bridge.subnet.prefixlen} dev eth0",
        "link set eth0 up",
        f"addr add {wan_address}/{_WAN.prefixlen} dev {wan_device}",
        f"link set {wan_device} txqueuelen 5000 up",
        namespace=namespace,
    )
    return Place(region, namespace, address, wan_address)

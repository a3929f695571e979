"""A region of the demo on this machine: engines and a real gateway, which can die and come back."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heliostat_cli.demonstration.children import Child, ChildError, run_child
from heliostat_cli.demonstration.sun import MODEL, ROUND_TRIPS, Day, RegionPlan

_API_VERSION = "heliostat.dev/v1alpha1"
_POOL = "chat"


@dataclass(frozen=True, slots=True)
class RegionPorts:
    """Where its gateway listens, on loopback; the same after it has come back."""

    clients: int
    admin: int
    federation: int

    @property
    def url(self) -> str:
        """For clients in the region."""
        return f"http://127.0.0.1:{self.clients}"

    @property
    def admin_url(self) -> str:
        """Of its router."""
        return f"http://127.0.0.1:{self.admin}"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Another region, and where the way to it begins."""

    region: str
    port: int
    identity: str


class Region:
    """Engines and gateway of one region; made by `open_region`."""

    def __init__(self, plan: RegionPlan, day: Day, ports: RegionPorts, folder: Path) -> None:
        self.plan = plan
        self.ports = ports
        self._day = day
        self._folder = folder
        self._pools = folder / "pools"
        self._federation: list[str] = []
        self._stack = AsyncExitStack()
        self.children: tuple[Child, ...] = ()
        """What runs now: nothing between a kill and the next start."""

    def join(self, certificates: Path, peers: Sequence[PeerAddress]) -> None:
        """Have its gateway federate from its next start on."""
        self._federation = [
            *("--region", self.plan.name, "--router-name", f"{self.plan.name}-0"),
            *("--region-certificates", str(certificates)),
            *("--federation-port", str(self.ports.federation)),
        ]
        for peer in peers:
            _write(self._pools, f"peer-{peer.region}", self._peer_manifest(peer))

    async def start(self) -> None:
        """Start engines and gateway, ready for requests. Raises ChildError."""
        engines = await self._run("engines", self._day.engine_arguments())
        addresses = json.loads(await engines.ready_line())["addresses"]
        _write(self._pools, _POOL, _pool_manifest(addresses))
        gateway = await self._run("gateway", self._gateway_arguments())
        self.children = (engines, gateway)
        await gateway.ready_line()

    async def kill(self) -> None:
        """End engines and gateway as if the region had lost its power."""
        children, self.children = self.children, ()
        await asyncio.gather(*(child.kill() for child in children))
        await self._stack.aclose()

    async def stop(self) -> None:
        """End what runs, the gateway first."""
        self.children = ()
        await self._stack.aclose()

    def check(self) -> None:
        """Raise ChildError if something that should run has ended."""
        for child in self.children:
            child.check()

    async def _run(self, what: str, arguments: Sequence[str]) -> Child:
        name = f"{self.plan.name}-{what}"
        child = run_child(name, arguments, self._folder, temporary=self._folder)
        return await self._stack.enter_async_context(child)

    def _gateway_arguments(self) -> list[str]:
        return [
            *("gateway", "--pools", str(self._pools)),
            *("--port", str(self.ports.clients), "--admin-port", str(self.ports.admin)),
            *("--log-level", "error", "--drain-seconds", "1"),
            *self._federation,
        ]

    def _peer_manifest(self, peer: PeerAddress) -> dict[str, Any]:
        round_trip = ROUND_TRIPS[frozenset((self.plan.name, peer.region))]
        return {
            "apiVersion": _API_VERSION,
            "kind": "RegionPeer",
            "metadata": {"name": peer.region},
            "spec": {
                "region": peer.region,
                "gateway": {"address": f"127.0.0.1:{peer.port}"},
                "identity": peer.identity,
                "roundTrip": f"{round_trip * 1000:.0f}ms",
            },
        }


@asynccontextmanager
async def open_regions(
    day: Day, ports: Mapping[RegionPlan, RegionPorts], folder: Path
) -> AsyncIterator[list[Region]]:
    """Regions of which nothing runs yet; what runs in the end is stopped."""
    regions = []
    for plan, its_ports in ports.items():
        own = folder / plan.name
        (own / "pools").mkdir(parents=True)
        regions.append(Region(plan, day, its_ports, own))
    try:
        yield regions
    finally:
        await asyncio.gather(*(region.stop() for region in regions))


async def start_all(regions: Sequence[Region]) -> None:
    """Start all at once. Raises the first ChildError."""
    try:
        async with asyncio.TaskGroup() as group:
            for region in regions:
                group.create_task(region.start())
    except* ChildError as errors:
        raise errors.exceptions[0] from None


def _pool_manifest(addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "apiVersion": _API_VERSION,
        "kind": "InferencePool",
        "metadata": {"name": _POOL},
        "spec": {
            "model": {"name": MODEL},
            "endpoints": [{"address": address} for address in addresses],
        },
    }


def _write(folder: Path, name: str, manifest: dict[str, Any]) -> None:
    draft = folder / f".{name}.yaml"
    draft.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    draft.rename(folder / f"{name}.yaml")

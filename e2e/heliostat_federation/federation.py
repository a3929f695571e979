"""Three regions that serve each other, over a network that a test may break."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliostat_federation.authority import Certificates, identity_of
from heliostat_federation.network import ROUND_TRIPS_SECONDS, Network, open_network
from heliostat_federation.region import PeerDeclaration, Region, RegionSettings

REGIONS = ("us", "eu", "asia")


@dataclass(frozen=True, slots=True)
class FederationSettings:
    """How the regions are, and how far from each other."""

    region: RegionSettings = field(default_factory=RegionSettings)
    differing: Mapping[str, RegionSettings] = field(default_factory=dict)
    """Regions that are not as the others."""
    round_trips: Mapping[frozenset[str], float] = field(default_factory=lambda: ROUND_TRIPS_SECONDS)
    loss_ratio: float = 0.001
    near: bool = False
    """Whether regions are reached past the played network, as if they stood side by side."""
    federated: bool = True
    """Whether the regions know of each other."""
    logs: Path | None = None
    """The folder for logs, replaced if it is there; None: one that is removed at the end."""


class Federation:
    """The regions and what lies between."""

    def __init__(self, settings: FederationSettings, network: Network, folder: Path) -> None:
        self.settings = settings
        self.network = network
        self.certificates = Certificates(folder / "certificates")
        self.regions: dict[str, Region] = {}
        for name in network.places:
            self.certificates.issue(name)
            region = settings.differing.get(name, settings.region)
            certificates = self.certificates.folder(name) if settings.federated else None
            self.regions[name] = Region(network.places[name], folder, region, certificates)

    def __getitem__(self, region: str) -> Region:
        """The region of this name."""
        return self.regions[region]

    def declaration(self, region: str) -> PeerDeclaration:
        """How the others declare a region."""
        there = self.regions[region]
        address = there.near_address if self.settings.near else there.federation_address
        return PeerDeclaration(region, address, identity_of(region), there.settings.groups)

    def declare(self, region: str, **changed: PeerDeclaration) -> None:
        """Write a region's peers, as they are or changed; none where they are not federated."""
        others = [name for name in self.regions if name != region]
        peers = [changed.get(name, self.declaration(name)) for name in others]
        self.regions[region].write_peers(peers if self.settings.federated else [])

    async def start(self) -> None:
        """Start everything and wait until all regions are connected."""
        for name, region in self.regions.items():
            region.write_pool()
            self.declare(name)
            region.start()
        await self.until_whole()

    async def restore(self) -> None:
        """Mend whatever a test has broken, and wait until nobody is busy."""
        await self.mend()
        await asyncio.gather(*(region.until_idle() for region in self.regions.values()))

    async def mend(self) -> None:
        """Mend whatever a test has broken, and wait until all regions are connected."""
        await self.network.heal()
        for name, region in self.regions.items():
            region.write_pool()
            self.declare(name)
            region.start()
        await self.until_whole()

    async def until_whole(self) -> None:
        """Wait until every region is ready and connected to all others."""
        await asyncio.gather(*(region.until_ready() for region in self.regions.values()))
        if self.settings.federated:
            await asyncio.gather(*(self._until_connected(name) for name in self.regions))

    async def tally(self) -> dict[str, dict[str, int]]:
        """How often each request was answered to the end, by the regions that have done so."""
        found: dict[str, dict[str, int]] = {}
        for name, region in self.regions.items():
            for request_id, count in (await region.tally()).items():
                if count["answered"]:
                    found.setdefault(request_id, {})[name] = count["answered"]
        return found

    async def _until_connected(self, region: str) -> None:
        for other in self.regions:
            if other != region:
                await self.regions[region].until_peer(other, "Connected", within_seconds=30)


@asynccontextmanager
async def running_federation(
    settings: FederationSettings | None = None,
) -> AsyncIterator[Federation]:
    """Run three regions; they are connected when the block begins."""
    settings = settings or FederationSettings()
    async with contextlib.AsyncExitStack() as stack:
        folder = settings.logs
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf-")))
        else:
            shutil.rmtree(folder, ignore_errors=True)
        network = await stack.enter_async_context(
            open_network(REGIONS, settings.round_trips, settings.loss_ratio)
        )
        federation = Federation(settings, network, folder)
        for region in federation.regions.values():
            stack.push_async_callback(region.stop)
        await federation.start()
        yield federation


def with_region(settings: FederationSettings, **changes: object) -> FederationSettings:
    """The same with all regions changed."""
    return replace(settings, region=replace(settings.region, **changes))  # type: ignore[arg-type]

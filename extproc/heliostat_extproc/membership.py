"""This router's part in its region and in the federation of regions, all its parts in one place."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from heliostat_extproc.discovery.peering import DeclaredSibling
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_extproc.driver import RouterDriver
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.reachability import ReachabilityServer
from heliostat_extproc.federation.core_state import (
    CoreState,
    FederatedCore,
    SharedScrapes,
    SiblingRecorder,
)
from heliostat_extproc.federation.peering import Federation
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.region_certificate import CertificateSource, RegionCertificates
from heliostat_extproc.federation.reports import PeerReport, SiblingReport
from heliostat_extproc.grpc_streams.message_stream import Handler
from heliostat_extproc.peer_sync import PeerSync, Publish


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """Which router this is, how it proves that, and where Envoy is for it."""

    region: Region
    certificates: CertificateSource
    envoy: FederationSettings
    siblings: tuple[DeclaredSibling, ...] = ()
    """Routers of this region beside those that the discovery finds."""


class Pools(Protocol):
    """The pools in force: see `pool_sync.PoolSync`."""

    def pool_of_model(self, model: str) -> str | None:
        """Name the pool here that serves a model."""
        ...

    def model_of_pool(self, pool: str) -> str | None:
        """Give the canonical name of a pool's model."""
        ...

    def endpoints(self) -> frozenset[str]:
        """Every endpoint that may be picked."""
        ...


class Membership:
    """A router that has peers or siblings."""

    def __init__(
        self,
        settings: MembershipSettings,
        core: FederatedCore,
        driver: RouterDriver,
        pools: Pools,
        publish: Publish,
    ) -> None:
        region = settings.region
        clock = asyncio.get_running_loop().time
        self._state = CoreState(core, region.router, clock=clock, model_of_pool=pools.model_of_pool)
        self.region = region
        self._siblings = settings.siblings
        self._reachability = ReachabilityServer(settings.envoy.health_socket)
        self.certificates = RegionCertificates(settings.certificates)
        self._federation = Federation(
            region,
            settings.envoy.links_socket,
            self._state,
            driver.submit,
            identity=lambda: self.certificates.identity,
            pool_of_model=pools.pool_of_model,
            on_reachability=self._reachability.set_reachable,
            on_addresses=lambda addresses: self.peers.on_addresses(addresses),
        )
        self.peers = PeerSync(self._federation, publish, driver.open_regions)
        self.scrapes = SharedScrapes(
            region.router,
            self._federation,
            submit=driver.submit,
            endpoints=pools.endpoints,
            busy_endpoints=core.busy_endpoints,
        )
        driver.add_recorder(SiblingRecorder(self._state.relay, self._federation))
        if self.certificates.current is not None:
            self.peers.on_certificate(self.certificates.current)

    async def start(self) -> None:
        """Tell Envoy from now on which regions are reachable; OSError where that cannot be."""
        await self._reachability.start()

    def drain(self) -> None:
        """Tell other regions at once that nothing new is to be sent here."""
        self._state.draining = True
        self._federation.tell()

    def stop(self) -> None:
        """Tell Envoy nothing more, which changes nothing for it."""
        self._reachability.stop()

    @property
    def services(self) -> dict[str, Handler]:
        """What tells other routers the state, for this router's own Envoy only."""
        return self._federation.services

    def apply(self, snapshot: Snapshot) -> None:
        """Put the declared peers and siblings in force."""
        self.peers.apply(snapshot.peers, (*self._siblings, *snapshot.siblings))

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What must run for as long as the router does."""
        return [self._federation.run(), self.certificates.follow(self.peers.on_certificate)]

    def problems(self) -> tuple[str, ...]:
        """Say what keeps this router from others, a sentence each."""
        return self.certificates.problems

    def reports(self) -> tuple[PeerReport, ...]:
        """Describe the link to each peer region."""
        return self._federation.reports()

    def live_routers(self) -> tuple[str, ...]:
        """Name the region's routers that live, this one among them."""
        return self._federation.live_routers()

    def sibling_reports(self) -> tuple[SiblingReport, ...]:
        """Describe the link to each other router of the region."""
        return self._federation.sibling_reports()

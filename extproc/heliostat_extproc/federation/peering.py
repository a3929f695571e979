"""The links of this router to other regions, and to the other routers of its own."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import grpc

from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.reports import PeerReport, SiblingReport
from heliostat_extproc.federation.slots import RelayedEvent, StateSource
from heliostat_routing.events import Event

Addresses = Mapping[str, tuple[str, ...]]
"""The `ip:port` addresses of each peer region's gateway."""


class Federation:
    """Keeps the core's view of other regions and of this region's other routers.

    `submit` takes `PeersUpdated`, `RegionStateReceived`, `PeerLost` and the siblings' events.
    `identity` gives this region's own URI, None while it has no certificate. `pool_of_model` names
    the pool here that serves a model. `on_reachability` hears of each region that comes and goes,
    `on_addresses` all peers' addresses whenever some have changed.
    """

    def __init__(
        self,
        region: Region,
        links_socket: Path,
        source: StateSource,
        submit: Callable[[Event], object],
        *,
        identity: Callable[[], str | None],
        pool_of_model: Callable[[str], str | None],
        on_reachability: Callable[[str, bool], None] = lambda _region, _reachable: None,
        on_addresses: Callable[[Addresses], None] = lambda _addresses: None,
    ) -> None:
        raise NotImplementedError

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the State service: on the socket of this router's own Envoy only."""
        raise NotImplementedError

    def apply(self, peers: Collection[DeclaredPeer], siblings: Collection[DeclaredSibling]) -> None:
        """Make these all the peers and siblings; tell the core of the peers."""
        raise NotImplementedError

    def relay(self, event: RelayedEvent) -> None:
        """Tell every sibling what has happened here."""
        raise NotImplementedError

    def is_reachable(self, region: str) -> bool:
        """Whether requests may be on their way there: false from when it is not heard any more."""
        raise NotImplementedError

    def reports(self) -> tuple[PeerReport, ...]:
        """Describe the link to each peer region."""
        raise NotImplementedError

    def sibling_reports(self) -> tuple[SiblingReport, ...]:
        """Describe the link to each sibling."""
        raise NotImplementedError

    def live_routers(self) -> tuple[str, ...]:
        """Name this router and every sibling that is heard: those that share the scrapes."""
        raise NotImplementedError

    async def run(self) -> None:
        """Keep all links until cancelled."""
        raise NotImplementedError

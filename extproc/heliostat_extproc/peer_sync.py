"""Carries peers and siblings from the discovery to Envoy and to the links, certificates with them.

A peer that is declared no longer gets nothing new at once; Envoy keeps the way to it until the last
request that was sent there has ended.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling
from heliostat_extproc.envoy.peer_resources import LinkRoute, Peering, PeerRoute
from heliostat_extproc.federation.region_certificate import RegionCertificate

Publish = Callable[[Peering], None]
"""Tells Envoy who the peers are and how they are reached."""


class Links(Protocol):
    """The links to other routers: see `federation.peering.Federation`."""

    def apply(self, peers: Collection[DeclaredPeer], siblings: Collection[DeclaredSibling]) -> None:
        """Make these all the peers and siblings."""
        ...


class PeerSync:
    """The peers and siblings in force. `open_regions` names where requests are that still run."""

    def __init__(
        self, links: Links, publish: Publish, open_regions: Callable[[], frozenset[str]]
    ) -> None:
        self._links = links
        self._publish = publish
        self._open_regions = open_regions
        self._certificate: RegionCertificate | None = None
        self._peers: tuple[DeclaredPeer, ...] = ()
        self._siblings: tuple[DeclaredSibling, ...] = ()
        self._leaving: dict[str, PeerRoute] = {}
        self._addresses: Mapping[str, tuple[str, ...]] = {}
        self._region_of: dict[str, str] = {}
        self._published: Peering | None = None

    def region_of(self, identity: str) -> str | None:
        """Name the peer's region that has this identity; None where it is no peer's."""
        return self._region_of.get(identity)

    def apply(self, peers: tuple[DeclaredPeer, ...], siblings: tuple[DeclaredSibling, ...]) -> None:
        """Put the declared peers and siblings in force; the links look at the pools anew too."""
        before = {route.region: route for route in self._routes()}
        self._peers, self._siblings = peers, siblings
        self._region_of = {peer.identity: peer.settings.region for peer in peers}
        declared = {peer.settings.region for peer in peers}
        self._leaving |= before
        self._leaving = {it: route for it, route in self._leaving.items() if it not in declared}
        self._links.apply(peers, siblings)
        self.sweep()

    def on_certificate(self, certificate: RegionCertificate) -> None:
        """Prove from now on with this certificate who this region is."""
        self._certificate = certificate
        self._tell_envoy()

    def on_addresses(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Reach each region at these addresses."""
        self._addresses = addresses
        self._tell_envoy()

    def sweep(self) -> None:
        """Forget regions that have left, once nothing runs there."""
        if self._leaving:
            running = self._open_regions()
            self._leaving = {it: route for it, route in self._leaving.items() if it in running}
        self._tell_envoy()

    def _routes(self) -> tuple[PeerRoute, ...]:
        return tuple(
            PeerRoute(
                peer.settings.region, self._addresses.get(peer.settings.region, ()), peer.identity
            )
            for peer in self._peers
        )

    def _tell_envoy(self) -> None:
        certificate = self._certificate
        if certificate is None:
            return
        routes = self._routes()
        links = [
            LinkRoute(route.region, route.addresses, route.identity, peer.digest)
            for route, peer in zip(routes, self._peers, strict=True)
        ]
        links += [
            LinkRoute(it.name, (it.address,), certificate.identity, it.digest)
            for it in self._siblings
        ]
        peering = Peering(
            peers=(*routes, *self._leaving.values()),
            links=tuple(links),
            certificate=certificate,
            allowed=frozenset(self._region_of),
        )
        if peering != self._published:
            self._published = peering
            self._publish(peering)

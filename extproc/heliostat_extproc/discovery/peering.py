"""Who this router federates with, as declared: other regions, and the other routers of its own."""

from dataclasses import dataclass

from heliostat_crds.region_peer import RegionPeer
from heliostat_routing.events import PeerSettings


@dataclass(frozen=True, slots=True)
class DeclaredPeer:
    """One RegionPeer: how its region's gateway is reached, and how requests there are judged."""

    settings: PeerSettings
    address: str
    """`host:port` of its federation listener; the host may be a name."""
    identity: str
    """The URI in its certificate."""


@dataclass(frozen=True, slots=True)
class DeclaredSibling:
    """Another router of this region."""

    name: str
    address: str
    """`ip:port` of its gateway's federation listener."""


def declared_peer(peer: RegionPeer) -> DeclaredPeer:
    """Translate a RegionPeer."""
    return DeclaredPeer(peer.peer_settings(), peer.spec.gateway.address, peer.spec.identity)

"""Who this router federates with, as declared: other regions, and the other routers of its own."""

from dataclasses import dataclass
from hashlib import sha256

from heliostat_crds.region_peer import RegionPeer
from heliostat_routing.events import PeerSettings

_DIGEST_LENGTH = 16


@dataclass(frozen=True, slots=True)
class DeclaredPeer:
    """One RegionPeer: how its region's gateway is reached, and how requests there are judged."""

    settings: PeerSettings
    address: str
    """`host:port` of its federation listener; the host may be a name."""
    identity: str
    """The URI in its certificate."""

    @property
    def digest(self) -> str:
        """Tell this declaration apart from others of the same region, by how it is reached."""
        return digest_of(self.address, self.identity)


@dataclass(frozen=True, slots=True)
class DeclaredSibling:
    """Another router of this region."""

    name: str
    address: str
    """`ip:port` of its gateway's federation listener."""

    @property
    def digest(self) -> str:
        """Tell this declaration apart from others of the same router."""
        return digest_of(self.address)


def declared_peer(peer: RegionPeer) -> DeclaredPeer:
    """Translate a RegionPeer."""
    return DeclaredPeer(peer.peer_settings(), peer.spec.gateway.address, peer.spec.identity)


def digest_of(*words: str) -> str:
    """Give a short name to all these words together."""
    return sha256("\0".join(words).encode()).hexdigest()[:_DIGEST_LENGTH]

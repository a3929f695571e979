"""What Envoy is told of other regions and of the region's other gateways: how they are reached."""

from dataclasses import dataclass

from heliostat_extproc.federation.region_certificate import RegionCertificate


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """A region that requests are forwarded to."""

    region: str
    addresses: tuple[str, ...]
    """`ip:port` of its gateways' federation listeners; none while its name is not resolved."""
    identity: str
    """The URI that its certificate must hold."""


@dataclass(frozen=True, slots=True)
class LinkRoute:
    """A region, or a router of this one, to which the router opens a state stream."""

    destination: str
    """The region's name or the router's: the stream's `:authority`."""
    addresses: tuple[str, ...]
    identity: str


@dataclass(frozen=True, slots=True)
class Peering:
    """The whole truth about federation; without a certificate there is none."""

    peers: tuple[PeerRoute, ...] = ()
    links: tuple[LinkRoute, ...] = ()
    certificate: RegionCertificate | None = None
    allowed: frozenset[str] = frozenset()
    """Identities that may come in, beside this region's own."""


NO_PEERING = Peering()

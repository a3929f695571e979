"""What Envoy is told of other regions and of the region's other gateways: how they are reached.

A request to a region has one retry, and that goes to Envoy's own return listener: whatever goes
wrong before an answer begins, the router decides anew. Connections to a region run through a
listener inside Envoy, which cuts them at the router's word: Envoy takes the health of a region's
addresses from the router, not from the region. Only an explicit no counts: a router that is away
cuts nothing. State streams have connections of their own, which nothing cuts but silence.

A connection is good for the identity and the addresses under which it was made: they are in the
names of clusters and hosts, so that nothing new goes over it once these are others.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterTransportSocketMatch,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HealthCheck,
    HealthCheckHttpHealthCheck,
    Http2ProtocolOptions,
    KeepaliveSettings,
    TcpKeepalive,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.transport_sockets.internal_upstream.v3 import (
    InternalUpstreamTransport,
    InternalUpstreamTransportMetadataValueSource,
)
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKind, MetadataKindHost
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any, Struct

from heliostat_extproc.discovery.peering import digest_of
from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.addresses import parse_address
from heliostat_extproc.envoy.control_plane import (
    UNLIMITED,
    ads_source,
    unlimited_breakers,
    upstream_http2,
)
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.federation_listeners import (
    CONNECTION_CLUSTER_KEY,
    CONNECTION_METADATA,
    CONNECTIONS_LISTENER,
)
from heliostat_extproc.envoy.reachability import health_path
from heliostat_extproc.envoy.region_tls import peer_socket, serialized_secrets
from heliostat_extproc.federation.region_certificate import RegionCertificate

_CONNECTION_PREFIX = "connection:"
_LINK_STAT_PREFIX = "link:"
_MOST_ADDRESSES = 16
_MATCH_NAMESPACE = "envoy.transport_socket_match"
_PLAINTEXT = {"plaintext": True}


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
    declaration: str
    """Names what is declared of the destination, as each stream to it does."""


@dataclass(frozen=True, slots=True)
class Peering:
    """The whole truth about federation; without a certificate there is none."""

    peers: tuple[PeerRoute, ...] = ()
    links: tuple[LinkRoute, ...] = ()
    certificate: RegionCertificate | None = None
    allowed: frozenset[str] = frozenset()
    """Identities that may come in, beside this region's own."""


NO_PEERING = Peering()


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """How Envoy treats connections to other gateways."""

    connect_timeout_seconds: float = 3.0
    """Two round trips around the earth, and a lost packet."""
    health_interval_seconds: float = 0.1
    """How often Envoy asks the router of each region's addresses: what runs to a region that is
    not reached any more comes back this late."""
    ping_interval_seconds: float = 5.0
    ping_timeout_seconds: float = 10.0
    """A connection with requests that is silent for this long after a ping is dead."""
    link_ping_interval_seconds: float = 1.0
    link_ping_timeout_seconds: float = 2.0
    """The same for state streams, which carry too little to lose by a new connection."""
    silence_seconds: int = 15
    """TCP probes a connection on which nothing has come for this long."""


@dataclass(frozen=True, slots=True)
class PeerResources:
    """Serialized resources by name."""

    clusters: Mapping[str, bytes] = field(default_factory=dict)
    assignments: Mapping[str, bytes] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)


def build_peer_resources(
    peering: Peering, federation: FederationSettings, settings: PeerSettings
) -> PeerResources:
    """Translate; AddressError names the first bad address.

    Without a certificate there are no clusters: they would wait for it, and pools with them.
    """
    if peering.certificate is None:
        return PeerResources()
    clusters, assignments = {}, {}
    for peer in peering.peers:
        name, connections = wire.peer_cluster(peer.region), _connection_cluster(peer)
        clusters[name] = _requests_cluster(name, settings)
        assignments[name] = _requests_assignment(
            name, connections, len(peer.addresses), federation.return_socket
        )
        clusters[connections] = _connections_cluster(
            connections, peer.region, peer.identity, settings
        )
        assignments[connections] = _assignment(
            connections, peer.addresses, federation.health_socket
        )
    for link in peering.links:
        name = wire.link_cluster(link.destination, link.declaration)
        clusters[name] = _link_cluster(name, link.destination, link.identity, settings)
        assignments[name] = _assignment(name, link.addresses)
    secrets = serialized_secrets(peering.certificate, peering.allowed)
    return PeerResources(clusters, assignments, secrets)


def _connection_cluster(peer: PeerRoute) -> str:
    digest = digest_of(peer.identity, *sorted(set(peer.addresses)))
    return f"{_CONNECTION_PREFIX}{peer.region}/{digest}"


@functools.lru_cache(maxsize=1024)
def _requests_cluster(name: str, settings: PeerSettings) -> bytes:
    """Requests to a region over HTTP/2: at first through its connections, then back."""
    cluster = _cluster(name, settings)
    cluster.typed_extension_protocol_options = _http2(
        settings.ping_interval_seconds, settings.ping_timeout_seconds
    )
    cluster.transport_socket = TransportSocket(
        name="envoy.transport_sockets.internal_upstream",
        typed_config=Any.pack(
            InternalUpstreamTransport(
                passthrough_metadata=[
                    InternalUpstreamTransportMetadataValueSource(
                        kind=MetadataKind(host=MetadataKindHost()), name=CONNECTION_METADATA
                    )
                ],
                transport_socket=_plaintext(),
            )
        ),
    )
    return bytes(cluster)


@functools.lru_cache(maxsize=1024)
def _connections_cluster(name: str, region: str, identity: str, settings: PeerSettings) -> bytes:
    """Connections to a region, in the health that the router tells."""
    cluster = _cluster(name, settings)
    cluster.alt_stat_name = f"{_CONNECTION_PREFIX}{region}"
    cluster.close_connections_on_host_health_failure = True
    cluster.ignore_health_on_host_removal = True
    plaintext = Struct.from_dict(_PLAINTEXT)
    cluster.transport_socket_matches = [
        ClusterTransportSocketMatch(name="router", match=plaintext, transport_socket=_plaintext()),
        ClusterTransportSocketMatch(
            name="peer", match=Struct(), transport_socket=peer_socket(identity)
        ),
    ]
    interval = timedelta(seconds=settings.health_interval_seconds)
    cluster.health_checks = [
        HealthCheck(
            timeout=timedelta(seconds=1),
            interval=interval,
            no_traffic_interval=interval,
            no_traffic_healthy_interval=interval,
            unhealthy_interval=interval,
            unhealthy_edge_interval=interval,
            healthy_edge_interval=interval,
            # Counts what is no answer. An answer of 503 is believed at once.
            unhealthy_threshold=UNLIMITED,
            healthy_threshold=1,
            http_health_check=HealthCheckHttpHealthCheck(host="router", path=health_path(region)),
            transport_socket_match_criteria=plaintext,
        )
    ]
    return bytes(cluster)


@functools.lru_cache(maxsize=1024)
def _link_cluster(name: str, destination: str, identity: str, settings: PeerSettings) -> bytes:
    cluster = _cluster(name, settings)
    cluster.alt_stat_name = f"{_LINK_STAT_PREFIX}{destination}"
    cluster.typed_extension_protocol_options = _http2(
        settings.link_ping_interval_seconds, settings.link_ping_timeout_seconds
    )
    cluster.transport_socket = peer_socket(identity)
    return bytes(cluster)


def _cluster(name: str, settings: PeerSettings) -> Cluster:
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ads_source()),
        connect_timeout=timedelta(seconds=settings.connect_timeout_seconds),
        upstream_connection_options=UpstreamConnectionOptions(
            tcp_keepalive=TcpKeepalive(
                keepalive_time=settings.silence_seconds, keepalive_interval=5, keepalive_probes=3
            )
        ),
        circuit_breakers=unlimited_breakers(),
        # Where no host is healthy none is tried.
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0.0)),
    )


def _http2(interval_seconds: float, timeout_seconds: float) -> dict[str, Any]:
    keepalive = KeepaliveSettings(
        interval=timedelta(seconds=interval_seconds), timeout=timedelta(seconds=timeout_seconds)
    )
    return upstream_http2(Http2ProtocolOptions(connection_keepalive=keepalive))


def _plaintext() -> TransportSocket:
    return TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=Any.pack(RawBuffer())
    )


def _requests_assignment(name: str, connections: str, addresses: int, return_socket: Path) -> bytes:
    """Offer the region first and the return listener last.

    There is a host for each address of the region, so that its gateways share the connections.
    """
    assignment = ClusterLoadAssignment(cluster_name=name)
    hosts = assignment.endpoints.add(priority=0).lb_endpoints
    for number in range(max(1, min(addresses, _MOST_ADDRESSES))):
        host = hosts.add()
        internal = host.endpoint.address.envoy_internal_address
        internal.server_listener_name = CONNECTIONS_LISTENER
        internal.endpoint_id = f"{connections}/{number}"
        metadata = host.metadata.filter_metadata[CONNECTION_METADATA]
        metadata[CONNECTION_CLUSTER_KEY] = connections
    given_back = assignment.endpoints.add(priority=1).lb_endpoints.add()
    given_back.endpoint.address.pipe.path = str(return_socket)
    return _serialized(assignment)


def _assignment(name: str, addresses: Sequence[str], health_socket: Path | None = None) -> bytes:
    assignment = ClusterLoadAssignment(cluster_name=name)
    hosts = assignment.endpoints.add().lb_endpoints
    for address in sorted(set(addresses))[:_MOST_ADDRESSES]:
        host, port = parse_address(address)
        endpoint = hosts.add().endpoint
        endpoint.address.socket_address.address = host
        endpoint.address.socket_address.port_value = port
        if health_socket is not None:
            endpoint.health_check_config.address.pipe.path = str(health_socket)
    return _serialized(assignment)


def _serialized(assignment: ClusterLoadAssignment) -> bytes:
    serialized: bytes = assignment.SerializeToString(deterministic=True)
    return serialized

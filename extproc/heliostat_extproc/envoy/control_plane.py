"""The way from Envoy to its router, and what all of Envoy's clusters share."""

from datetime import timedelta
from pathlib import Path

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
)
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    Http2ProtocolOptions,
    HttpProtocolOptions,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamProtocolOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.addresses import pipe_address

UNLIMITED = 2**31 - 1
_LARGEST_WINDOW_BYTES = 2**31 - 1
STATE_CLUSTER = "state"
"""The router's state streams, apart from its other calls so that they can be counted."""
STATE_STREAM_BYTES = 65_535
"""What a watcher that does not read leaves with its gateway's Envoy."""

_HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def ads_source() -> ConfigSource:
    """Name ADS as the source, and wait for it without limit: serving nothing is worse."""
    return ConfigSource(
        ads=AggregatedConfigSource(),
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=timedelta(0),
    )


def unlimited_breakers() -> CircuitBreakers:
    """Leave limits to the router, which knows more than a count."""
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=UNLIMITED,
                max_pending_requests=UNLIMITED,
                max_requests=UNLIMITED,
                max_retries=UNLIMITED,
            )
        ]
    )


def upstream_protocol(
    explicit: HttpProtocolOptionsExplicitHttpConfig, idle_timeout: timedelta | None = None
) -> dict[str, Any]:
    """Speak this version of HTTP, and no other, to a cluster."""
    options = UpstreamProtocolOptions(explicit_http_config=explicit)
    if idle_timeout is not None:
        options.common_http_protocol_options = HttpProtocolOptions(idle_timeout=idle_timeout)
    return {_HTTP_PROTOCOL_OPTIONS: Any.pack(options)}


def upstream_http2(options: Http2ProtocolOptions | None = None) -> dict[str, Any]:
    """Speak HTTP/2 to a cluster."""
    return upstream_protocol(
        HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=options or Http2ProtocolOptions()
        )
    )


def router_cluster(name: str, socket: Path, http2: Http2ProtocolOptions | None = None) -> Cluster:
    """Reach gRPC services of the router."""
    endpoint = LbEndpoint(endpoint=Endpoint(address=pipe_address(socket)))
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=unlimited_breakers(),
        typed_extension_protocol_options=upstream_http2(http2),
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )


def state_windows() -> Http2ProtocolOptions:
    """Bound what is under way to each watcher, and so that none takes another's room."""
    return Http2ProtocolOptions(
        initial_stream_window_size=STATE_STREAM_BYTES,
        initial_connection_window_size=_LARGEST_WINDOW_BYTES,
    )


def router_service() -> GrpcService:
    """Call the router for configuration."""
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=wire.ROUTER_CLUSTER))


def requests_service(entrance: wire.Entrance | None = None) -> GrpcService:
    """Call the router about requests; about one that came in here, if that is given."""
    told = [] if entrance is None else [HeaderValue(key=wire.ENTRANCE_METADATA, value=entrance)]
    return GrpcService(
        envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=wire.REQUESTS_CLUSTER), initial_metadata=told
    )

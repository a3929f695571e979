"""What Envoy is told over ADS, as pure functions of the pools and their endpoints.

One cluster and one route per pool. Clusters and routes are rare and built with typed messages;
endpoint assignments change all the time and are built with upb (10,000 endpoints in tens of ms).
"""

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    Http1ProtocolOptions,
    HttpProtocolOptions,
    TcpKeepalive,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryBackOff,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import (
    OverrideHost,
    OverrideHostOverrideHostSource,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamProtocolOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.bootstrap import (
    HTTP_PROTOCOL_OPTIONS,
    ads_source,
    unlimited_breakers,
)
from heliostat_extproc.envoy.local_replies import error_headers
from heliostat_extproc.errors import Reason, error_answer
from heliostat_extproc.paths import PATHS_WITHOUT_ROUTER

RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
RETRIABLE_STATUS_CODES = (502, 503)
_ROUTER_RESTART_SECONDS = 2.0
_PROBE_SECONDS = 5
_PROBES = 3


class AddressError(ValueError):
    """An endpoint address is not `ip:port`, which is all that Envoy takes here."""


@dataclass(frozen=True, slots=True)
class ResourceSettings:
    """How Envoy treats every pool."""

    retries: int = 2
    """Further endpoints tried before the response headers; the fallbacks that a pick names."""
    connect_timeout_seconds: float = 1.0
    keepalive_seconds: float = 4.0
    """Idle connections are closed after this. vLLM closes them after 5 s: Envoy must be first, or
    a request is sent into a closing connection and has to be retried elsewhere."""
    silence_seconds: int = 15
    """A connection on which nothing has come for this long is probed; without an answer it is
    broken 15 s later. A node that is lost closes no connections: its requests would wait for ever.
    """


@dataclass(frozen=True, slots=True)
class Resources:
    """One consistent set of serialized resources by name, and the addresses in each cluster."""

    clusters: Mapping[str, bytes]
    assignments: Mapping[str, bytes]
    routes: Mapping[str, bytes]
    addresses: Mapping[str, frozenset[str]]


def build_resources(pools: Mapping[str, Sequence[str]], settings: ResourceSettings) -> Resources:
    """Translate pools (name -> `ip:port` addresses); AddressError names the first bad address."""
    names = sorted(pools)
    only_pool = names[0] if len(names) == 1 else None
    return Resources(
        clusters={wire.cluster_name(name): _serialized_cluster(name, settings) for name in names},
        assignments={
            wire.cluster_name(name): build_assignment(name, pools[name]) for name in names
        },
        routes={wire.ROUTES_NAME: _serialized_routes(only_pool, settings)},
        addresses={wire.cluster_name(name): frozenset(pools[name]) for name in names},
    )


@functools.lru_cache(maxsize=1024)
def _serialized_cluster(pool: str, settings: ResourceSettings) -> bytes:
    return bytes(build_cluster(pool, settings))


@functools.lru_cache(maxsize=8)
def _serialized_routes(only_pool: str | None, settings: ResourceSettings) -> bytes:
    return bytes(build_routes(only_pool, settings))


def parse_address(address: str) -> tuple[str, int]:
    """Split `ip:port` (`[ip]:port` for IPv6); AddressError where it is anything else."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") else host)
        number = int(port)
    except ValueError as error:
        raise AddressError(f"{address!r} is not ip:port") from error
    if not 0 < number < 65536 or (ip.version == 6) != host.startswith("["):
        raise AddressError(f"{address!r} is not ip:port")
    return str(ip), number


def build_assignment(pool: str, addresses: Sequence[str]) -> bytes:
    """Serialize the endpoint assignment of one pool."""
    assignment = ClusterLoadAssignment(cluster_name=wire.cluster_name(pool))
    endpoints = assignment.endpoints.add().lb_endpoints
    for address in sorted(set(addresses)):
        host, port = parse_address(address)
        socket_address = endpoints.add().endpoint.address.socket_address
        socket_address.address = host
        socket_address.port_value = port
    serialized: bytes = assignment.SerializeToString()
    return serialized


def build_cluster(pool: str, settings: ResourceSettings) -> Cluster:
    """Build a cluster that sends each request where the router says, over HTTP/1.1."""
    http1 = UpstreamProtocolOptions(
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=timedelta(seconds=settings.keepalive_seconds)
        ),
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=Http1ProtocolOptions()
        ),
    )
    return Cluster(
        name=wire.cluster_name(pool),
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ads_source()),
        connect_timeout=timedelta(seconds=settings.connect_timeout_seconds),
        upstream_connection_options=UpstreamConnectionOptions(
            tcp_keepalive=TcpKeepalive(
                keepalive_time=settings.silence_seconds,
                keepalive_interval=_PROBE_SECONDS,
                keepalive_probes=_PROBES,
            )
        ),
        circuit_breakers=unlimited_breakers(),
        typed_extension_protocol_options={HTTP_PROTOCOL_OPTIONS: Any.pack(http1)},
        load_balancing_policy=_policy(
            "envoy.load_balancing_policies.override_host",
            OverrideHost(
                override_host_sources=[
                    OverrideHostOverrideHostSource(
                        metadata=MetadataKey(
                            key=wire.LB_NAMESPACE,
                            path=[MetadataKeyPathSegment(key=wire.ENDPOINT_KEY)],
                        )
                    )
                ],
                fallback_policy=_policy(
                    "envoy.load_balancing_policies.least_request", LeastRequest()
                ),
            ),
        ),
    )


def _policy(name: str, config: OverrideHost | LeastRequest) -> LoadBalancingPolicy:
    extension = TypedExtensionConfig(name=name, typed_config=Any.pack(config))
    return LoadBalancingPolicy(
        policies=[LoadBalancingPolicyPolicy(typed_extension_config=extension)]
    )


def build_routes(only_pool: str | None, settings: ResourceSettings) -> RouteConfiguration:
    """Build the route that the router steers, and what happens to a request it has not seen.

    The router names the cluster in a header, so the routes need not change when pools do: Envoy
    keeps a request on the route table of its arrival, however long the router holds it.
    """
    steered = RouteMatch(
        prefix="/", headers=[HeaderMatcher(name=wire.CLUSTER_HEADER, present_match=True)]
    )
    routes = [_route(steered, settings, cluster_header=wire.CLUSTER_HEADER)]
    if only_pool is not None:
        cluster = wire.cluster_name(only_pool)
        routes += [
            _route(RouteMatch(path=path), settings, cluster=cluster)
            for path in sorted(PATHS_WITHOUT_ROUTER)
        ]
    routes.append(_unrouted(RouteMatch(prefix="/")))
    return RouteConfiguration(
        name=wire.ROUTES_NAME,
        virtual_hosts=[
            VirtualHost(
                name=wire.ROUTES_NAME,
                domains=["*"],
                routes=routes,
                request_headers_to_remove=[wire.CLUSTER_HEADER],
            )
        ],
    )


def _route(
    match: RouteMatch,
    settings: ResourceSettings,
    *,
    cluster: str = "",
    cluster_header: str | None = None,
) -> Route:
    action = RouteAction(
        timeout=timedelta(0),
        idle_timeout=timedelta(0),
        retry_policy=RetryPolicy(
            retry_on=RETRY_ON,
            num_retries=settings.retries,
            retriable_status_codes=list(RETRIABLE_STATUS_CODES),
            retry_back_off=RetryPolicyRetryBackOff(
                base_interval=timedelta(milliseconds=1),
                max_interval=timedelta(milliseconds=10),
            ),
        ),
    )
    if cluster_header is not None:
        action.cluster_header = cluster_header
    else:
        action.cluster = cluster
    return Route(match=match, route=action)


def _unrouted(match: RouteMatch) -> Route:
    answer = error_answer(Reason.ROUTER_UNAVAILABLE, retry_after_seconds=_ROUTER_RESTART_SECONDS)
    json_type = HeaderValueOption(header=HeaderValue(key="content-type", value="application/json"))
    return Route(
        match=match,
        direct_response=DirectResponseAction(
            status=answer.status, body=DataSource(inline_string=answer.body.decode())
        ),
        response_headers_to_add=[json_type, *error_headers(answer)],
    )

"""What Envoy is told over ADS, as pure functions of the pools and their endpoints.

One cluster and one route per pool. Clusters and routes are rare and built with typed messages;
endpoint assignments change all the time and are built with upb (10,000 endpoints in tens of ms).
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

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
    TcpKeepalive,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    RetryPolicyRetryPriority,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ExtProcPerRoute
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import (
    OverrideHost,
    OverrideHostOverrideHostSource,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import (
    PreviousPrioritiesConfig,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.apis import PATHS_WITHOUT_ROUTER
from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.addresses import AddressError, parse_address
from heliostat_extproc.envoy.client_identity import credentials_config
from heliostat_extproc.envoy.control_plane import (
    STATE_CLUSTER,
    ads_source,
    unlimited_breakers,
    upstream_protocol,
)
from heliostat_extproc.envoy.entrances import EXT_PROC, FEDERATION_ROUTES
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.federation_listeners import STATE_PATHS
from heliostat_extproc.envoy.local_replies import error_headers
from heliostat_extproc.envoy.peer_resources import (
    NO_PEERING,
    Peering,
    PeerResources,
    PeerSettings,
    build_peer_resources,
)
from heliostat_extproc.errors import Reason, error_answer
from heliostat_extproc.federation.protocol import SIGN_PATH

__all__ = ["AddressError", "ResourceSettings", "Resources", "build_resources", "parse_address"]

RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
RETRIABLE_STATUS_CODES = (502, 503)
_ROUTER_RESTART_SECONDS = 2.0
_PROBE_SECONDS = 5
_PROBES = 3
_OTHER_HOSTS_TRIED = 20
"""How often Envoy draws again where chance names an endpoint that has failed."""


@dataclass(frozen=True, slots=True)
class ResourceSettings:
    """How Envoy treats every pool, and every peer."""

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
    federation: FederationSettings | None = None
    """As Envoy's bootstrap has it; None: peers are left out."""
    peers: PeerSettings = field(default_factory=PeerSettings)


@dataclass(frozen=True, slots=True)
class Resources:
    """One consistent set of serialized resources by name, and the addresses in each cluster."""

    clusters: Mapping[str, bytes]
    assignments: Mapping[str, bytes]
    routes: Mapping[str, bytes]
    addresses: Mapping[str, frozenset[str]]
    """Of pools alone."""
    secrets: Mapping[str, bytes] = field(default_factory=dict)


def build_resources(
    pools: Mapping[str, Sequence[str]],
    settings: ResourceSettings,
    peering: Peering = NO_PEERING,
    restricted: Collection[str] = (),
    credentials: tuple[tuple[str, str], ...] | None = None,
) -> Resources:
    """Translate pools (name -> `ip:port` addresses) and what is known of other gateways.

    `restricted` pools have a rule where requests may be served, which Envoy cannot judge.
    `credentials` are the clients' API keys and whose they are; None: they need none.
    AddressError names the first bad address.
    """
    names = sorted(pools)
    default_pool = names[0] if len(names) == 1 and names[0] not in restricted else None
    clusters = {wire.cluster_name(name): _serialized_cluster(name, settings) for name in names}
    federation = settings.federation
    way_back = None if federation is None else federation.return_socket
    assignments = {
        wire.cluster_name(name): build_assignment(name, pools[name], way_back) for name in names
    }
    peers = PeerResources()
    if federation is not None:
        peers = build_peer_resources(peering, federation, settings.peers)
    return Resources(
        clusters={**clusters, **peers.clusters},
        assignments={**assignments, **peers.assignments},
        routes=_serialized_routes(default_pool, settings, credentials),
        addresses={wire.cluster_name(name): frozenset(pools[name]) for name in names},
        secrets=peers.secrets,
    )


@functools.lru_cache(maxsize=1024)
def _serialized_cluster(pool: str, settings: ResourceSettings) -> bytes:
    return bytes(build_cluster(pool, settings))


@functools.lru_cache(maxsize=8)
def _serialized_routes(
    default_pool: str | None,
    settings: ResourceSettings,
    credentials: tuple[tuple[str, str], ...] | None,
) -> Mapping[str, bytes]:
    clients = build_client_routes(default_pool, settings)
    if credentials:
        clients.virtual_hosts[0].typed_per_filter_config = credentials_config(credentials)
    tables = (
        clients,
        build_federation_routes(settings),
    )
    return {table.name: bytes(table) for table in tables}


def build_assignment(
    pool: str, addresses: Sequence[str], return_socket: Path | None = None
) -> bytes:
    """Serialize the endpoint assignment of one pool, the return listener last if there is one."""
    assignment = ClusterLoadAssignment(cluster_name=wire.cluster_name(pool))
    endpoints = assignment.endpoints.add().lb_endpoints
    for address in sorted(set(addresses)):
        host, port = parse_address(address)
        socket_address = endpoints.add().endpoint.address.socket_address
        socket_address.address = host
        socket_address.port_value = port
    if return_socket is not None:
        given_back = assignment.endpoints.add(priority=1).lb_endpoints.add()
        given_back.endpoint.address.pipe.path = str(return_socket)
    serialized: bytes = assignment.SerializeToString()
    return serialized


def build_cluster(pool: str, settings: ResourceSettings) -> Cluster:
    """Build a cluster that sends each request where the router says, over HTTP/1.1."""
    http1 = HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
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
        typed_extension_protocol_options=upstream_protocol(
            http1, idle_timeout=timedelta(seconds=settings.keepalive_seconds)
        ),
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


def build_client_routes(default_pool: str | None, settings: ResourceSettings) -> RouteConfiguration:
    """Build the routes of clients.

    A request that the router has not seen goes to the default pool, unless it says where it may be
    served.
    """
    routes = _steered_routes(settings)
    if default_pool is not None:
        cluster = wire.cluster_name(default_pool)
        retry = _elsewhere(settings.retries)
        anywhere = HeaderMatcher(
            name=wire.CLIENT_RESIDENCY_HEADER, present_match=True, invert_match=True
        )
        routes += [
            _route(RouteMatch(path=path, headers=[anywhere]), retry, cluster)
            for path in sorted(PATHS_WITHOUT_ROUTER)
        ]
    return _table(wire.ROUTES_NAME, routes)


def build_federation_routes(settings: ResourceSettings) -> RouteConfiguration:
    """Build the routes of other gateways.

    What the router has not seen goes back: only the router knows who may be served with what.
    """
    return _table(FEDERATION_ROUTES, [_sign_route(), _state_route(), *_steered_routes(settings)])


def _steered_routes(settings: ResourceSettings) -> list[Route]:
    """Give the routes that the router steers.

    It names the cluster in a header, so the routes need not change when pools do: Envoy keeps a
    request on the route table of its arrival, however long the router holds it.
    """
    to_peers = _route(_steered(StringMatcher(prefix=wire.peer_cluster(""))), _way_back(1), None)
    fallbacks = settings.retries
    retry = _retry_policy(fallbacks) if settings.federation is None else _way_back(fallbacks + 1)
    to_pools = _route(_steered(None), retry, None)
    to_pools.request_headers_to_remove = list(wire.PEER_HEADERS)
    return [to_peers, to_pools]


def _table(name: str, routes: Sequence[Route]) -> RouteConfiguration:
    """Make a route table of these; what no route matches is refused."""
    host = VirtualHost(
        name=name,
        domains=["*"],
        routes=[*routes, _unrouted(RouteMatch(prefix="/"))],
        request_headers_to_remove=[wire.CLUSTER_HEADER, wire.TENANT_HEADER],
    )
    return RouteConfiguration(name=name, virtual_hosts=[host])


def _steered(cluster: StringMatcher | None) -> RouteMatch:
    """Match what the router sends to such a cluster, or to any."""
    header = HeaderMatcher(name=wire.CLUSTER_HEADER)
    if cluster is None:
        header.present_match = True
    else:
        header.string_match = cluster
    return RouteMatch(prefix="/", headers=[header])


def _route(match: RouteMatch, retry: RetryPolicy, cluster: str | None) -> Route:
    """Send requests to this cluster, or to the one that the router names."""
    action = RouteAction(timeout=timedelta(0), idle_timeout=timedelta(0), retry_policy=retry)
    if cluster is None:
        action.cluster_header = wire.CLUSTER_HEADER
    else:
        action.cluster = cluster
    return Route(match=match, route=action)


def _state_route() -> Route:
    """Lead peers' state streams to the router itself, which is not asked where they go."""
    return Route(
        match=RouteMatch(prefix=STATE_PATHS),
        route=RouteAction(cluster=STATE_CLUSTER, timeout=timedelta(0), idle_timeout=timedelta(0)),
        typed_per_filter_config={EXT_PROC: Any.pack(ExtProcPerRoute(disabled=True))},
    )


def _sign_route() -> Route:
    """Answer without the router that there is nothing here, which is a sign of life."""
    return Route(
        match=RouteMatch(path=SIGN_PATH),
        direct_response=DirectResponseAction(status=404),
        typed_per_filter_config={EXT_PROC: Any.pack(ExtProcPerRoute(disabled=True))},
    )


def _retry_policy(retries: int) -> RetryPolicy:
    return RetryPolicy(
        retry_on=RETRY_ON,
        num_retries=retries,
        retriable_status_codes=list(RETRIABLE_STATUS_CODES),
        retry_back_off=RetryPolicyRetryBackOff(
            base_interval=timedelta(milliseconds=1), max_interval=timedelta(milliseconds=10)
        ),
    )


def _elsewhere(retries: int) -> RetryPolicy:
    """Retry where it has not been tried: with no pick, chance could name the same endpoint again.

    One that refuses at once is the least loaded, so chance would even prefer it.
    """
    policy = _retry_policy(retries)
    policy.host_selection_retry_max_attempts = _OTHER_HOSTS_TRIED
    policy.retry_host_predicate = [
        RetryPolicyRetryHostPredicate(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=Any.pack(PreviousHostsPredicate()),
        )
    ]
    return policy


def _way_back(retries: int) -> RetryPolicy:
    """Retry at whatever the router has named, and then at a priority that has not been tried.

    There is the return: its answer is final, a 503 too, for the router has given it.
    """
    policy = _retry_policy(retries)
    policy.retry_priority = RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=Any.pack(PreviousPrioritiesConfig(update_frequency=1)),
    )
    return policy


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

"""Envoy's static configuration, as a pure function of a few settings.

Only what must not change under load is static: the listener (an update would drain long streams),
the way to the router, and the logs. Routes, clusters and endpoints come over ADS.
docs/envoy.md says why each value that is not Envoy's default is there.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
)
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    Node,
    Pipe,
    SocketAddress,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.metrics.v3 import StatsConfig, StatsMatcher
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import (
    Router,
    RouterUpstreamAccessLogOptions,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerServerHeaderTransformation,
    HttpFilter,
    Rds,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamProtocolOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, StringMatcher
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag
from envoy_data_plane.google.protobuf import Any, Struct

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.client_tls import ClientTls, tls_socket
from heliostat_extproc.envoy.local_replies import local_reply_config
from heliostat_extproc.envoy.readiness import readiness_listener
from heliostat_extproc.envoy.response_filters import stream_error_filter, token_usage_filter

UNLIMITED = 2**31 - 1
HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_STAT_PREFIX = "gateway"
ACTIVE_REQUESTS_STAT = f"http.{_STAT_PREFIX}.downstream_rq_active"
"""Requests of clients that Envoy has accepted and not yet answered to the end."""

_KEPT_STATS = (
    f"http.{_STAT_PREFIX}.",
    "cluster.pool",
    "cluster.router.upstream_rq_active",
    "cluster_manager.",
    "control_plane.",
    "listener_manager.",
    "server.",
)


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """Where Envoy listens, where the router is, and the limits of the listener."""

    router_socket: Path
    """The Unix socket on which the router serves ext_proc, ADS and the access log."""
    admin: Path | int
    """Envoy's own admin interface: a Unix socket, or a port on loopback."""
    listen_address: str = "0.0.0.0"  # noqa: S104 - a gateway listens for everyone
    listen_port: int = 8080
    client_tls: ClientTls | None = None
    """TLS for clients, beside HTTP."""
    ready_port: int | None = None
    """Where Envoy says whether it should get traffic; None: nowhere."""
    node_id: str = "heliostat"
    body_limit_bytes: int = 32 * 1024 * 1024
    """The largest request body; a larger one is answered 413. Conversations with images reach
    tens of megabytes, and each request holds its body in memory until it is answered."""
    message_timeout_seconds: float = 1.0
    """How long the router may think about one message before the request goes on without it."""
    max_hold_seconds: float = 3600.0
    """The longest hold that the router may ask for."""
    log_flush_seconds: float = 0.05
    """How long a log entry may wait for others: the ledger learns of a retry this late."""
    max_client_connections: int = 50_000
    """Connections of clients beyond which new ones are closed: each costs Envoy memory."""
    request_headers_timeout_seconds: float = 30.0
    """For a client that never ends its headers."""
    request_timeout_seconds: float = 300.0
    """For a client that never ends its body."""
    runtime: dict[str, object] = field(default_factory=dict)
    """Envoy runtime flags to add."""


def bootstrap_json(settings: BootstrapSettings) -> str:
    """Write the bootstrap file of an Envoy that serves this router."""
    return build_bootstrap(settings).to_json(indent=2)


def build_bootstrap(settings: BootstrapSettings) -> Bootstrap:
    """Build the bootstrap of an Envoy that serves this router."""
    return Bootstrap(
        node=Node(id=settings.node_id, cluster="heliostat"),
        admin=Admin(address=_admin_address(settings.admin)),
        static_resources=BootstrapStaticResources(
            listeners=_listeners(settings), clusters=[_router_cluster(settings)]
        ),
        dynamic_resources=BootstrapDynamicResources(
            ads_config=ApiConfigSource(
                api_type=ApiConfigSourceApiType.GRPC,
                transport_api_version=ApiVersion.V3,
                grpc_services=[_router_service()],
                set_node_on_first_message_only=True,
            ),
            cds_config=ads_source(),
        ),
        overload_manager=_overload_manager(settings),
        layered_runtime=LayeredRuntime(layers=[_runtime(settings)]),
        stats_config=StatsConfig(
            stats_matcher=StatsMatcher(
                inclusion_list=ListStringMatcher(
                    patterns=[StringMatcher(prefix=prefix) for prefix in _KEPT_STATS]
                )
            )
        ),
    )


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


def _overload_manager(settings: BootstrapSettings) -> OverloadManager:
    limit = DownstreamConnectionsConfig(
        max_active_downstream_connections=settings.max_client_connections
    )
    monitor = ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections",
        typed_config=Any.pack(limit),
    )
    return OverloadManager(resource_monitors=[monitor])


def _runtime(settings: BootstrapSettings) -> RuntimeLayer:
    flags = {"envoy.reloadable_features.ext_proc_graceful_grpc_close": True, **settings.runtime}
    return RuntimeLayer(name="static", static_layer=Struct.from_dict(flags))


def _router_cluster(settings: BootstrapSettings) -> Cluster:
    http2 = UpstreamProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions()
        )
    )
    endpoint = LbEndpoint(endpoint=Endpoint(address=_pipe(settings.router_socket)))
    return Cluster(
        name=wire.ROUTER_CLUSTER,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=unlimited_breakers(),
        typed_extension_protocol_options={HTTP_PROTOCOL_OPTIONS: Any.pack(http2)},
        load_assignment=ClusterLoadAssignment(
            cluster_name=wire.ROUTER_CLUSTER,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
    )


def _listeners(settings: BootstrapSettings) -> list[Listener]:
    listeners = [_client_listener("clients", settings.listen_port, settings)]
    tls = settings.client_tls
    if tls is not None:
        listener = _client_listener("clients-tls", tls.port, settings)
        listener.filter_chains[0].transport_socket = tls_socket(tls)
        listeners.append(listener)
    if settings.ready_port is not None:
        listeners.append(readiness_listener(_socket_address(settings, settings.ready_port)))
    return listeners


def _client_listener(name: str, port: int, settings: BootstrapSettings) -> Listener:
    manager = Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Any.pack(_connection_manager(settings)),
    )
    return Listener(
        enable_reuse_port=False,
        name=name,
        address=Address(socket_address=_socket_address(settings, port)),
        filter_chains=[FilterChain(filters=[manager])],
        per_connection_buffer_limit_bytes=settings.body_limit_bytes,
    )


def _socket_address(settings: BootstrapSettings, port: int) -> SocketAddress:
    host = settings.listen_address
    return SocketAddress(address=host, port_value=port, ipv4_compat=host == "::")


def _connection_manager(settings: BootstrapSettings) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix=_STAT_PREFIX,
        rds=Rds(route_config_name=wire.ROUTES_NAME, config_source=ads_source()),
        http_filters=[
            _ext_proc(settings),
            token_usage_filter(),
            stream_error_filter(),
            _router(settings),
        ],
        early_header_mutation_extensions=[_strip_untrusted_headers()],
        local_reply_config=local_reply_config(),
        access_log=[_request_log(settings)],
        use_remote_address=True,
        generate_request_id=False,
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        stream_idle_timeout=timedelta(0),
        request_headers_timeout=timedelta(seconds=settings.request_headers_timeout_seconds),
        request_timeout=timedelta(seconds=settings.request_timeout_seconds),
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=timedelta(hours=1)),
        normalize_path=True,
        merge_slashes=True,
    )


def _strip_untrusted_headers() -> TypedExtensionConfig:
    mutations = [
        HeaderMutation(
            remove_on_match=HeaderMutationRemoveOnMatch(
                key_matcher=StringMatcher(prefix=prefix, ignore_case=True)
            )
        )
        for prefix in wire.UNTRUSTED_HEADER_PREFIXES
    ]
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(EarlyHeaderMutation(mutations=mutations)),
    )


def _ext_proc(settings: BootstrapSettings) -> HttpFilter:
    writable = MetadataOptionsMetadataNamespaces(untyped=[wire.LB_NAMESPACE, wire.ROUTER_NAMESPACE])
    processor = ExternalProcessor(
        grpc_service=_router_service(),
        failure_mode_allow=True,
        message_timeout=timedelta(seconds=settings.message_timeout_seconds),
        max_message_timeout=timedelta(seconds=settings.max_hold_seconds),
        metadata_options=MetadataOptions(receiving_namespaces=writable),
        processing_mode=ProcessingMode(
            request_header_mode=ProcessingModeHeaderSendMode.SEND,
            request_body_mode=ProcessingModeBodySendMode.BUFFERED,
            request_trailer_mode=ProcessingModeHeaderSendMode.SKIP,
            response_header_mode=ProcessingModeHeaderSendMode.SKIP,
            response_body_mode=ProcessingModeBodySendMode.NONE,
            response_trailer_mode=ProcessingModeHeaderSendMode.SKIP,
        ),
    )
    return HttpFilter(name="envoy.filters.http.ext_proc", typed_config=Any.pack(processor))


def _router(settings: BootstrapSettings) -> HttpFilter:
    router = Router(
        suppress_envoy_headers=True,
        upstream_log=[_grpc_log(wire.ATTEMPT_LOG, settings, request_headers=[wire.TICKET_HEADER])],
        upstream_log_options=RouterUpstreamAccessLogOptions(
            flush_upstream_log_on_upstream_stream=True
        ),
    )
    return HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router))


def _request_log(settings: BootstrapSettings) -> AccessLog:
    ttft = CustomTag(tag=wire.TTFT_TAG, value="%COMMON_DURATION(US_TX_BEG:US_RX_BODY_BEG:us)%")
    return _grpc_log(wire.REQUEST_LOG, settings, tags=[ttft], response_headers=["content-type"])


def _grpc_log(
    name: str,
    settings: BootstrapSettings,
    tags: list[CustomTag] | None = None,
    request_headers: list[str] | None = None,
    response_headers: list[str] | None = None,
) -> AccessLog:
    config = HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name=name,
            grpc_service=_router_service(),
            transport_api_version=ApiVersion.V3,
            buffer_flush_interval=timedelta(seconds=settings.log_flush_seconds),
            custom_tags=tags or [],
        ),
        additional_request_headers_to_log=request_headers or [],
        additional_response_headers_to_log=response_headers or [],
    )
    return AccessLog(name="envoy.access_loggers.http_grpc", typed_config=Any.pack(config))


def _router_service() -> GrpcService:
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=wire.ROUTER_CLUSTER))


def _admin_address(admin: Path | int) -> Address:
    if isinstance(admin, Path):
        return _pipe(admin)
    return Address(socket_address=SocketAddress(address="127.0.0.1", port_value=admin))


def _pipe(path: Path) -> Address:
    return Address(pipe=Pipe(path=str(path)))

"""Envoy's static configuration, as a pure function of a few settings.

Only what must not change under load is static: the listeners (an update would drain long streams),
the way to the router, and the logs. A drain ends the listeners that are inbound: those by which
others come in, not those within the pod. Routes, clusters, endpoints and the region's certificate
come over ADS. docs/envoy.md says why each value that is not Envoy's default is there.
"""

from pathlib import Path

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    Node,
    TrafficDirection,
)
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener
from envoy_data_plane.envoy.config.metrics.v3 import StatsConfig, StatsMatcher
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any, Struct

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.active_requests import STATE_STREAMS_STAT
from heliostat_extproc.envoy.addresses import (
    pipe_address,
    requests_socket,
    state_socket,
    tcp_address,
)
from heliostat_extproc.envoy.client_identity import issuer_cluster
from heliostat_extproc.envoy.client_tls import tls_socket
from heliostat_extproc.envoy.control_plane import (
    STATE_CLUSTER,
    ads_source,
    router_cluster,
    router_service,
    state_windows,
)
from heliostat_extproc.envoy.entrances import connection_manager
from heliostat_extproc.envoy.federation_listeners import federation_listeners, internal_listeners
from heliostat_extproc.envoy.readiness import readiness_listener
from heliostat_extproc.envoy.settings import BootstrapSettings
from heliostat_extproc.envoy.tracing import collector_cluster
from heliostat_extproc.envoy.wire import Entrance

__all__ = ["BootstrapSettings", "bootstrap_json", "build_bootstrap"]

_KEPT_STATS = (
    "http.gateway.",
    "http.federation.",
    "http.return.",
    "listener.federation.ssl.",
    "cluster.pool",
    "cluster.peer",
    "cluster.connection",
    "cluster.link",
    STATE_STREAMS_STAT,
    f"cluster.{wire.REQUESTS_CLUSTER}.upstream_rq_active",
    "cluster_manager.",
    "control_plane.",
    "listener_manager.",
    "server.",
)


def bootstrap_json(settings: BootstrapSettings) -> str:
    """Write the bootstrap file of an Envoy that serves this router."""
    return build_bootstrap(settings).to_json(indent=2)


def build_bootstrap(settings: BootstrapSettings) -> Bootstrap:
    """Build the bootstrap of an Envoy that serves this router."""
    requests = requests_socket(settings.router_socket)
    clusters = [
        router_cluster(wire.ROUTER_CLUSTER, settings.router_socket),
        router_cluster(wire.REQUESTS_CLUSTER, requests),
    ]
    extensions = []
    if settings.federation is not None:
        state = state_socket(settings.router_socket)
        clusters.append(router_cluster(STATE_CLUSTER, state, state_windows()))
        extensions.append(internal_listeners())
    if settings.traces is not None:
        clusters.append(collector_cluster(settings.traces))
    identity = settings.client_identity
    if identity is not None and identity.tokens is not None:
        clusters.append(issuer_cluster(identity.tokens))
    return Bootstrap(
        node=Node(id=settings.node_id, cluster="heliostat"),
        admin=Admin(address=_admin_address(settings.admin)),
        static_resources=BootstrapStaticResources(
            listeners=_listeners(settings), clusters=clusters
        ),
        dynamic_resources=BootstrapDynamicResources(
            ads_config=ApiConfigSource(
                api_type=ApiConfigSourceApiType.GRPC,
                transport_api_version=ApiVersion.V3,
                grpc_services=[router_service()],
                set_node_on_first_message_only=True,
            ),
            cds_config=ads_source(),
        ),
        bootstrap_extensions=extensions,
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


def _listeners(settings: BootstrapSettings) -> list[Listener]:
    listeners = [_client_listener("clients", settings.listen_port, settings)]
    tls = settings.client_tls
    if tls is not None:
        listener = _client_listener("clients-tls", tls.port, settings)
        listener.filter_chains[0].transport_socket = tls_socket(tls)
        listeners.append(listener)
    if settings.ready_port is not None:
        address = tcp_address(settings.listen_address, settings.ready_port)
        listeners.append(readiness_listener(address))
    if settings.federation is not None:
        listeners.extend(federation_listeners(settings.federation, settings))
    return listeners


def _client_listener(name: str, port: int, settings: BootstrapSettings) -> Listener:
    return Listener(
        enable_reuse_port=False,
        name=name,
        traffic_direction=TrafficDirection.INBOUND,
        address=tcp_address(settings.listen_address, port),
        filter_chains=[FilterChain(filters=[connection_manager(Entrance.CLIENTS, settings)])],
        per_connection_buffer_limit_bytes=settings.body_limit_bytes,
    )


def _admin_address(admin: Path | int) -> Address:
    return pipe_address(admin) if isinstance(admin, Path) else tcp_address("127.0.0.1", admin)

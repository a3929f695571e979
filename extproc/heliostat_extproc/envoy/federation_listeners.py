"""Envoy's listeners for federation: for peers, for what they give back, and for the router's links.

A fourth one, inside Envoy, carries the connections to peers. HTTP connection pools only drain when
a host becomes unhealthy; a TCP proxy ends its connections at once (measured), and with them all
that is under way on them comes back.
"""

from datetime import timedelta
from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    SubstitutionFormatString,
    TrafficDirection,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import (
    Filter,
    FilterChain,
    Listener,
    ListenerInternalListenerConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.bootstrap.internal_listener.v3 import InternalListener
from envoy_data_plane.envoy.extensions.filters.common.set_filter_state.v3 import FilterStateValue
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.filters.network.set_filter_state.v3 import (
    Config as SetFilterState,
)
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import TcpProxy
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.addresses import own_pipe_address, tcp_address
from heliostat_extproc.envoy.entrances import (
    connection_manager,
    early_mutation,
    http_filter_chain,
    set_header,
)
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.region_tls import peers_socket
from heliostat_extproc.envoy.settings import BootstrapSettings
from heliostat_extproc.envoy.wire import Entrance

STATE_PATHS = "/heliostat.v1.State/"
CONNECTIONS_LISTENER = "peer-connections"
CONNECTION_METADATA = "heliostat.connection"
CONNECTION_CLUSTER_KEY = "cluster"
"""Metadata `heliostat.connection` / this key of an endpoint: where its connections go."""

_HANDSHAKE_SECONDS = 10
_CONNECT_ATTEMPTS = 2


def federation_listeners(
    federation: FederationSettings, settings: BootstrapSettings
) -> list[Listener]:
    """Give all listeners that federation needs."""
    peers = Listener(
        name="federation",
        address=tcp_address(federation.listen_address, federation.listen_port),
        traffic_direction=TrafficDirection.INBOUND,
        enable_reuse_port=False,
        filter_chains=[
            FilterChain(
                filters=[connection_manager(Entrance.FEDERATION, settings)],
                transport_socket=peers_socket(),
                transport_socket_connect_timeout=timedelta(seconds=_HANDSHAKE_SECONDS),
            )
        ],
        per_connection_buffer_limit_bytes=settings.body_limit_bytes,
    )
    given_back = _pod_listener(
        "return", federation.return_socket, connection_manager(Entrance.RETURN, settings)
    )
    given_back.per_connection_buffer_limit_bytes = settings.body_limit_bytes
    links = _pod_listener("links", federation.links_socket, _links_manager())
    return [peers, given_back, links, _connections_listener()]


def internal_listeners() -> TypedExtensionConfig:
    """Let Envoy have listeners inside itself."""
    return TypedExtensionConfig(
        name="envoy.bootstrap.internal_listener", typed_config=Any.pack(InternalListener())
    )


def _pod_listener(name: str, socket: Path, manager: Filter) -> Listener:
    return Listener(
        name=name,
        address=own_pipe_address(socket),
        filter_chains=[FilterChain(filters=[manager])],
        # A crowd of clients must not keep requests from coming back, nor cut the links.
        ignore_global_conn_limit=True,
    )


def _links_manager() -> Filter:
    """Send each state stream to the cluster of its `:authority`, as it is declared now."""
    state = Route(
        match=RouteMatch(prefix=STATE_PATHS),
        route=RouteAction(
            cluster_header=wire.CLUSTER_HEADER, timeout=timedelta(0), idle_timeout=timedelta(0)
        ),
    )
    host = VirtualHost(
        name="links",
        domains=["*"],
        routes=[state],
        request_headers_to_remove=[wire.CLUSTER_HEADER, wire.DECLARATION_HEADER],
    )
    cluster = wire.link_cluster("%REQ(:authority)%", f"%REQ({wire.DECLARATION_HEADER})%")
    to_cluster = set_header(wire.CLUSTER_HEADER, cluster)
    return http_filter_chain(
        HttpConnectionManager(
            stat_prefix="links",
            codec_type=HttpConnectionManagerCodecType.HTTP2,
            route_config=RouteConfiguration(name="links", virtual_hosts=[host]),
            http_filters=[
                HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router()))
            ],
            early_header_mutation_extensions=[early_mutation([to_cluster])],
            stream_idle_timeout=timedelta(0),
            generate_request_id=False,
        )
    )


def _connections_listener() -> Listener:
    cluster = f"%DYNAMIC_METADATA({CONNECTION_METADATA}:{CONNECTION_CLUSTER_KEY})%"
    choose = SetFilterState(
        on_new_connection=[
            FilterStateValue(
                object_key="envoy.tcp_proxy.cluster",
                format_string=SubstitutionFormatString(
                    text_format_source=DataSource(inline_string=cluster)
                ),
            )
        ]
    )
    proxy = TcpProxy(
        stat_prefix=CONNECTIONS_LISTENER,
        cluster="none",
        idle_timeout=timedelta(0),
        max_connect_attempts=_CONNECT_ATTEMPTS,
    )
    return Listener(
        name=CONNECTIONS_LISTENER,
        internal_listener=ListenerInternalListenerConfig(),
        filter_chains=[
            FilterChain(
                filters=[
                    Filter(
                        name="envoy.filters.network.set_filter_state",
                        typed_config=Any.pack(choose),
                    ),
                    Filter(name="envoy.filters.network.tcp_proxy", typed_config=Any.pack(proxy)),
                ]
            )
        ],
        ignore_global_conn_limit=True,
    )

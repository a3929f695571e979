"""A port that says whether this Envoy should get traffic, and nothing else.

Envoy's admin interface can say it too, but whoever reaches that can also stop Envoy. Listeners open
once Envoy has its first configuration, so an answer at all means that it has one.
"""

from envoy_data_plane.envoy.config.core.v3 import Address, TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.health_check.v3 import HealthCheck
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

READY_PATH = "/ready"
_NAME = "readiness"


def readiness_listener(address: Address) -> Listener:
    """Answer `/ready` with 200, or with 503 from `/healthcheck/fail` on; anything else with 404."""
    manager = Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Any.pack(_connection_manager()),
    )
    return Listener(
        name=_NAME,
        address=address,
        traffic_direction=TrafficDirection.INBOUND,
        filter_chains=[FilterChain(filters=[manager])],
        enable_reuse_port=False,
        # A crowd of clients must not look like a gateway that is not ready.
        ignore_global_conn_limit=True,
    )


def _connection_manager() -> HttpConnectionManager:
    path = HeaderMatcher(name=":path", string_match=StringMatcher(exact=READY_PATH))
    check = HealthCheck(pass_through_mode=False, headers=[path])
    nothing = Route(match=RouteMatch(prefix="/"), direct_response=DirectResponseAction(status=404))
    return HttpConnectionManager(
        stat_prefix=_NAME,
        route_config=RouteConfiguration(
            name=_NAME,
            virtual_hosts=[VirtualHost(name=_NAME, domains=["*"], routes=[nothing])],
        ),
        http_filters=[
            HttpFilter(name="envoy.filters.http.health_check", typed_config=Any.pack(check)),
            HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router())),
        ],
        generate_request_id=False,
    )

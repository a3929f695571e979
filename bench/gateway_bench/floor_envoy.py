"""An Envoy as plain as can be: one port asks the floor where a request goes, one asks nobody.

What Heliostat's Envoy costs beyond it buys the access logs, the token counts and the routes.
"""

import json
from pathlib import Path
from typing import Any

from gateway_bench.floor import ENDPOINT_KEY

_BODY_BYTES = 32 * 1024 * 1024
_TYPES = "type.googleapis.com/envoy.extensions"
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
}


def floor_envoy_json(floor_socket: Path, floor_port: int, direct_port: int, endpoint: str) -> str:
    """Write its configuration."""
    host, _, port = endpoint.rpartition(":")
    engines = _cluster("engines", {"socket_address": _tcp(host, int(port))})
    engines["load_balancing_policy"] = {"policies": [{"typed_extension_config": _override()}]}
    floor = _cluster("floor", {"pipe": {"path": str(floor_socket)}})
    floor["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    listeners = [
        _listener("floor", floor_port, [_ext_proc(), _ROUTER]),
        _listener("direct", direct_port, [_ROUTER]),
    ]
    resources = {"listeners": listeners, "clusters": [engines, floor]}
    return json.dumps({"static_resources": resources})


def _tcp(host: str, port: int) -> dict[str, object]:
    return {"address": host, "port_value": port}


def _cluster(name: str, address: dict[str, object]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    most = {"max_connections": 10**6, "max_pending_requests": 10**6, "max_requests": 10**6}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _override() -> dict[str, object]:
    least_request = {
        "name": "envoy.load_balancing_policies.least_request",
        "typed_config": {
            "@type": f"{_TYPES}.load_balancing_policies.least_request.v3.LeastRequest"
        },
    }
    return {
        "name": "envoy.load_balancing_policies.override_host",
        "typed_config": {
            "@type": f"{_TYPES}.load_balancing_policies.override_host.v3.OverrideHost",
            "override_host_sources": [
                {"metadata": {"key": "envoy.lb", "path": [{"key": ENDPOINT_KEY}]}}
            ],
            "fallback_policy": {"policies": [{"typed_extension_config": least_request}]},
        },
    }


def _ext_proc() -> dict[str, object]:
    return {
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": "floor"}},
            "message_timeout": "5s",
            "metadata_options": {"receiving_namespaces": {"untyped": ["envoy.lb"]}},
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": "BUFFERED",
                "response_header_mode": "SKIP",
            },
        },
    }


def _listener(name: str, port: int, filters: list[dict[str, Any]]) -> dict[str, object]:
    route = {"cluster": "engines", "timeout": "0s"}
    hosts = [
        {"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
    ]
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "http_filters": filters,
        "route_config": {"name": name, "virtual_hosts": hosts},
    }
    chain = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager,
            }
        ]
    }
    return {
        "name": name,
        "address": {"socket_address": _tcp("127.0.0.1", port)},
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": _BODY_BYTES,
        "filter_chains": [chain],
    }

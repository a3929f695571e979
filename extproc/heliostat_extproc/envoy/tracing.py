"""Envoy's own spans: it takes part in W3C traces, and tells a collector of each hop.

The router's decision is a child of the span that Envoy has for its call, whose context comes with
the call. So one sampling decision, Envoy's or that of whoever has sent the request, is for all.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerTracing,
    RequestIdExtension,
)
from envoy_data_plane.envoy.extensions.request_id.uuid.v3 import UuidRequestIdConfig
from envoy_data_plane.envoy.extensions.tracers.opentelemetry.samplers.v3 import (
    ParentBasedSamplerConfig,
    TraceIdRatioBasedSamplerConfig,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy.addresses import tcp_address
from heliostat_extproc.envoy.control_plane import upstream_http2
from heliostat_extproc.observing.trace_settings import TraceSettings

COLLECTOR_CLUSTER = "trace-collector"
_LONGEST_PATH = 128
_MILLION = 1_000_000


def give_request_id(manager: HttpConnectionManager) -> None:
    """Give each request an id, or keep the one that it has, and tell the client."""
    manager.generate_request_id = True
    manager.preserve_external_request_id = True
    manager.always_set_request_id_in_response = True
    # An id that a client has chosen stays as it is, and decides nothing: the sampler does.
    config = UuidRequestIdConfig(pack_trace_reason=False, use_request_id_for_trace_sampling=False)
    manager.request_id_extension = RequestIdExtension(typed_config=Any.pack(config))


def trace(manager: HttpConnectionManager, settings: TraceSettings) -> None:
    """Take part in traces."""
    config = OpenTelemetryConfig(
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=COLLECTOR_CLUSTER)),
        service_name=f"{settings.service}-gateway",
        sampler=_sampler(settings.sample_ratio),
    )
    manager.tracing = HttpConnectionManagerTracing(
        max_path_tag_length=_LONGEST_PATH,
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=Any.pack(config)),
    )


def _sampler(ratio: float) -> TypedExtensionConfig:
    """Do as whoever has sent the request; of what has no trace yet, record this share."""
    parts = FractionalPercent(
        numerator=round(ratio * _MILLION), denominator=FractionalPercentDenominatorType.MILLION
    )
    by_ratio = _named(
        "trace_id_ratio_based", TraceIdRatioBasedSamplerConfig(sampling_percentage=parts)
    )
    return _named("parent_based", ParentBasedSamplerConfig(wrapped_sampler=by_ratio))


def _named(
    name: str, config: TraceIdRatioBasedSamplerConfig | ParentBasedSamplerConfig
) -> TypedExtensionConfig:
    return TypedExtensionConfig(
        name=f"envoy.tracers.opentelemetry.samplers.{name}", typed_config=Any.pack(config)
    )


def collector_cluster(settings: TraceSettings) -> Cluster:
    """Reach the collector."""
    host, _, port = settings.collector.rpartition(":")
    address = tcp_address(host.strip("[]"), int(port))
    endpoint = LbEndpoint(endpoint=Endpoint(address=address))
    return Cluster(
        name=COLLECTOR_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=timedelta(seconds=1),
        typed_extension_protocol_options=upstream_http2(),
        load_assignment=ClusterLoadAssignment(
            cluster_name=COLLECTOR_CLUSTER,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
    )

"""How Envoy treats what comes in by each of its entrances, before and while it asks the router.

docs/envoy.md says why each value that is not Envoy's default is there.
"""

from collections.abc import Sequence
from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
    HeaderMutationRules,
)
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    KeepaliveSettings,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter
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
    HttpConnectionManagerCodecType,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerServerHeaderTransformation,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpFilter,
    Rds,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.active_requests import STAT_PREFIXES
from heliostat_extproc.envoy.client_identity import identity_filter
from heliostat_extproc.envoy.control_plane import ads_source, requests_service
from heliostat_extproc.envoy.local_replies import local_reply_config
from heliostat_extproc.envoy.response_filters import stream_error_filter, token_usage_filter
from heliostat_extproc.envoy.settings import BootstrapSettings
from heliostat_extproc.envoy.tracing import give_request_id, trace
from heliostat_extproc.envoy.wire import Entrance

EXT_PROC = "envoy.filters.http.ext_proc"
FEDERATION_ROUTES = "federation"

_PEER_TERMS = (wire.ORIGIN_HEADER, wire.HOLD_HEADER, wire.RESIDENCY_HEADER)
_KEPT_PREFIX = "x-kept-"
_MOST_HEADERS = 160
_MOST_HEADERS_KIB = 96
"""More than the router takes of a client: what it adds must not be too much for Envoy."""
_LEAST_WINDOW_BYTES = 65_535
_CONNECTION_WINDOW_BYTES = 24 * 1024 * 1024
_KEEPALIVE = KeepaliveSettings(interval=timedelta(seconds=5), timeout=timedelta(seconds=10))


def connection_manager(entrance: Entrance, settings: BootstrapSettings) -> Filter:
    """Serve HTTP at an entrance: the router says where each request goes."""
    manager = HttpConnectionManager(
        stat_prefix=STAT_PREFIXES[entrance],
        rds=Rds(route_config_name=wire.ROUTES_NAME, config_source=ads_source()),
        http_filters=[
            _ext_proc(entrance, settings),
            token_usage_filter(),
            stream_error_filter(),
            _router(settings),
        ],
        http2_protocol_options=http2_options(settings.body_limit_bytes),
        local_reply_config=local_reply_config(),
        access_log=[_request_log(settings)],
        use_remote_address=True,
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        stream_idle_timeout=timedelta(0),
        request_headers_timeout=timedelta(seconds=settings.request_headers_timeout_seconds),
        request_timeout=timedelta(seconds=settings.request_timeout_seconds),
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=timedelta(hours=1), max_headers_count=_MOST_HEADERS
        ),
        max_request_headers_kb=_MOST_HEADERS_KIB,
        http_protocol_options=Http1ProtocolOptions(
            accept_http_10=True, default_host_for_http_10="heliostat"
        ),
        normalize_path=True,
        merge_slashes=True,
    )
    give_request_id(manager)
    if settings.traces is not None:
        trace(manager, settings.traces)
    match entrance:
        case Entrance.CLIENTS:
            manager.early_header_mutation_extensions = [early_mutation(_strip_untrusted())]
            if settings.client_identity is not None:
                manager.http_filters.insert(0, identity_filter(settings.client_identity))
        case Entrance.FEDERATION:
            _admit_peers(manager)
        case Entrance.RETURN:
            # Where it goes while the router is away. The router's word takes the place of this.
            home = wire.cluster_name(f"%REQ({wire.POOL_HEADER})%")
            to_home = early_mutation([set_header(wire.CLUSTER_HEADER, home)])
            manager.early_header_mutation_extensions = [to_home]
            # It is the same request still: its client's address stays as it was told.
            manager.use_remote_address = False
            manager.skip_xff_append = True
    return http_filter_chain(manager)


def http_filter_chain(manager: HttpConnectionManager) -> Filter:
    """Put a connection manager into a listener."""
    return Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager)
    )


def http2_options(body_limit_bytes: int) -> Http2ProtocolOptions:
    """Take bodies of the largest size: of a stream Envoy buffers its window at most.

    Pings end the connections of those who are gone without a word.
    """
    return Http2ProtocolOptions(
        initial_stream_window_size=max(body_limit_bytes, _LEAST_WINDOW_BYTES),
        initial_connection_window_size=max(body_limit_bytes, _CONNECTION_WINDOW_BYTES),
        connection_keepalive=_KEEPALIVE,
    )


def early_mutation(mutations: Sequence[HeaderMutation]) -> TypedExtensionConfig:
    """Change request headers before any filter and any route sees them."""
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(EarlyHeaderMutation(mutations=list(mutations))),
    )


def set_header(name: str, value: str) -> HeaderMutation:
    """Set a header to what the format gives; without a value it is left out."""
    return HeaderMutation(
        append=HeaderValueOption(
            header=HeaderValue(key=name, value=value),
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )


def _admit_peers(manager: HttpConnectionManager) -> None:
    manager.codec_type = HttpConnectionManagerCodecType.HTTP2
    manager.rds = Rds(route_config_name=FEDERATION_ROUTES, config_source=ads_source())
    manager.early_header_mutation_extensions = [early_mutation(_strip_all_but_peer_terms())]
    manager.forward_client_cert_details = HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET
    manager.set_current_client_cert_details = HttpConnectionManagerSetCurrentClientCertDetails(
        uri=True
    )


def _strip_untrusted() -> list[HeaderMutation]:
    return [_remove(prefix) for prefix in wire.UNTRUSTED_HEADER_PREFIXES]


def _strip_all_but_peer_terms() -> list[HeaderMutation]:
    """Set aside what a peer may say, and put it back: a prefix match knows no exceptions."""
    aside = {name: f"{_KEPT_PREFIX}{name}" for name in _PEER_TERMS}
    return [
        _remove(_KEPT_PREFIX),
        *(set_header(kept, f"%REQ({name})%") for name, kept in aside.items()),
        *_strip_untrusted(),
        *(set_header(name, f"%REQ({kept})%") for name, kept in aside.items()),
        _remove(_KEPT_PREFIX),
    ]


def _remove(prefix: str) -> HeaderMutation:
    matcher = StringMatcher(prefix=prefix, ignore_case=True)
    return HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=matcher))


def _ext_proc(entrance: Entrance, settings: BootstrapSettings) -> HttpFilter:
    writable = MetadataOptionsMetadataNamespaces(untyped=[wire.LB_NAMESPACE, wire.ROUTER_NAMESPACE])
    has_come_back = entrance is Entrance.RETURN
    timeout_seconds = (
        settings.return_timeout_seconds if has_come_back else settings.message_timeout_seconds
    )
    processor = ExternalProcessor(
        grpc_service=requests_service(entrance),
        failure_mode_allow=True,
        message_timeout=timedelta(seconds=timeout_seconds),
        max_message_timeout=timedelta(seconds=settings.max_hold_seconds),
        metadata_options=MetadataOptions(receiving_namespaces=writable),
        # There the router says by such a header that its answer is final.
        mutation_rules=HeaderMutationRules(allow_envoy=has_come_back or None),
        processing_mode=ProcessingMode(
            request_header_mode=ProcessingModeHeaderSendMode.SEND,
            request_body_mode=(
                ProcessingModeBodySendMode.NONE
                if has_come_back
                else ProcessingModeBodySendMode.BUFFERED
            ),
            request_trailer_mode=ProcessingModeHeaderSendMode.SKIP,
            response_header_mode=ProcessingModeHeaderSendMode.SKIP,
            response_body_mode=ProcessingModeBodySendMode.NONE,
            response_trailer_mode=ProcessingModeHeaderSendMode.SKIP,
        ),
    )
    return HttpFilter(name=EXT_PROC, typed_config=Any.pack(processor))


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
            grpc_service=requests_service(),
            transport_api_version=ApiVersion.V3,
            buffer_flush_interval=timedelta(seconds=settings.log_flush_seconds),
            custom_tags=tags or [],
        ),
        additional_request_headers_to_log=request_headers or [],
        additional_response_headers_to_log=response_headers or [],
    )
    return AccessLog(name="envoy.access_loggers.http_grpc", typed_config=Any.pack(config))

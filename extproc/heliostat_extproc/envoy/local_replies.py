"""Errors that Envoy answers by itself, as the router would: the same codes, bodies and headers.

Replies made by the router pass through Envoy's local reply path too and must stay as they are, so
every mapper matches either a response flag or a cause that only Envoy itself can give.
"""

from dataclasses import dataclass

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    ExtensionFilter,
    ResponseFlagFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.google.protobuf import Any

from heliostat_extproc.errors import REASON_HEADER, ErrorAnswer, Reason, error_answer


@dataclass(frozen=True, slots=True)
class _LocalReply:
    reason: Reason
    flags: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    """How Envoy's own words for the cause begin. No flag tells of what no filter has seen."""
    headers: tuple[tuple[str, str], ...] = ()


_LOCAL_REPLIES = (
    _LocalReply(Reason.REQUEST_TOO_LARGE, details=("request_payload_too_large",)),
    _LocalReply(
        Reason.HEADERS_TOO_LARGE,
        details=("http1.headers_too_large", "http1.too_many_headers", "http1.trailers_too_large"),
    ),
    _LocalReply(
        Reason.NOT_IMPLEMENTED, details=("upgrade_failed", "http1.invalid_transfer_encoding")
    ),
    _LocalReply(
        Reason.CLIENT_TOO_SLOW, details=("request_header_timeout", "request_overall_timeout")
    ),
    _LocalReply(Reason.UNKNOWN_PATH, details=("absolute_path_rejected",)),
    _LocalReply(
        Reason.MALFORMED_REQUEST,
        details=("http1.", "missing_host_header", "path_normalization_failed"),
    ),
    _LocalReply(
        Reason.UNAUTHENTICATED,
        details=("missing_api_key", "unknown_api_key", "missing_credentials", "jwt_authn"),
        headers=(("www-authenticate", "Bearer"),),
    ),
    _LocalReply(Reason.NO_ENDPOINTS, flags=("UH", "NC")),
    _LocalReply(Reason.OVERLOADED, flags=("UO", "OM")),
    _LocalReply(Reason.TIMED_OUT, flags=("UT", "DT", "SI", "UMSDR")),
    _LocalReply(Reason.ENDPOINT_FAILED, flags=("UF", "UC", "UR", "LR", "UPE", "URX")),
    _LocalReply(Reason.UNKNOWN_PATH, flags=("NR",)),
    _LocalReply(Reason.MALFORMED_REQUEST, flags=("DPE", "IH")),
)


def error_headers(answer: ErrorAnswer) -> list[HeaderValueOption]:
    """Give an error's headers as Envoy sets them, beside the content type."""
    headers = dict(answer.headers) | {REASON_HEADER: answer.reason.value}
    if answer.retry_after_seconds is not None:
        headers["retry-after"] = str(answer.retry_after_seconds)
    return [
        HeaderValueOption(
            header=HeaderValue(key=key, value=value),
            append_action=HeaderValueOptionHeaderAppendAction.ADD_IF_ABSENT,
        )
        for key, value in headers.items()
    ]


def local_reply_config() -> LocalReplyConfig:
    """Map each of Envoy's own errors to its status and JSON body."""
    return LocalReplyConfig(mappers=[_mapper(reply) for reply in _LOCAL_REPLIES])


def _mapper(reply: _LocalReply) -> ResponseMapper:
    answer = error_answer(reply.reason, headers=reply.headers)
    return ResponseMapper(
        filter=_filter(reply),
        status_code=answer.status,
        body=DataSource(inline_string=answer.body.decode()),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"),
            content_type="application/json",
        ),
        headers_to_add=error_headers(answer),
    )


def _filter(reply: _LocalReply) -> AccessLogFilter:
    if not reply.details:
        return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(reply.flags)))
    begins = " || ".join(f'response.code_details.startsWith("{it}")' for it in reply.details)
    expression = ExpressionFilter(expression=begins)
    return AccessLogFilter(
        extension_filter=ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=Any.pack(expression)
        )
    )

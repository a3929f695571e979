"""Errors that Envoy answers by itself, in the shape of the OpenAI API and with closed codes.

Replies made by the router pass through Envoy's local reply path too and must stay as they are, so
every mapper matches either a response flag or a cause that only Envoy itself can give.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    ExtensionFilter,
    ResponseFlagFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.google.protobuf import Any


class LocalReplyCode(StrEnum):
    """The `code` of an error that Envoy, not the router or an engine, has answered."""

    REQUEST_TOO_LARGE = "request-too-large"
    MALFORMED_REQUEST = "malformed-request"
    UNKNOWN_ROUTE = "unknown-route"
    NO_ENDPOINTS = "no-endpoints"
    ENDPOINT_FAILED = "endpoint-failed"
    OVERLOADED = "overloaded"
    TIMED_OUT = "timed-out"
    ROUTER_UNAVAILABLE = "router-unavailable"


@dataclass(frozen=True, slots=True)
class _LocalReply:
    status: int
    code: LocalReplyCode
    message: str
    flags: tuple[str, ...] = ()
    details: str | None = None


_LOCAL_REPLIES = (
    _LocalReply(
        413,
        LocalReplyCode.REQUEST_TOO_LARGE,
        "The request body is larger than this gateway accepts.",
        details="request_payload_too_large",
    ),
    _LocalReply(
        503,
        LocalReplyCode.NO_ENDPOINTS,
        "No endpoint can serve this request now.",
        flags=("UH", "NC"),
    ),
    _LocalReply(503, LocalReplyCode.OVERLOADED, "The gateway is overloaded.", flags=("UO", "OM")),
    _LocalReply(
        504,
        LocalReplyCode.TIMED_OUT,
        "The request took too long.",
        flags=("UT", "DT", "SI", "UMSDR"),
    ),
    _LocalReply(
        503,
        LocalReplyCode.ENDPOINT_FAILED,
        "The endpoint failed before it answered.",
        flags=("UF", "UC", "UR", "LR", "UPE", "URX"),
    ),
    _LocalReply(404, LocalReplyCode.UNKNOWN_ROUTE, "Nothing is served here.", flags=("NR",)),
    _LocalReply(
        400, LocalReplyCode.MALFORMED_REQUEST, "The request is not valid HTTP.", flags=("DPE", "IH")
    ),
)


def error_body(status: int, code: str, message: str) -> str:
    """Write an error as the OpenAI API does."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def local_reply_config() -> LocalReplyConfig:
    """Map each of Envoy's own errors to its status and JSON body."""
    return LocalReplyConfig(mappers=[_mapper(reply) for reply in _LOCAL_REPLIES])


def _mapper(reply: _LocalReply) -> ResponseMapper:
    headers = []
    if reply.status in (503, 504):
        headers.append(HeaderValueOption(header=HeaderValue(key="retry-after", value="1")))
    return ResponseMapper(
        filter=_filter(reply),
        status_code=reply.status,
        body=DataSource(inline_string=error_body(reply.status, reply.code, reply.message)),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"),
            content_type="application/json",
        ),
        headers_to_add=headers,
    )


def _filter(reply: _LocalReply) -> AccessLogFilter:
    if reply.details is None:
        return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(reply.flags)))
    expression = ExpressionFilter(expression=f'response.code_details == "{reply.details}"')
    return AccessLogFilter(
        extension_filter=ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=Any.pack(expression)
        )
    )

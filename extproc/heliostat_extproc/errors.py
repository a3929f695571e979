"""Every error a client can get from the gateway: one closed set, one place for status and wording.

The router answers some, Envoy others, and a few both (see `envoy.local_replies`).
A client sees a body whose `code` is the reason, and the same reason in the header
`x-heliostat-reason`. The body is that of both OpenAI and Anthropic: one says what kind of object it
is and has a closed list of types, the other has `param` and `code`.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from heliostat_routing.commands import EvictReason, RejectReason

REASON_HEADER = "x-heliostat-reason"
"""Response header that carries the reason."""


class Reason(StrEnum):
    """Why a request was not served."""

    MALFORMED_REQUEST = "malformed-request"
    UNSUPPORTED = "unsupported"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_PATH = "unknown-path"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    REQUEST_TOO_LARGE = "request-too-large"
    HEADERS_TOO_LARGE = "headers-too-large"
    UNSUPPORTED_ENCODING = "unsupported-encoding"
    NOT_IMPLEMENTED = "not-implemented"
    CLIENT_TOO_SLOW = "client-too-slow"
    QUEUE_FULL = "queue-full"
    NO_ENDPOINTS = "no-endpoints"
    DEADLINE_PASSED = "deadline-passed"
    ENDPOINT_FAILED = "endpoint-failed"
    ROUTER_UNAVAILABLE = "router-unavailable"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting-down"
    TIMED_OUT = "timed-out"
    RESIDENCY = "residency"
    UNAUTHENTICATED = "unauthenticated"
    UNKNOWN_TENANT = "unknown-tenant"
    RATE_LIMITED = "rate-limited"
    INFLIGHT_LIMITED = "inflight-limited"
    NOT_A_PEER = "not-a-peer"
    NOT_SERVED_FOR_PEERS = "not-served-for-peers"


class InputError(Exception):
    """The client's request is at fault; `reason`, `detail` and `headers` are for the client."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        headers: tuple[tuple[str, str], ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.headers = headers
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An HTTP error, complete."""

    reason: Reason
    status: int
    body: bytes
    retry_after_seconds: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """Beside those that every error has."""


_SHAPES: dict[Reason, tuple[int, str, str]] = {
    Reason.MALFORMED_REQUEST: (400, "invalid_request_error", "The request cannot be read"),
    Reason.UNSUPPORTED: (400, "invalid_request_error", "The gateway cannot serve this"),
    Reason.UNKNOWN_MODEL: (404, "not_found_error", "No pool serves this model"),
    Reason.UNKNOWN_PATH: (404, "not_found_error", "There is nothing at this path"),
    Reason.METHOD_NOT_ALLOWED: (405, "invalid_request_error", "This path takes another method"),
    Reason.REQUEST_TOO_LARGE: (413, "request_too_large", "The request body is too large"),
    Reason.HEADERS_TOO_LARGE: (
        431,
        "invalid_request_error",
        "The request has too many headers, or too large ones",
    ),
    Reason.UNSUPPORTED_ENCODING: (
        415,
        "invalid_request_error",
        "The request body must not be compressed",
    ),
    Reason.NOT_IMPLEMENTED: (
        501,
        "invalid_request_error",
        "The gateway speaks plain HTTP requests and answers alone, without upgrades",
    ),
    Reason.CLIENT_TOO_SLOW: (408, "timeout_error", "The request took too long to arrive"),
    Reason.QUEUE_FULL: (
        429,
        "rate_limit_error",
        "All engines are busy and the queue is full. Try again later",
    ),
    Reason.NO_ENDPOINTS: (
        503,
        "overloaded_error",
        "No engine of this model is ready. Try again later",
    ),
    Reason.DEADLINE_PASSED: (
        503,
        "overloaded_error",
        "No engine became free in time. Try again later",
    ),
    Reason.ENDPOINT_FAILED: (
        503,
        "api_error",
        "The engines that were tried failed before they answered. Try again",
    ),
    Reason.ROUTER_UNAVAILABLE: (
        503,
        "api_error",
        "The router is restarting. Try again",
    ),
    Reason.OVERLOADED: (
        503,
        "overloaded_error",
        "The gateway is overloaded. Try again later",
    ),
    Reason.TIMED_OUT: (504, "timeout_error", "The request took too long"),
    Reason.RESIDENCY: (
        421,
        "invalid_request_error",
        "The request may not be served in this region. Ask a gateway of a region where it may",
    ),
    Reason.UNAUTHENTICATED: (
        401,
        "authentication_error",
        "The request has no API key or token that is good here",
    ),
    Reason.UNKNOWN_TENANT: (403, "permission_error", "The token's tenant is not known here"),
    Reason.RATE_LIMITED: (
        429,
        "rate_limit_error",
        "Your requests come faster than your tenant's limit allows",
    ),
    Reason.INFLIGHT_LIMITED: (
        429,
        "rate_limit_error",
        "Your tenant has as many open requests as its limit allows",
    ),
    Reason.NOT_A_PEER: (
        403,
        "permission_error",
        "No RegionPeer of this region has the identity of the sender's certificate",
    ),
    Reason.NOT_SERVED_FOR_PEERS: (
        503,
        "api_error",
        "The pool does not serve requests of other regions",
    ),
    Reason.SHUTTING_DOWN: (
        503,
        "api_error",
        "The gateway is shutting down. Try again",
    ),
}

_RETRIABLE_STATUSES = (429, 503, 504)

_FROM_CORE: dict[RejectReason | EvictReason, Reason] = {
    RejectReason.UNKNOWN_POOL: Reason.UNKNOWN_MODEL,
    RejectReason.NO_ENDPOINTS: Reason.NO_ENDPOINTS,
    RejectReason.QUEUE_FULL: Reason.QUEUE_FULL,
    RejectReason.NOT_SERVED_FOR_PEERS: Reason.NOT_SERVED_FOR_PEERS,
    EvictReason.NO_ENDPOINTS: Reason.NO_ENDPOINTS,
    EvictReason.DEADLINE_PASSED: Reason.DEADLINE_PASSED,
    EvictReason.DISPLACED: Reason.QUEUE_FULL,
}


def answer_for_core(
    reason: RejectReason | EvictReason, retry_after_seconds: float | None = None
) -> ErrorAnswer:
    """Turn the core's refusal into an HTTP error."""
    return error_answer(_FROM_CORE[reason], retry_after_seconds=retry_after_seconds)


def answer_for_input(error: InputError) -> ErrorAnswer:
    """Turn a client's mistake into an HTTP error."""
    return error_answer(error.reason, error.detail, error.retry_after_seconds, error.headers)


def error_answer(
    reason: Reason,
    detail: str = "",
    retry_after_seconds: float | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> ErrorAnswer:
    """Build the error for a reason; `detail` completes its message."""
    status, kind, message = _SHAPES[reason]
    text = f"{message}: {detail}." if detail else f"{message}."
    error = {"message": text, "type": kind, "param": None, "code": reason.value}
    body = {"type": "error", "error": error}
    retry_after = (
        max(1, ceil(retry_after_seconds or 0.0)) if status in _RETRIABLE_STATUSES else None
    )
    return ErrorAnswer(
        reason=reason,
        status=status,
        body=json.dumps(body).encode(),
        retry_after_seconds=retry_after,
        headers=headers,
    )

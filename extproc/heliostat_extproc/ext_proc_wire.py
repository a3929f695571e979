"""Every answer that Envoy gets over ext_proc, as bytes."""

from collections.abc import Iterable
from typing import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.errors import REASON_HEADER, ErrorAnswer
from heliostat_extproc.upb import HeaderValueOption, ProcessingResponse

PROCESSOR_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

LONGEST_HOLD_SECONDS = 3600.0
"""Envoy ignores a wish beyond its own limit, and takes at most this as its limit."""

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def _continue(kind: str) -> bytes:
    response = ProcessingResponse()
    getattr(response, kind).SetInParent()
    return bytes(response.SerializeToString())


CONTINUE: dict[str, bytes] = {
    kind: _continue(kind)
    for kind in (
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
    )
}
"""Kind of message -> the answer that lets it pass unchanged."""


def dispatch_response(
    pool: str,
    ticket: int,
    endpoints: Iterable[str],
    new_body: bytes | None = None,
    authorization: str | None = None,
) -> bytes:
    """Send the request to the first of these endpoints, and on failure to the next.

    Without endpoints Envoy's own balancing chooses within the pool. `new_body` replaces the body,
    `authorization` the client's own.
    """
    response = ProcessingResponse()
    common = response.request_body.response
    common.clear_route_cache = True
    if new_body is not None:
        common.body_mutation.body = new_body
        length = str(len(new_body))
        _set_header(common.header_mutation.set_headers, "content-length", length)
    if authorization is not None:
        _set_header(common.header_mutation.set_headers, "authorization", authorization)
    _set_header(common.header_mutation.set_headers, wire.CLUSTER_HEADER, wire.cluster_name(pool))
    _set_header(common.header_mutation.set_headers, wire.TICKET_HEADER, str(ticket))
    metadata = response.dynamic_metadata.fields
    metadata[wire.ROUTER_NAMESPACE].struct_value.fields[wire.TICKET_KEY].string_value = str(ticket)
    destination = ",".join(endpoints)
    if destination:
        _set_header(common.header_mutation.set_headers, wire.ENDPOINT_KEY, destination)
        metadata[wire.LB_NAMESPACE].struct_value.fields[
            wire.ENDPOINT_KEY
        ].string_value = destination
    return bytes(response.SerializeToString())


def hold_response(seconds: float) -> bytes:
    """Ask Envoy to wait this much longer for the answer; it grants one such wish per message."""
    response = ProcessingResponse()
    granted_seconds = min(seconds, LONGEST_HOLD_SECONDS)
    response.override_message_timeout.FromNanoseconds(int(granted_seconds * 1e9))
    return bytes(response.SerializeToString())


def error_response(answer: ErrorAnswer) -> bytes:
    """Answer the client with this error."""
    headers = [(REASON_HEADER, answer.reason.value)]
    if answer.retry_after_seconds is not None:
        headers.append(("retry-after", str(answer.retry_after_seconds)))
    return immediate_response(answer.status, answer.body, headers, details=answer.reason.value)


def immediate_response(
    status: int, body: bytes, headers: Iterable[tuple[str, str]] = (), *, details: str = "router"
) -> bytes:
    """Answer the client with this JSON; `details` goes to Envoy's access log."""
    response = ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = status
    immediate.body = body
    immediate.details = details
    _set_header(immediate.headers.set_headers, "content-type", "application/json")
    for key, value in headers:
        _set_header(immediate.headers.set_headers, key, value)
    return bytes(response.SerializeToString())


def _set_header(options: Any, key: str, value: str) -> None:
    option = options.add()
    option.append_action = _OVERWRITE
    option.header.key = key
    option.header.raw_value = value.encode()

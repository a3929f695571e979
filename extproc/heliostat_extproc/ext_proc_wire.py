"""Every answer that Envoy gets over ext_proc, as bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from heliostat_extproc.envoy import wire
from heliostat_extproc.errors import REASON_HEADER, ErrorAnswer
from heliostat_extproc.upb import HeaderValueOption, ProcessingResponse

PROCESSOR_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
PROCESSOR_PATH = f"/{PROCESSOR_SERVICE}/Process"

LONGEST_HOLD_SECONDS = 3600.0
"""Envoy ignores a wish beyond its own limit, and takes at most this as its limit."""

Part = Literal["request_headers", "request_body"]
"""The message of Envoy's that is answered with where the request goes."""

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


@dataclass(frozen=True, slots=True)
class PeerTerms:
    """What a peer is told of a request that is forwarded to it."""

    router: str
    hold_seconds: float
    residencies: str | None
    """Where it may be served, as the header says it."""


def dispatch_response(
    pool: str,
    ticket: int,
    endpoints: Iterable[str],
    new_body: bytes | None = None,
    authorization: str | None = None,
    *,
    part: Part = "request_body",
) -> bytes:
    """Send the request to the first of these endpoints, and on failure to the next.

    Without endpoints Envoy's own balancing chooses within the pool. `new_body` replaces the body,
    `authorization` the client's own.
    """
    response, mutation = _steer(wire.cluster_name(pool), ticket, new_body, part)
    if authorization is not None:
        set_header(mutation.set_headers, "authorization", authorization)
    if part == "request_headers":
        mutation.remove_headers.extend(wire.PEER_HEADERS)
    destination = ",".join(endpoints)
    if destination:
        set_header(mutation.set_headers, wire.ENDPOINT_KEY, destination)
        lb = response.dynamic_metadata.fields[wire.LB_NAMESPACE].struct_value.fields
        lb[wire.ENDPOINT_KEY].string_value = destination
    else:
        # A request that has come back still names where it was not served.
        mutation.remove_headers.append(wire.ENDPOINT_KEY)
    return bytes(response.SerializeToString())


def forward_response(
    region: str,
    pool: str,
    ticket: int,
    terms: PeerTerms,
    new_body: bytes | None = None,
    *,
    part: Part = "request_body",
) -> bytes:
    """Send the request to another region; without an answer from there it comes back."""
    response, mutation = _steer(wire.peer_cluster(region), ticket, new_body, part)
    headers = mutation.set_headers
    set_header(headers, wire.POOL_HEADER, pool)
    set_header(headers, wire.ORIGIN_HEADER, terms.router)
    set_header(headers, wire.HOLD_HEADER, f"{terms.hold_seconds:.3f}")
    if terms.residencies is not None:
        set_header(headers, wire.RESIDENCY_HEADER, terms.residencies)
    return bytes(response.SerializeToString())


def _steer(cluster: str, ticket: int, new_body: bytes | None, part: Part) -> tuple[Any, Any]:
    """Begin the answer that names the cluster; give it and its changes of headers."""
    response = ProcessingResponse()
    common = getattr(response, part).response
    common.clear_route_cache = True
    mutation = common.header_mutation
    if new_body is not None:
        common.body_mutation.body = new_body
        set_header(mutation.set_headers, "content-length", str(len(new_body)))
    set_header(mutation.set_headers, wire.CLUSTER_HEADER, cluster)
    set_header(mutation.set_headers, wire.TICKET_HEADER, str(ticket))
    router = response.dynamic_metadata.fields[wire.ROUTER_NAMESPACE].struct_value.fields
    router[wire.TICKET_KEY].string_value = str(ticket)
    return response, mutation


def hold_response(seconds: float) -> bytes:
    """Ask Envoy to wait this much longer for the answer; it grants one such wish per message."""
    response = ProcessingResponse()
    granted_seconds = min(seconds, LONGEST_HOLD_SECONDS)
    response.override_message_timeout.FromNanoseconds(int(granted_seconds * 1e9))
    return bytes(response.SerializeToString())


def error_response(answer: ErrorAnswer, status: int | None = None, *, final: bool = False) -> bytes:
    """Answer the client with this error, under another status where one is given.

    A final one is not retried by an Envoy that it passes.
    """
    headers = [(REASON_HEADER, answer.reason.value), *answer.headers]
    if final:
        headers.append(wire.NO_RETRY)
    if answer.retry_after_seconds is not None:
        headers.append(("retry-after", str(answer.retry_after_seconds)))
    return immediate_response(
        status or answer.status, answer.body, headers, details=answer.reason.value
    )


def immediate_response(
    status: int, body: bytes, headers: Iterable[tuple[str, str]] = (), *, details: str = "router"
) -> bytes:
    """Answer the client with this JSON; `details` goes to Envoy's access log."""
    response = ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = status
    immediate.body = body
    immediate.details = details
    set_header(immediate.headers.set_headers, "content-type", "application/json")
    for key, value in headers:
        set_header(immediate.headers.set_headers, key, value)
    return bytes(response.SerializeToString())


def set_header(options: Any, key: str, value: str) -> None:
    """Add a change that sets this header, whatever it was before."""
    option = options.add()
    option.append_action = _OVERWRITE
    option.header.key = key
    option.header.raw_value = value.encode()

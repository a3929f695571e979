"""What the headers of a request say to the router: method, path, and the terms of a peer.

A client may narrow where its request is served, and nothing else. A peer that forwards a request
says which of its routers has sent it, how long it may be held and where it may be served; that it
is a peer at all is Envoy's word, which has verified its certificate.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from heliostat_extproc.envoy import wire
from heliostat_extproc.errors import InputError, Reason
from heliostat_extproc.ext_proc_wire import LONGEST_HOLD_SECONDS
from heliostat_extproc.federation.identity import parse_identity
from heliostat_extproc.observing.trace_context import TRACEPARENT
from heliostat_extproc.wishes import OBJECTIVE_HEADERS, TTFT_OBJECTIVE_HEADERS

MOST_HEADERS = 100
"""Of a client's request, with those that Envoy adds."""
LARGEST_HEAD_BYTES = 60 * 1024
REQUEST_ID_HEADER = "x-request-id"
"""Envoy sets it where the client has not, and returns it."""
LONGEST_REQUEST_ID = 128
"""Characters of it that are kept."""
MOST_RESIDENCY_NAMES = 64
"""In one rule."""
MOST_RESIDENCY_RULES = 2
"""That of a client, and that of its pool at the ingress."""

RegionOf = Callable[[str], str | None]
"""Says which peer's region has this identity; None where it is no peer's."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_INVISIBLE = re.compile(r"[^!-~]")
_ROUTER = re.compile(r"[A-Za-z0-9._-]{1,253}")
_WANTED = frozenset(
    (
        ":method",
        ":path",
        "content-encoding",
        "content-length",
        "content-type",
        REQUEST_ID_HEADER,
        TRACEPARENT,
        *OBJECTIVE_HEADERS,
        *TTFT_OBJECTIVE_HEADERS,
        wire.TICKET_HEADER,
        wire.POOL_HEADER,
        wire.ORIGIN_HEADER,
        wire.HOLD_HEADER,
        wire.RESIDENCY_HEADER,
        wire.CLIENT_RESIDENCY_HEADER,
        wire.TENANT_HEADER,
        wire.IDENTITY_HEADER,
    )
)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a request is served: those of a client, or of the peer that forwards it."""

    origin: str | None = None
    """`REGION/ROUTER` of the peer's router."""
    hold_seconds: float | None = None
    residencies: tuple[frozenset[str], ...] = ()
    """Names of regions and groups where it may be served: each of these rules must allow it."""


def read_head(headers: Any) -> dict[str, str]:
    """Take the headers that mean something to the router; one that is repeated, with commas."""
    head: dict[str, str] = {}
    for header in headers:
        key = header.key
        if key in _WANTED:
            head[key] = f"{head[key]},{_text(header)}" if key in head else _text(header)
    return head


def check_size(headers: Any, message_bytes: int) -> None:
    """Raise InputError where a client's headers, in a message of this size, are too many or large.

    Envoy takes some more, and would fail where the router's own are added to as many as that.
    """
    if len(headers.headers) > MOST_HEADERS:
        raise InputError(Reason.HEADERS_TOO_LARGE, f"the limit is {MOST_HEADERS}")
    if message_bytes > LARGEST_HEAD_BYTES and headers.ByteSize() > LARGEST_HEAD_BYTES:
        raise InputError(Reason.HEADERS_TOO_LARGE, f"the limit is {LARGEST_HEAD_BYTES} bytes")


def read_path(head: dict[str, str]) -> str:
    """Take the path without its query."""
    return head.get(":path", "").partition("?")[0]


def read_request_id(head: dict[str, str]) -> str:
    """Take the request's id as it is shown: cut, and without what is no visible ASCII."""
    text = head.get(REQUEST_ID_HEADER, "")[:LONGEST_REQUEST_ID]
    return _INVISIBLE.sub("?", text)


def read_length(head: dict[str, str]) -> int:
    """Take the declared length of the body in bytes: 0 where there is none that makes sense."""
    text = head.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def check_encoding(head: dict[str, str]) -> None:
    """Raise InputError where the body is compressed: neither router nor engines read that."""
    encodings = {name.strip().lower() for name in head.get("content-encoding", "").split(",")}
    if not encodings <= {"", "identity"}:
        raise InputError(
            Reason.UNSUPPORTED_ENCODING,
            "send it without `content-encoding`",
            headers=(("accept-encoding", "identity"),),
        )


def read_client_terms(head: dict[str, str]) -> Terms:
    """Take a client's terms; InputError where they cannot be read."""
    return Terms(residencies=_parse_residencies(head, wire.CLIENT_RESIDENCY_HEADER, most_rules=1))


def read_peer_terms(head: dict[str, str], region_of: RegionOf) -> Terms:
    """Take a peer's terms; InputError where it is none, or they cannot be read."""
    identity = parse_identity(head.get(wire.IDENTITY_HEADER, ""))
    region = None if identity is None else region_of(identity)
    if region is None:
        raise InputError(Reason.NOT_A_PEER, f"`{(identity or '')[:200]}`")
    router = head.get(wire.ORIGIN_HEADER, "")
    if not _ROUTER.fullmatch(router):
        raise InputError(Reason.MALFORMED_REQUEST, f"`{wire.ORIGIN_HEADER}` is no router's name")
    return Terms(
        origin=f"{region}/{router}",
        hold_seconds=_parse_hold(head.get(wire.HOLD_HEADER, "")),
        residencies=_parse_residencies(
            head, wire.RESIDENCY_HEADER, most_rules=MOST_RESIDENCY_RULES
        ),
    )


def _parse_hold(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_HOLD_SECONDS:
        raise InputError(Reason.MALFORMED_REQUEST, f"`{wire.HOLD_HEADER}` is no time to hold")
    return seconds


def format_residencies(residencies: Iterable[frozenset[str]]) -> str | None:
    """Write rules as a peer reads them: names with commas, rules with semicolons."""
    return ";".join(",".join(sorted(names)) for names in residencies) or None


def _parse_residencies(
    head: dict[str, str], name: str, *, most_rules: int
) -> tuple[frozenset[str], ...]:
    """Read rules. One that cannot be read is refused, never taken as none."""
    text = head.get(name)
    if text is None:
        return ()
    rules = tuple(frozenset(map(str.strip, rule.split(","))) for rule in text.lower().split(";"))
    if len(rules) > most_rules or not all(_is_rule(rule) for rule in rules):
        raise InputError(
            Reason.MALFORMED_REQUEST, f"`{name}` takes names of regions or groups, with commas"
        )
    return rules


def _is_rule(names: frozenset[str]) -> bool:
    return len(names) <= MOST_RESIDENCY_NAMES and all(_NAME.fullmatch(name) for name in names)


def _text(header: Any) -> str:
    raw: bytes = header.raw_value
    return raw.decode("utf-8", "replace") if raw else str(header.value)

"""What single access log entries mean."""

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.access_log import AccessLogServer, parse_outcome
from heliostat_extproc.envoy.token_usage import NO_USAGE, TokenUsage, parse_token_usage
from heliostat_routing.events import AttemptStarted, Event, Outcome, RequestMeasured


def entry(status: int = 200, body_bytes: int = 10, flag: str = "") -> HTTPAccessLogEntry:
    """Write the entry of an ended request."""
    written = HTTPAccessLogEntry()
    written.common_properties.access_log_type = AccessLogType.DownstreamEnd
    written.response.response_code.value = status
    written.response.response_body_bytes = body_bytes
    if flag:
        setattr(written.common_properties.response_flags, flag, True)
    return written


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (entry(), Outcome.SERVED),
        (entry(status=400), Outcome.REFUSED),
        (entry(status=404, body_bytes=0), Outcome.REFUSED),
        (entry(status=500), Outcome.ENGINE_FAILED),
        (entry(status=101), Outcome.ENGINE_FAILED),
        (entry(status=307), Outcome.ENGINE_FAILED),
        (entry(body_bytes=0), Outcome.ENGINE_FAILED),
        (entry(flag="upstream_connection_termination"), Outcome.ENGINE_FAILED),
        (entry(flag="upstream_remote_reset"), Outcome.ENGINE_FAILED),
        (entry(flag="downstream_connection_termination"), Outcome.CLIENT_ABORTED),
        (entry(status=0, body_bytes=0, flag="downstream_remote_reset"), Outcome.CLIENT_ABORTED),
    ],
)
def test_outcome(ended: HTTPAccessLogEntry, outcome: Outcome) -> None:
    """Engine's fault, client's doing, or served: client errors are served."""
    assert parse_outcome(ended) is outcome


@pytest.mark.parametrize(
    ("content_type", "output_tokens", "outcome"),
    [
        ("text/event-stream; charset=utf-8", 0, Outcome.ENGINE_FAILED),
        ("text/event-stream; charset=utf-8", 1, Outcome.SERVED),
        ("text/event-stream; charset=utf-8", None, Outcome.SERVED),
        ("application/json", 0, Outcome.SERVED),
    ],
)
def test_a_stream_without_a_token_is_a_failure(
    content_type: str, output_tokens: int | None, outcome: Outcome
) -> None:
    """Only streams must have output tokens: an embedding has none by nature."""
    ended = entry()
    ended.response.response_headers["content-type"] = content_type
    assert parse_outcome(ended, TokenUsage(output_tokens=output_tokens)) is outcome


@pytest.mark.parametrize(
    ("code", "outcome"), [(503, Outcome.ENGINE_FAILED), (400, Outcome.REFUSED)]
)
def test_an_error_inside_a_stream_counts_as_its_status(code: int, outcome: Outcome) -> None:
    """The 200 before it was only the acceptance."""
    ended = entry()
    ended.common_properties.metadata.filter_metadata[wire.STREAM_NAMESPACE].update(
        {wire.STREAM_ERROR_KEY: code}
    )
    assert parse_outcome(ended) is outcome


def test_entries_without_meaning_are_counted_and_skipped() -> None:
    """A bad entry takes none of its neighbours with it."""
    events: list[Event] = []
    server = AccessLogServer(events.append)
    unjoined, bad_ticket, hostless, good = (HTTPAccessLogEntry() for _ in range(4))
    codeless = entry()
    codeless.common_properties.metadata.filter_metadata[wire.STREAM_NAMESPACE].update(
        {wire.STREAM_ERROR_KEY: float("nan")}
    )
    codeless.request.request_headers[wire.TICKET_HEADER] = "7"
    bad_ticket.request.request_headers[wire.TICKET_HEADER] = "x"
    for attempt in (hostless, good):
        attempt.request.request_headers[wire.TICKET_HEADER] = "7"
        attempt.common_properties.access_log_type = AccessLogType.UpstreamPoolReady
    address = good.common_properties.upstream_remote_address.socket_address
    address.address, address.port_value = "::1", 80
    for written in (unjoined, bad_ticket, hostless, codeless, good):
        server.take(written)
    assert events == [AttemptStarted(7, "[::1]:80")]
    assert (server.unjoined_entries, server.malformed_entries) == (1, 3)


def test_usage_is_read_from_envoys_bytes() -> None:
    """The bytes that Envoy 1.40 writes decode to their counts, absent ones to None."""
    written = b"\x08\x01\x12\x01m\x1a\x02\x08\x0b\x22\x02\x08\x02*\x02\x08\r2\x04\n\x02\x08\x08"
    assert parse_token_usage(written) == TokenUsage(11, 8, 2)
    assert parse_token_usage(b"") == NO_USAGE


@given(st.binary(max_size=64))
def test_usage_of_any_bytes_is_counts_or_an_error(written: bytes) -> None:
    """Nonsense raises ValueError and nothing else."""
    try:
        usage = parse_token_usage(written)
    except ValueError:
        return
    assert isinstance(usage, TokenUsage)


def test_attempts_at_a_region_move_no_request() -> None:
    """They may be told after the request has come back and is served here; only its end counts."""
    seen: list[Event] = []
    server = AccessLogServer(seen.append)
    for kind in (AccessLogType.UpstreamPoolReady, AccessLogType.UpstreamEnd):
        attempt = entry(503)
        attempt.request.request_headers["x-heliostat-ticket"] = "7"
        attempt.common_properties.access_log_type = kind
        attempt.common_properties.upstream_cluster = "peer:eu"
        attempt.common_properties.upstream_remote_address.socket_address.address = "10.0.0.1"
        server.take(attempt)
    assert seen == []
    ended = entry()
    ended.request.request_headers["x-heliostat-ticket"] = "7"
    ended.common_properties.upstream_cluster = "peer:eu"
    server.take(ended)
    (measured,) = seen
    assert isinstance(measured, RequestMeasured)
    assert measured.endpoint == "region/eu"


def test_what_went_on_at_the_return_is_told_from_there() -> None:
    """The outer request's entry would say that a Unix socket has served it."""
    seen: list[Event] = []
    ended = entry()
    ended.request.request_headers["x-heliostat-ticket"] = "7"
    ended.common_properties.upstream_cluster = "peer:eu"
    ended.common_properties.upstream_remote_address.pipe.path = "/run/return.sock"
    server = AccessLogServer(seen.append)
    server.take(ended)
    assert seen == []
    assert server.malformed_entries == 0

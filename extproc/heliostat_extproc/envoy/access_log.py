"""The access log server: turns what Envoy saw of each request into the core's events.

Entries come in batches and out of the request's path. They are joined to a request by the ticket
that the router wrote into its dynamic metadata, never by anything a client can set.
"""

import math
from collections.abc import Callable, Iterator

import structlog
from envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogCommon,
    AccessLogType,
    HTTPAccessLogEntry,
    ResponseFlags,
)
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from grpc import StatusCode

from heliostat_extproc.apis import APIS
from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.token_usage import NO_USAGE, TokenUsage, parse_token_usage
from heliostat_extproc.grpc_streams.message_stream import MessageStream
from heliostat_extproc.observing.timing import Timing
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    Outcome,
    RequestMeasured,
)
from heliostat_routing.peers import region_account

ACCESS_LOG_PATH = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

_log = structlog.get_logger(__name__)


# Looked up once: each look into a protobuf enum costs more than reading a field.
_READY = AccessLogType.UpstreamPoolReady
_ENDED = AccessLogType.UpstreamEnd
_ATTEMPTS = (_READY, _ENDED)
_REQUESTS = (AccessLogType.DownstreamEnd, AccessLogType.NotSet)


class MalformedEntryError(ValueError):
    """An access log entry lacks what its kind must have."""


class AccessLogServer:
    """Receives access logs and hands `sink` one event per entry that tells the core something."""

    def __init__(
        self,
        sink: Callable[[Event], None],
        on_measured: Callable[[RequestMeasured, Timing], None] = lambda _event, _timing: None,
    ) -> None:
        """`on_measured` is also told of what the core has no use for."""
        self._sink = sink
        self._on_measured = on_measured
        self.malformed_entries = 0
        """Entries that could not be read; the first is logged."""
        self.unjoined_entries = 0
        """Entries of requests that the router has not seen (it was down, or turned them away)."""

    async def serve(self, stream: MessageStream) -> None:
        """Take in one Envoy worker's entries until it goes away."""
        while (data := await stream.read()) is not None:
            try:
                message = StreamAccessLogsMessage.FromString(data)
            except DecodeError:
                await stream.abort(StatusCode.INVALID_ARGUMENT, "no StreamAccessLogsMessage")
            for entry in message.http_logs.log_entry:
                self.take(entry)
        await stream.write(StreamAccessLogsResponse().SerializeToString())

    def take(self, entry: HTTPAccessLogEntry) -> None:
        """Hand on what one entry means; count it where it means nothing."""
        try:
            ticket = parse_ticket(entry)
            if ticket is None:
                self.unjoined_entries += 1
                return
            for event in parse_entry(entry, ticket):
                self._sink(event)
                if isinstance(event, RequestMeasured):
                    self._on_measured(event, parse_timing(entry))
        except MalformedEntryError as error:
            self.malformed_entries += 1
            if self.malformed_entries == 1:
                _log.warning("malformed access log entry", reason=str(error))


def parse_ticket(entry: HTTPAccessLogEntry) -> int | None:
    """Read the ticket of an entry; None where the router set none."""
    text = entry.request.request_headers.get(wire.TICKET_HEADER)
    metadata = entry.common_properties.metadata.filter_metadata.get(wire.ROUTER_NAMESPACE)
    if metadata and wire.TICKET_KEY in metadata.fields:
        text = metadata.fields[wire.TICKET_KEY].string_value
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise MalformedEntryError(f"ticket {text!r}") from error


def parse_entry(entry: HTTPAccessLogEntry, ticket: int) -> Iterator[Event]:
    """Say what an entry means to the core; MalformedEntryError where an attempt has no host.

    What went on at the return listener, a Unix socket, is told by the entries from there.
    """
    common = entry.common_properties
    kind = common.access_log_type
    if common.upstream_remote_address.HasField("pipe"):
        return
    if kind in _ATTEMPTS and wire.peer_region(common.upstream_cluster) is not None:
        return  # what comes of it, the request's end or its return tells
    if kind == _READY:
        yield AttemptStarted(ticket, _required_endpoint(common))
    elif kind == _ENDED:
        if _attempt_failed(entry):
            yield AttemptFailed(ticket, _required_endpoint(common))
    elif kind in _REQUESTS:
        yield _parse_measured(entry, ticket)


def _parse_measured(entry: HTTPAccessLogEntry, ticket: int) -> RequestMeasured:
    common = entry.common_properties
    usage = _parse_usage(common)
    return RequestMeasured(
        ticket=ticket,
        endpoint=_endpoint(common),
        outcome=parse_outcome(entry, usage),
        ttft_seconds=_parse_ttft(entry),
        duration_seconds=_parse_duration(common),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        output_bytes=entry.response.response_body_bytes if entry.HasField("response") else None,
    )


def parse_timing(entry: HTTPAccessLogEntry) -> Timing:
    """Read how long the request took, from the moment that Envoy had all of it."""
    common = entry.common_properties
    received = _seconds(common.time_to_last_rx_byte)
    sent = total = None
    if common.HasField("time_to_first_upstream_tx_byte"):
        sent = max(0.0, _seconds(common.time_to_first_upstream_tx_byte) - received)
    if common.HasField("duration"):
        total = max(0.0, _seconds(common.duration) - received)
    return Timing(sent, total, entry.response.response_code.value)


def parse_outcome(entry: HTTPAccessLogEntry, usage: TokenUsage = NO_USAGE) -> Outcome:
    """Tell whose doing the end of a request was.

    A stream may carry an error with a status of its own after a 200, or end without a token: then
    that counts. Answers that are no streams, like embeddings, need no output tokens. An engine has
    nothing to redirect to and nothing to upgrade to: what is neither 2xx nor 4xx has failed.
    """
    flags = entry.common_properties.response_flags
    if flags.downstream_connection_termination or flags.downstream_remote_reset:
        return Outcome.CLIENT_ABORTED
    status = _stream_error(entry) or entry.response.response_code.value
    without_output = status == 200 and (
        not entry.response.response_body_bytes or (_is_stream(entry) and usage.output_tokens == 0)
    )
    if 400 <= status < 500 and not _upstream_failed(flags):
        return Outcome.REFUSED
    served = 200 <= status < 300 and not _upstream_failed(flags) and not without_output
    return Outcome.SERVED if served else Outcome.ENGINE_FAILED


def _stream_error(entry: HTTPAccessLogEntry) -> int | None:
    """Read the code of an error inside a stream; None where there is none."""
    metadata = entry.common_properties.metadata.filter_metadata.get(wire.STREAM_NAMESPACE)
    if metadata is None or wire.STREAM_ERROR_KEY not in metadata.fields:
        return None
    code = metadata.fields[wire.STREAM_ERROR_KEY].number_value
    if not math.isfinite(code):
        raise MalformedEntryError(f"stream error {code}")
    return int(code)


def _is_stream(entry: HTTPAccessLogEntry) -> bool:
    content_type = entry.response.response_headers.get("content-type", "")
    return bool(content_type.startswith("text/event-stream"))


def _attempt_failed(entry: HTTPAccessLogEntry) -> bool:
    flags = entry.common_properties.response_flags
    if flags.downstream_connection_termination or flags.downstream_remote_reset:
        return False
    status = entry.response.response_code.value
    return status >= 500 or (not 200 <= status < 500 and _upstream_failed(flags))


def _upstream_failed(flags: ResponseFlags) -> bool:
    return bool(
        flags.upstream_connection_failure
        or flags.upstream_remote_reset
        or flags.upstream_connection_termination
        or flags.upstream_protocol_error
        or flags.upstream_request_timeout
        or flags.local_reset
    )


def _parse_ttft(entry: HTTPAccessLogEntry) -> float | None:
    """Read the time to first token in seconds: only a stream's first byte is its first token.

    Not that of every API, some of which tell at once that the request has been accepted.
    """
    text = entry.common_properties.custom_tags.get(wire.TTFT_TAG, "-")
    api = APIS.get(entry.request.path.partition("?")[0])
    opens_with_token = api is None or api.opens_with_token
    if not _is_stream(entry) or not opens_with_token or text == "-":
        return None
    try:
        return int(text) / 1e6
    except ValueError as error:
        raise MalformedEntryError(f"time to first token {text!r}") from error


def _parse_duration(common: AccessLogCommon) -> float | None:
    """Read the seconds from the request's first byte upstream to the end of the exchange."""
    if not common.HasField("duration") or not common.HasField("time_to_first_upstream_tx_byte"):
        return None
    return _seconds(common.duration) - _seconds(common.time_to_first_upstream_tx_byte)


def _parse_usage(common: AccessLogCommon) -> TokenUsage:
    packed = common.metadata.typed_filter_metadata.get(wire.USAGE_NAMESPACE)
    if packed is None:
        return NO_USAGE
    try:
        return parse_token_usage(packed.value)
    except ValueError as error:
        raise MalformedEntryError(f"token usage: {error}") from error


def _required_endpoint(common: AccessLogCommon) -> str:
    endpoint = _endpoint(common)
    if endpoint is None:
        raise MalformedEntryError("an attempt without an upstream address")
    return endpoint


def _endpoint(common: AccessLogCommon) -> str | None:
    """Name who has served: an endpoint by its address, a region by its account."""
    region = wire.peer_region(common.upstream_cluster)
    if region is not None:
        return region_account(region)
    address = common.upstream_remote_address.socket_address
    if not address.address:
        return None
    host = f"[{address.address}]" if ":" in address.address else address.address
    return f"{host}:{address.port_value}"


def _seconds(duration: Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)

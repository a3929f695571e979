"""One HTTP/2 connection (RFC 9113) of calls (gRPC over HTTP/2), on an asyncio transport.

What a call sends is held back until it is read, as its window says, and what goes to it as the
other end's windows say. The connection itself holds nobody back.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import structlog
from grpc import StatusCode

from heliostat_extproc.grpc_streams import frames
from heliostat_extproc.grpc_streams.call import Call, CallAbortedError
from heliostat_extproc.grpc_streams.frames import (
    ConnectionBrokenError,
    ErrorCode,
    Flag,
    Kind,
    Setting,
)
from heliostat_extproc.grpc_streams.header_blocks import (
    RESPONSE_BLOCK,
    HeaderReader,
    trailers_block,
)
from heliostat_extproc.grpc_streams.message_stream import Handler, Limits, MessageStream

_CONNECTION_STEP_BYTES = 2**30
"""After so many bytes of all calls the other end may send so many more."""
_CANCEL_SECONDS = 1.0
_OK = trailers_block(StatusCode.OK.value[0])
_PREFIX = (0).to_bytes(1)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Stream:
    """What the connection knows of a call."""

    call: Call
    task: "asyncio.Task[None]"
    window: int
    """What may go."""
    allowed: int
    """What may come."""
    taken: int = 0
    """What has been read of what has come, and has not been allowed anew."""
    has_begun: bool = False
    """Whether the answer's headers are sent."""
    is_half_closed: bool = False
    """Whether the caller has said all."""
    waiting: deque[memoryview] = field(default_factory=deque)
    """What the windows hold back."""
    sent: "asyncio.Future[None] | None" = None
    """Done when nothing waits any more."""
    trailers: bytes | None = None
    """What ends the answer, once nothing waits any more."""


@dataclass(slots=True)
class _Block:
    """A header block of which more is to come."""

    stream: int
    is_last: bool
    data: bytearray


class Connection(asyncio.Protocol):
    """Serves the calls of one connection, each by the handler of its path."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        limits: Limits,
        on_open: Callable[["Connection"], None],
        on_closed: Callable[["Connection"], None],
    ) -> None:
        self._handlers = handlers
        self._limits = limits
        self._on_open = on_open
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._has_preface = False
        self._headers = HeaderReader()
        self._block: _Block | None = None
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """What serves calls, those that have been cancelled too until they end."""
        self._newest_stream = 0
        self._last_stream = 0
        """The newest that was served; those that come after `leave` are not."""
        self._is_leaving = self._is_closed = self._is_paused = False
        self._window = self._stream_window = frames.DEFAULT_WINDOW
        self._frame_bytes = frames.DEFAULT_FRAME_BYTES
        self._received_bytes = 0
        self._takers: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.DATA: self._take_data,
            Kind.HEADERS: self._take_headers,
            Kind.RST_STREAM: self._take_reset,
            Kind.SETTINGS: self._take_settings,
            Kind.PUSH_PROMISE: self._take_push,
            Kind.PING: self._take_ping,
            Kind.WINDOW_UPDATE: self._take_window,
            Kind.CONTINUATION: self._take_continuation,
        }
        """What each type of frame does; others mean nothing to a server."""

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what holds for this connection."""
        self._transport = cast("asyncio.Transport", transport)
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: frames.LARGEST_WINDOW,
            Setting.INITIAL_WINDOW_SIZE: self._limits.window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: frames.LARGEST_BLOCK_BYTES,
        }
        more = frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW
        self._write(frames.write_settings(settings) + frames.write_window_update(0, more))
        self._on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is under way."""
        self._transport = None
        self._cancel_all()
        self._on_closed(self)

    def pause_writing(self) -> None:
        """Hold everything back: the other end does not take what it is sent."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False
        self._send_all()

    def leave(self) -> None:
        """Take no more calls."""
        if not self._is_leaving:
            self._is_leaving = True
            self._write(frames.write_goaway(self._last_stream, ErrorCode.NO_ERROR))

    def close(self) -> None:
        """End everything."""
        self._is_closed = True
        for number in self._streams:
            self._write(frames.write_reset(number, ErrorCode.CANCEL))
        self._cancel_all()
        if self._transport is not None:
            self._transport.close()

    async def closed(self) -> None:
        """Wait a while until all that served its calls has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Take in frames, until the connection is closed."""
        if self._is_closed:
            return
        received = self._received + data if self._received else data
        try:
            at = 0 if self._has_preface else self._take_preface(received)
            if self._has_preface:
                at = self._take_frames(received, at)
            self._received = received[at:]
        except ConnectionBrokenError as fault:
            _log.warning("gRPC connection ended", problem=str(fault), code=fault.code.name)
            self._write(frames.write_goaway(self._last_stream, fault.code, str(fault)))
            self.close()

    def _take_preface(self, received: bytes) -> int:
        start = received[: len(frames.PREFACE)]
        if not frames.PREFACE.startswith(start):
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2")
        self._has_preface = len(start) == len(frames.PREFACE)
        return len(start) if self._has_preface else 0

    def _take_frames(self, received: bytes, at: int) -> int:
        size = len(received)
        while size - at >= frames.HEAD_BYTES and self._transport is not None:
            length, kind, flags, number = frames.read_head(received, at)
            if length > frames.DEFAULT_FRAME_BYTES:
                raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            end = at + frames.HEAD_BYTES + length
            if end > size:
                break
            payload = received[at + frames.HEAD_BYTES : end]
            at = end
            if self._block is not None and kind != Kind.CONTINUATION:
                raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a header block is not whole")
            take = self._takers.get(kind)
            if take is not None:
                take(flags, number, payload)
        return at

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._received_bytes += size
        if self._received_bytes >= _CONNECTION_STEP_BYTES:
            self._write(frames.write_window_update(0, self._received_bytes))
            self._received_bytes = 0
        stream = self._streams.get(number)
        if stream is None or stream.is_half_closed:
            self._refuse_data(number, stream)
            return
        if flags & Flag.PADDED:
            payload = frames.without_padding(flags, payload)
        stream.allowed -= size
        if stream.allowed < 0:
            raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "more than was allowed")
        if size > len(payload):
            self.on_read(number, size - len(payload))  # nobody will read the padding
        if payload:
            stream.call.on_data(payload)
        if flags & Flag.END_STREAM:
            self._half_close(stream)

    def _refuse_data(self, number: int, stream: _Stream | None) -> None:
        """Data of a call that has ended here may still be under way; of others it is a fault."""
        if number > self._newest_stream or not number % 2:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "data of no call")
        if stream is not None:
            raise ConnectionBrokenError(ErrorCode.STREAM_CLOSED, "data after the end")

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (Flag.PADDED | Flag.PRIORITY):
            payload = frames.without_padding(flags, payload, priority=True)
        is_last = bool(flags & Flag.END_STREAM)
        if flags & Flag.END_HEADERS:
            self._take_block(number, payload, is_last=is_last)
        else:
            self._block = _Block(number, is_last, bytearray(payload))

    def _take_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream != number:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a continuation of nothing")
        block.data += payload
        if len(block.data) > frames.LARGEST_BLOCK_BYTES:
            raise ConnectionBrokenError(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")
        if flags & Flag.END_HEADERS:
            self._block = None
            self._take_block(number, bytes(block.data), is_last=block.is_last)

    def _take_block(self, number: int, block: bytes, *, is_last: bool) -> None:
        headers = self._headers.read(block)
        if number > self._newest_stream and number % 2:
            self._newest_stream = number
            if not self._is_leaving:
                self._last_stream = number
                self._open(number, headers)
        elif number > self._newest_stream or not number % 2:
            raise ConnectionBrokenError(
                ErrorCode.PROTOCOL_ERROR, f"stream {number} is not the caller's"
            )
        stream = self._streams.get(number)
        if is_last and stream is not None and not stream.is_half_closed:
            self._half_close(stream)

    def _open(self, number: int, headers: dict[str, str]) -> None:
        limits = self._limits
        call = Call(number, headers, self, limits.largest_bytes)
        handler = self._handlers.get(headers.get(":path", ""), _unknown)
        task = self._loop.create_task(self._serve(number, call, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._streams[number] = _Stream(call, task, self._stream_window, limits.window_bytes)

    def _half_close(self, stream: _Stream) -> None:
        stream.is_half_closed = True
        stream.call.on_complete()

    async def _serve(self, number: int, call: Call, handler: Handler) -> None:
        """Run the handler and end the call as it ends, unless that is over already."""
        trailers = _OK
        try:
            await handler(call)
        except CallAbortedError as error:
            trailers = trailers_block(error.code.value[0], str(error))
        except asyncio.CancelledError:
            if number not in self._streams:
                raise
            trailers = trailers_block(StatusCode.CANCELLED.value[0])
        except Exception:
            _log.exception("a call failed", path=call.metadata(":path"))
            trailers = trailers_block(StatusCode.INTERNAL.value[0], "it failed")
        stream = self._streams.get(number)
        if stream is not None:
            stream.trailers = trailers
            self._send_rest(number, stream)

    def _cancel_all(self) -> None:
        """Forget all calls, and have their handlers end."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.task.cancel()

    def on_read(self, stream: int, size: int) -> None:
        """Allow a call to send more, in large steps, for what has been read of it."""
        it = self._streams.get(stream)
        if it is None:
            return
        it.taken += size
        if it.taken > self._limits.window_bytes // 2 and not it.is_half_closed:
            self._write(frames.write_window_update(stream, it.taken))
            it.allowed += it.taken
            it.taken = 0

    async def sent(self, stream: int) -> None:
        """Wait until all that a call sends is on its way."""
        it = self._streams.get(stream)
        while it is not None and it.waiting:
            if it.sent is None or it.sent.done():
                it.sent = self._loop.create_future()
            await it.sent

    def send(self, stream: int, message: bytes) -> bool:
        """Send one message of a call, if that has not ended; false where it has to wait."""
        it = self._streams.get(stream)
        if it is None:
            return True
        size = len(message) + 5
        begin = b""
        if not it.has_begun:
            it.has_begun = True
            begin = frames.write_frame(Kind.HEADERS, Flag.END_HEADERS, stream, RESPONSE_BLOCK)
        prefix = _PREFIX + len(message).to_bytes(4)
        room = min(it.window, self._window, self._frame_bytes)
        if size <= room and not it.waiting and not self._is_paused:
            it.window -= size
            self._window -= size
            head = frames.write_head(size, Kind.DATA, 0, stream)
            self._write(b"".join((begin, head, prefix, message)))
            return True
        self._write(begin)
        it.waiting.append(memoryview(prefix + message))
        self._send_rest(stream, it)
        return not it.waiting

    def _send_rest(self, number: int, stream: _Stream) -> None:
        """Send what the windows allow of what waits, and the end where that was all."""
        waiting = stream.waiting
        while waiting:
            size = min(len(waiting[0]), stream.window, self._window, self._frame_bytes)
            if size <= 0 or self._is_paused:
                return
            stream.window -= size
            self._window -= size
            self._write(frames.write_frame(Kind.DATA, 0, number, bytes(waiting[0][:size])))
            waiting[0] = waiting[0][size:]
            if not waiting[0]:
                waiting.popleft()
        if stream.sent is not None and not stream.sent.done():
            stream.sent.set_result(None)
        if stream.trailers is not None:
            self._end(number, stream, stream.trailers)

    def _end(self, number: int, stream: _Stream, trailers: bytes) -> None:
        block = trailers if stream.has_begun else RESPONSE_BLOCK + trailers
        flags = Flag.END_HEADERS | Flag.END_STREAM
        end = frames.write_frame(Kind.HEADERS, flags, number, block)
        if not stream.is_half_closed:
            end += frames.write_reset(number, ErrorCode.NO_ERROR)
        self._write(end)
        del self._streams[number]

    def _take_reset(self, _flags: int, number: int, payload: bytes) -> None:
        frames.read_number(payload, "RST_STREAM")
        if number > self._newest_stream or not number:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a reset of no call")
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.task.cancel()

    def _take_settings(self, flags: int, _number: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        for name, value in frames.read_settings(payload).items():
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._set_window(value)
            elif name == Setting.MAX_FRAME_SIZE:
                self._frame_bytes = max(frames.DEFAULT_FRAME_BYTES, value)
        self._write(frames.write_frame(Kind.SETTINGS, Flag.ACK, 0))
        self._send_all()

    def _set_window(self, size: int) -> None:
        """Let each call send so much from its beginning on."""
        grown, self._stream_window = size - self._stream_window, size
        for stream in self._streams.values():
            stream.window += grown
        largest = max((it.window for it in self._streams.values()), default=0)
        if max(size, largest) > frames.LARGEST_WINDOW:
            raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")

    def _take_window(self, _flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_window_update(payload)
        if not increment:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a window that grows by nothing")
        if number == 0:
            self._window += increment
            if self._window > frames.LARGEST_WINDOW:
                raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
            self._send_all()
            return
        stream = self._streams.get(number)
        if stream is not None:
            stream.window += increment
            if stream.window > frames.LARGEST_WINDOW:
                raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            self._send_rest(number, stream)

    def _send_all(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.waiting:
                self._send_rest(number, stream)

    def _take_ping(self, flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
        if not flags & Flag.ACK:
            self._write(frames.write_frame(Kind.PING, Flag.ACK, 0, payload))

    def _take_push(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "callers do not push")

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)


async def _unknown(call: MessageStream) -> None:
    raise CallAbortedError(StatusCode.UNIMPLEMENTED, f"no {call.metadata(':path')[:200]}")

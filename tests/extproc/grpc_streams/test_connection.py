"""What grpcio's client does not send: other ways to say the same, and what breaks the protocol."""

import asyncio
import struct

import grpc
import hpack
import pytest

from heliostat_extproc.grpc_streams import frames
from heliostat_extproc.grpc_streams.connection import Connection
from heliostat_extproc.grpc_streams.frames import ErrorCode, Flag, Kind, Setting
from heliostat_extproc.grpc_streams.message_stream import Handler, Limits, MessageStream
from tests.extproc.grpc_streams.transport import Transport

PATH = "/test.Service/Talk"
LARGEST_BYTES = 1_000_000
LIMITS = Limits(LARGEST_BYTES)
HEADERS = [(":method", "POST"), (":path", PATH), ("te", "trailers"), ("x", "y")]


class Peer:
    """The other end of a connection whose calls send back what comes."""

    def __init__(
        self,
        handler: Handler | None = None,
        limits: Limits = LIMITS,
        *,
        fails_when_cancelled: bool = False,
    ) -> None:
        self._fails_when_cancelled = fails_when_cancelled
        self.transport = Transport()
        self.seen: list[str] = []
        self.cancelled = 0
        self.encoder = hpack.Encoder()
        self.connection = Connection(
            {PATH: handler or self._echo}, limits, lambda _it: None, lambda _it: None
        )
        self.connection.connection_made(self.transport)

    async def _echo(self, stream: MessageStream) -> None:
        self.seen.append(stream.metadata("x"))
        try:
            while (message := await stream.read()) is not None:
                await stream.write(message)
        except asyncio.CancelledError:
            self.cancelled += 1
            if self._fails_when_cancelled:
                raise RuntimeError("on purpose") from None
            raise

    async def send(self, *parts: bytes, at_once: int | None = None) -> None:
        """Send bytes, as many at once as is said, and let the calls run."""
        data = b"".join(parts)
        step = at_once or len(data) or 1
        for start in range(0, len(data), step):
            self.connection.data_received(data[start : start + step])
        for _ in range(10):
            await asyncio.sleep(0)

    def block(self) -> bytes:
        """Give the header block of a call."""
        block: bytes = self.encoder.encode(HEADERS)
        return block

    def call(self, stream: int, flags: int = Flag.END_HEADERS) -> bytes:
        """Begin a call."""
        return frames.write_frame(Kind.HEADERS, flags, stream, self.block())

    def heard(self) -> list[tuple[int, int, int, bytes]]:
        """Take the frames that have come: type, flags, stream, payload."""
        data, found, at = bytes(self.transport.written), [], 0
        while at < len(data):
            length, kind, flags, stream = frames.read_head(data, at)
            at += frames.HEAD_BYTES
            found.append((kind, flags, stream, data[at : at + length]))
            at += length
        self.transport.written.clear()
        return found

    def fault(self) -> ErrorCode | None:
        """Say for what the connection has been ended."""
        for kind, _, _, payload in self.heard():
            if kind == Kind.GOAWAY:
                assert self.transport.is_closed
                return ErrorCode(struct.unpack(">L", payload[4:8])[0])
        return None


def message(text: bytes) -> bytes:
    """Give a gRPC message."""
    return b"\0" + struct.pack(">L", len(text)) + text


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """Give a DATA frame."""
    return frames.write_frame(Kind.DATA, flags, stream, payload)


def answers(heard: list[tuple[int, int, int, bytes]], stream: int) -> bytes:
    """Join what has come for a call."""
    return b"".join(p for kind, _, number, p in heard if kind == Kind.DATA and number == stream)


def _headers(stream: int, block: bytes) -> bytes:
    return frames.write_frame(Kind.HEADERS, Flag.END_HEADERS, stream, block)


@pytest.fixture
async def peer() -> Peer:
    """A connection that has begun."""
    peer = Peer()
    await peer.send(frames.PREFACE, frames.write_settings({}))
    peer.heard()
    return peer


@pytest.mark.parametrize("at_once", [1, 2, 7, 10, 1000])
async def test_frames_may_come_in_any_pieces(at_once: int) -> None:
    """Byte by byte, or many frames at once."""
    peer = Peer()
    text = message(b"one") + message(b"") + message(b"three" * 100)
    pieces = [data(1, text[start : start + 11]) for start in range(0, len(text), 11)]
    await peer.send(
        frames.PREFACE,
        frames.write_settings({}),
        peer.call(1),
        *pieces,
        data(1, b"", Flag.END_STREAM),
        at_once=at_once,
    )
    assert answers(peer.heard(), 1) == text
    assert peer.connection.is_idle


async def test_headers_may_be_padded_prioritised_and_continued(peer: Peer) -> None:
    """All at once, and the data padded as well."""
    block = peer.block()
    first = bytes([3]) + b"\0\0\0\0\x10" + block[:4] + b"\0" * 3
    flags = Flag.PADDED | Flag.PRIORITY
    await peer.send(
        frames.write_frame(Kind.HEADERS, flags, 1, first),
        frames.write_frame(Kind.CONTINUATION, 0, 1, block[4:6]),
        frames.write_frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, block[6:]),
        data(1, bytes([2]) + message(b"hi") + b"\0\0", Flag.PADDED | Flag.END_STREAM),
    )
    assert peer.seen == ["y"]
    assert answers(peer.heard(), 1) == message(b"hi")


async def test_an_answer_waits_for_the_windows() -> None:
    """Of the call and of the connection; what waits keeps its order, and the end comes last."""
    peer = Peer()
    await peer.send(
        frames.PREFACE, frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 10}), peer.call(1)
    )
    peer.heard()
    await peer.send(data(1, message(b"a" * 20) + message(b"b"), Flag.END_STREAM))
    text = message(b"a" * 20) + message(b"b")
    assert answers(peer.heard(), 1) == text[:10]
    await peer.send(frames.write_window_update(1, 15))
    assert answers(peer.heard(), 1) == text[10:25]
    await peer.send(frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 11}))
    assert answers(peer.heard(), 1) == text[25:26]
    assert not peer.connection.is_idle
    await peer.send(frames.write_window_update(1, 1000))
    heard = peer.heard()
    assert answers(heard, 1) == text[26:]
    assert heard[-1][:2] == (Kind.HEADERS, Flag.END_STREAM | Flag.END_HEADERS)
    assert peer.connection.is_idle


async def test_a_full_connection_holds_all_its_calls_back(peer: Peer) -> None:
    """Until it has room again."""
    size = frames.DEFAULT_WINDOW
    for stream in (1, 3):
        await peer.send(peer.call(stream))
        text = message(b"z" * (size - 1000))
        for start in range(0, len(text), 16_000):
            await peer.send(data(stream, text[start : start + 16_000]))
    heard = peer.heard()
    assert sum(len(answers(heard, stream)) for stream in (1, 3)) == size
    await peer.send(frames.write_window_update(0, 2 * size))
    assert len(answers(peer.heard(), 3)) == 2 * (size - 995) - size


async def test_pings_and_settings_are_answered(peer: Peer) -> None:
    """And what is unknown or an answer itself is not."""
    await peer.send(
        frames.write_frame(Kind.PING, 0, 0, b"12345678"),
        frames.write_frame(Kind.PING, Flag.ACK, 0, b"12345678"),
        frames.write_settings({Setting.HEADER_TABLE_SIZE: 0}),
        frames.write_frame(Kind.SETTINGS, Flag.ACK, 0),
        frames.write_frame(Kind.PRIORITY, 0, 1, b"\0" * 5),
        frames.write_frame(99, 0, 0, b"what is this"),
    )
    assert peer.heard() == [
        (Kind.PING, Flag.ACK, 0, b"12345678"),
        (Kind.SETTINGS, Flag.ACK, 0, b""),
    ]


async def test_a_reset_cancels(peer: Peer) -> None:
    """Also one that comes together with the call; data that was under way is passed over."""
    await peer.send(peer.call(1), data(1, message(b"x")))
    await peer.send(frames.write_reset(1, ErrorCode.CANCEL), data(1, message(b"late")))
    await peer.send(peer.call(3), frames.write_reset(3, ErrorCode.CANCEL))
    assert peer.cancelled == 1
    assert peer.connection.is_idle
    assert answers(peer.heard(), 1) == message(b"x")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"\1\0\0\0\1x" + b"more" * 1000, grpc.StatusCode.UNIMPLEMENTED),
        (b"\0" + struct.pack(">L", LARGEST_BYTES + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (message(b"abc")[:-1], grpc.StatusCode.INTERNAL),
        (b"\0\0", grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_message_that_cannot_be_read_ends_its_call_alone(
    peer: Peer, text: bytes, status: grpc.StatusCode
) -> None:
    """Compressed, too large, or not whole."""
    await peer.send(peer.call(1), data(1, text, Flag.END_STREAM))
    await peer.send(peer.call(3), data(3, message(b"fine"), Flag.END_STREAM))
    heard = peer.heard()
    (end,) = (payload for kind, _, stream, payload in heard if kind == Kind.HEADERS and stream == 1)
    told = dict(hpack.Decoder().decode(end))
    assert told["grpc-status"] == str(status.value[0])
    assert answers(heard, 3) == message(b"fine")


async def test_a_call_that_was_reset_says_nothing_more() -> None:
    """What the windows held back is dropped, however its handler ends."""
    peer = Peer(fails_when_cancelled=True)
    await peer.send(
        frames.PREFACE, frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 10}), peer.call(1)
    )
    await peer.send(data(1, message(b"a" * 100)))
    peer.heard()
    await peer.send(
        frames.write_reset(1, ErrorCode.CANCEL),
        frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 10_000}),
    )
    assert peer.cancelled == 1
    assert {kind for kind, *_ in peer.heard()} == {Kind.SETTINGS}


async def test_a_connection_that_breaks_cancels_its_calls(peer: Peer) -> None:
    """All of them, and `closed` waits for them."""
    for stream in (1, 3, 5):
        await peer.send(peer.call(stream))
    peer.connection.connection_lost(None)
    await peer.connection.closed()
    assert peer.cancelled == 3
    assert peer.connection.is_idle


async def test_a_long_header_ends_no_connection(peer: Peer) -> None:
    """As long as Envoy takes one of a client: other calls go on."""
    await peer.send(peer.call(1))
    block = peer.encoder.encode([*HEADERS, ("tracestate", "a" * 96 * 1024)])
    first, rest = block[:16_000], block[16_000:]
    pieces = [rest[start : start + 16_000] for start in range(0, len(rest), 16_000)]
    await peer.send(frames.write_frame(Kind.HEADERS, 0, 3, first))
    for number, piece in enumerate(pieces, 1):
        flags = Flag.END_HEADERS if number == len(pieces) else 0
        await peer.send(frames.write_frame(Kind.CONTINUATION, flags, 3, piece))
    await peer.send(data(3, message(b"x")), data(1, message(b"y")))
    heard = peer.heard()
    assert (answers(heard, 1), answers(heard, 3)) == (message(b"y"), message(b"x"))


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (data(1, b""), ErrorCode.PROTOCOL_ERROR),
        (data(0, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.write_frame(Kind.CONTINUATION, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.write_frame(Kind.HEADERS, Flag.PADDED, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frames.write_frame(Kind.HEADERS, Flag.PADDED, 1, b"\x05a"), ErrorCode.PROTOCOL_ERROR),
        (
            frames.write_frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"\x80"),
            ErrorCode.COMPRESSION_ERROR,
        ),
        (frames.write_frame(Kind.HEADERS, Flag.END_HEADERS, 2, b"\x88"), ErrorCode.PROTOCOL_ERROR),
        (frames.write_frame(Kind.HEADERS, 0, 1, b"") * 2, ErrorCode.PROTOCOL_ERROR),
        (
            frames.write_frame(Kind.HEADERS, 0, 1, b"")
            + frames.write_frame(Kind.CONTINUATION, 0, 1, b"\0" * 16_000) * 17,
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
        (frames.write_reset(1, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
        (frames.write_frame(Kind.RST_STREAM, 0, 1, b"123"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.write_frame(Kind.SETTINGS, 0, 0, b"123"), ErrorCode.FRAME_SIZE_ERROR),
        (
            frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
            ErrorCode.FLOW_CONTROL_ERROR,
        ),
        (
            _headers(1, b"\x88")
            + frames.write_window_update(1, 2**31 - 65_536)
            + frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 65_536}),
            ErrorCode.FLOW_CONTROL_ERROR,
        ),
        (
            _headers(1, b"\x88") + frames.write_window_update(1, 2**31 - 1),
            ErrorCode.FLOW_CONTROL_ERROR,
        ),
        (frames.write_window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (frames.write_window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.write_frame(Kind.PING, 0, 0, b"123"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.write_frame(Kind.PUSH_PROMISE, 0, 2, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.write_head(16_385, Kind.DATA, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection(
    peer: Peer, broken: bytes, code: ErrorCode
) -> None:
    """With a reason, and nothing more is read."""
    await peer.send(broken)
    assert peer.fault() is code


async def test_data_after_the_end_ends_the_connection(peer: Peer) -> None:
    """A call whose caller has said all takes nothing more."""
    await peer.send(peer.call(1, Flag.END_HEADERS), data(1, b"", Flag.END_STREAM))
    await peer.send(peer.call(3))
    peer.connection.data_received(data(3, b"", Flag.END_STREAM) + data(3, b"more"))
    assert peer.fault() is ErrorCode.STREAM_CLOSED


async def test_another_protocol_is_turned_away() -> None:
    """At its first wrong byte."""
    peer = Peer()
    peer.heard()
    await peer.send(b"GET / HTTP/1.1\r\n\r\n")
    assert peer.fault() is ErrorCode.PROTOCOL_ERROR


async def test_who_leaves_takes_no_more_calls(peer: Peer) -> None:
    """Those under way go on."""
    await peer.send(peer.call(1))
    peer.connection.leave()
    await peer.send(peer.call(3), data(1, message(b"x"), Flag.END_STREAM))
    heard = peer.heard()
    assert [kind for kind, *_ in heard].count(Kind.GOAWAY) == 1
    assert answers(heard, 1) == message(b"x")
    assert not any(stream == 3 for _, _, stream, _ in heard)


async def test_what_is_not_read_is_held_back() -> None:
    """A caller is allowed no more than the window until its messages are read."""
    reading = asyncio.Event()

    async def wait(stream: MessageStream) -> None:
        await reading.wait()
        while await stream.read() is not None:
            pass

    peer = Peer(wait, Limits(100, 1000))
    await peer.send(frames.PREFACE, frames.write_settings({}), peer.call(1))
    assert Setting.INITIAL_WINDOW_SIZE in _settings(peer.heard())
    for _ in range(10):
        await peer.send(data(1, message(b"x" * 95)))
    assert not peer.heard()
    reading.set()
    await peer.send()
    allowed = [
        struct.unpack(">L", it)[0] for kind, _, _, it in peer.heard() if kind == Kind.WINDOW_UPDATE
    ]
    assert 500 < sum(allowed) <= 1000
    for _ in range(30):
        await peer.send(data(1, message(b"x" * 95)))
    assert peer.fault() is None


async def test_who_sends_more_than_is_allowed_is_cut_off() -> None:
    """The window is the other end's to keep."""

    async def wait(_stream: MessageStream) -> None:
        await asyncio.Event().wait()

    peer = Peer(wait, Limits(100, 1000))
    await peer.send(frames.PREFACE, frames.write_settings({}), peer.call(1))
    for _ in range(10):
        await peer.send(data(1, message(b"x" * 95)))
    assert peer.fault() is None
    await peer.send(data(1, message(b"x")))
    assert peer.fault() is ErrorCode.FLOW_CONTROL_ERROR


async def test_a_writer_waits_for_who_does_not_read() -> None:
    """Of what a caller does not take, one message waits, and not more."""
    written = 0

    async def talk(stream: MessageStream) -> None:
        nonlocal written
        while True:
            await stream.write(b"x" * 95)
            written += 1

    peer = Peer(talk)
    await peer.send(
        frames.PREFACE, frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 1000}), peer.call(1)
    )
    assert written == 10
    await peer.send(frames.write_window_update(1, 250))
    assert written == 12
    peer.connection.pause_writing()
    await peer.send(frames.write_window_update(1, 10_000))
    assert written == 12
    peer.connection.resume_writing()
    await peer.send()
    assert written > 60
    await peer.send(frames.write_reset(1, ErrorCode.CANCEL))
    assert peer.connection.is_idle


async def test_a_write_that_was_given_up_hinders_no_other() -> None:
    """The next waits for itself."""
    outcomes: list[str] = []

    async def talk(stream: MessageStream) -> None:
        try:
            async with asyncio.timeout(0.01):
                await stream.write(b"x" * 100)
        except TimeoutError:
            outcomes.append("given up")
        await stream.write(b"y")
        outcomes.append("written")

    peer = Peer(talk)
    await peer.send(
        frames.PREFACE, frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 10}), peer.call(1)
    )
    async with asyncio.timeout(5):
        while not outcomes:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await peer.send(frames.write_window_update(1, 10_000))
    assert outcomes == ["given up", "written"]


async def test_padding_uses_up_no_window() -> None:
    """Also where there is more of it than of the message."""
    peer = Peer(limits=Limits(100, 1000))
    await peer.send(frames.PREFACE, frames.write_settings({}), peer.call(1))
    for byte in message(b"x" * 50):
        padded = bytes([200, byte]) + b"\0" * 200
        await peer.send(data(1, padded, Flag.PADDED))
    assert answers(peer.heard(), 1) == message(b"x" * 50)


def _settings(heard: list[tuple[int, int, int, bytes]]) -> dict[int, int]:
    return next(
        frames.read_settings(payload)
        for kind, flags, _, payload in heard
        if kind == Kind.SETTINGS and not flags & Flag.ACK
    )

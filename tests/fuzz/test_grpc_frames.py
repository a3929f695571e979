"""Whatever comes over a connection: it goes on or ends with a reason, and keeps nothing."""

import asyncio
import struct

import hpack
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.grpc_streams import frames
from heliostat_extproc.grpc_streams.connection import Connection
from heliostat_extproc.grpc_streams.frames import Flag, Kind, Setting
from heliostat_extproc.grpc_streams.message_stream import Limits, MessageStream
from tests.extproc.grpc_streams.transport import Transport

from .seeds import mutated

LARGEST_BYTES = 1000
LIMITS = Limits(LARGEST_BYTES, 2 * LARGEST_BYTES + 10)
PATH = "/s/m"


def _seeds() -> list[bytes]:
    encoder = hpack.Encoder()
    start = frames.PREFACE + frames.write_settings({Setting.INITIAL_WINDOW_SIZE: 100})
    calls = []
    for stream in (1, 3, 5):
        block = encoder.encode([(":method", "POST"), (":path", PATH), ("x", f"y{stream}")])
        message = b"\0" + struct.pack(">L", 3) + b"abc"
        calls.append(
            frames.write_frame(Kind.HEADERS, Flag.END_HEADERS, stream, block)
            + frames.write_frame(Kind.DATA, 0, stream, message * stream)
        )
    ends = [
        frames.write_frame(Kind.DATA, Flag.END_STREAM, 1),
        frames.write_reset(3, frames.ErrorCode.CANCEL),
        frames.write_window_update(0, 5) + frames.write_window_update(5, 5),
        frames.write_frame(Kind.PING, 0, 0, b"12345678"),
        frames.write_frame(Kind.HEADERS, Flag.PADDED | Flag.PRIORITY, 7, b"\x02\0\0\0\0\1\x88ab"),
        frames.write_frame(Kind.CONTINUATION, Flag.END_HEADERS, 7, b"\x84"),
        frames.write_goaway(0, frames.ErrorCode.NO_ERROR),
    ]
    whole = start + b"".join(calls)
    return [whole + b"".join(ends), whole + ends[2], start + calls[0] + ends[0], *ends]


SEEDS = _seeds()
FRAGMENTS = [*SEEDS[3:], b"\0\0", b"\xff" * 4, b"\x80", frames.write_head(16_384, 0, 0, 1)]


async def echo(stream: MessageStream) -> None:
    """Send back whatever comes."""
    while (message := await stream.read()) is not None:
        assert len(message) <= LARGEST_BYTES
        await stream.write(message)


async def converse(pieces: list[bytes]) -> None:
    """Play one connection."""
    unexpected: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, it: unexpected.append(it))
    transport, closed = Transport(), []
    connection = Connection({PATH: echo}, LIMITS, lambda _it: None, closed.append)
    connection.connection_made(transport)
    for piece in pieces:
        if transport.is_closed:
            break
        connection.data_received(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    if transport.is_closed:
        assert any(kind == Kind.GOAWAY for kind in _kinds(bytes(transport.written)))
    connection.connection_lost(None)
    for _ in range(4):
        await asyncio.sleep(0)
    assert connection.is_idle
    assert closed == [connection]
    assert len(asyncio.all_tasks()) == 1, "what served a call has ended"
    assert not unexpected


def _kinds(data: bytes) -> list[int]:
    """Read the types of the frames, all of which must be whole."""
    kinds, at = [], 0
    while at < len(data):
        length, kind, _, _ = frames.read_head(data, at)
        at += frames.HEAD_BYTES + length
        kinds.append(kind)
    assert at == len(data)
    return kinds


@given(mutated(SEEDS, FRAGMENTS), st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_a_connection_survives_anything(data: bytes, sizes: list[int]) -> None:
    """In pieces of any sizes."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    asyncio.run(converse([*pieces, data[at:]]))

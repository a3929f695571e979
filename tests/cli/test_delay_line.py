"""The delay line: bytes come late, in order, whole, and no faster than they are taken."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from heliostat_cli.demonstration.delay_line import DelayLine

ROUND_TRIP_SECONDS = 0.1
DEADLINE_SECONDS = 10.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def through_line(handler: Handler) -> AsyncIterator[Streams]:
    """A connection through a line to a server with this handler."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(DEADLINE_SECONDS), DelayLine(port, ROUND_TRIP_SECONDS) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


async def test_an_answer_takes_a_round_trip() -> None:
    """After the handshake, each question is answered a round trip later and hardly more."""
    clock = asyncio.get_running_loop().time
    async with through_line(echo) as (reader, writer):
        began_at = clock()
        writer.write(b"a")
        await reader.readexactly(1)
        assert clock() - began_at + 0.01 >= 2 * ROUND_TRIP_SECONDS
        taken = []
        for _ in range(3):
            began_at = clock()
            writer.write(b"b")
            await reader.readexactly(1)
            taken.append(clock() - began_at)
        assert ROUND_TRIP_SECONDS - 0.01 < min(taken) < ROUND_TRIP_SECONDS + 0.05


async def test_bytes_stay_whole_and_in_order_while_many_are_under_way() -> None:
    """Megabytes come back as they were sent, though no round trip is waited for; then the end."""
    sent = b"".join(number.to_bytes(4) for number in range(1_000_000))
    async with through_line(echo) as (reader, writer):

        async def send() -> None:
            for begin in range(0, len(sent), 100_000):
                writer.write(sent[begin : begin + 100_000])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read(-1) == sent
        await sending


async def test_what_is_not_taken_is_not_read() -> None:
    """A far end that reads nothing stops the near end, before memory fills up."""
    stop = asyncio.Event()

    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    async with through_line(deaf) as (_, writer):
        written = 0
        with suppress(TimeoutError):
            while written < 256 << 20:
                writer.write(bytes(1 << 20))
                written += 1 << 20
                await asyncio.wait_for(writer.drain(), 1.0)
        assert written < 64 << 20
        stop.set()


async def test_a_cut_comes_late_too() -> None:
    """When the far end aborts, the near end learns it half a round trip later."""
    clock = asyncio.get_running_loop().time
    cut_at = asyncio.get_running_loop().create_future()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()
        cut_at.set_result(clock())

    async with through_line(cut) as (reader, writer):
        writer.write(b"ab")
        with suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        assert clock() - await cut_at >= ROUND_TRIP_SECONDS / 2 - 0.01


async def test_nobody_there_ends_the_connection(unused_tcp_port: int) -> None:
    """A far end that refuses is an end of the stream, a round trip later."""
    async with asyncio.timeout(DEADLINE_SECONDS), DelayLine(unused_tcp_port, 0.05) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        writer.close()


async def test_leaving_cuts_what_runs() -> None:
    """Once the line is left, its connections end and its port is free."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with DelayLine(server.sockets[0].getsockname()[1], 0.01) as line:
            reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
            writer.write(b"a")
            await reader.readexactly(1)
        with suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", line.port)
    writer.close()
    server.close()

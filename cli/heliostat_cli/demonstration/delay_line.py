"""A way over the sea on one machine: TCP connections whose bytes come as late as over a real one.

Each chunk comes half a round trip after it was read, in order; a connection takes a round trip to
be made, as TCP's own handshake does. What the far end does not read is held up to a bound, and then
the near end is not read either. Ends and resets travel as late as bytes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

_HOST = "127.0.0.1"
_CHUNK_BYTES = 16 * 1024
_CHUNKS_UNDER_WAY = 512
"""In each direction of a connection: thousands a second, where the way takes a tenth of one."""


class DelayLine:
    """Listens on `port` and passes on to a port of this machine; an async context manager."""

    def __init__(self, target_port: int, round_trip_seconds: float) -> None:
        self._target_port = target_port
        self._round_trip_seconds = round_trip_seconds
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        """Where it listens, on loopback."""

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(
        self, near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter
    ) -> None:
        with _closing(near_writer):
            await asyncio.sleep(self._round_trip_seconds)
            try:
                far_reader, far_writer = await asyncio.open_connection(_HOST, self._target_port)
            except OSError:
                near_writer.transport.abort()
                return
            with _closing(far_writer):
                way_seconds = self._round_trip_seconds / 2
                async with asyncio.TaskGroup() as group:
                    group.create_task(_Way(near_reader, far_writer, way_seconds).run())
                    group.create_task(_Way(far_reader, near_writer, way_seconds).run())


@contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Close in the end, with what is written but not yet sent; at once where it is cut."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    writer.close()


class _Way:
    """One direction of a connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = seconds
        self._clock = asyncio.get_running_loop().time
        self._under_way: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(
            _CHUNKS_UNDER_WAY
        )
        """When a chunk comes, and the chunk: empty for the end of the stream, None for a reset."""

    async def run(self) -> None:
        """Carry until the stream ends or is reset."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._write())

    async def _read(self) -> None:
        chunk: bytes | None = b"."
        while chunk:
            try:
                chunk = await self._reader.read(_CHUNK_BYTES)
            except OSError:
                chunk = None
            await self._under_way.put((self._clock() + self._seconds, chunk))

    async def _write(self) -> None:
        """Write what has come; what nobody takes any more is lost."""
        chunk: bytes | None = b"."
        while chunk:
            due_at, chunk = await self._under_way.get()
            await asyncio.sleep(max(0.0, due_at - self._clock()))
            with suppress(OSError, RuntimeError):
                await self._pass_on(chunk)

    async def _pass_on(self, chunk: bytes | None) -> None:
        if chunk is None:
            self._writer.transport.abort()
        elif chunk:
            self._writer.write(chunk)
            await self._writer.drain()
        else:
            self._writer.write_eof()

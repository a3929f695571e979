"""Listens on a Unix socket and serves the calls of whoever connects."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from heliostat_extproc.grpc_streams.connection import Connection
from heliostat_extproc.grpc_streams.message_stream import Handler, Limits
from heliostat_extproc.unix_socket import OwnSocket

_POLL_SECONDS = 0.01
_BACKLOG = 1024


class StreamServer:
    """Serves calls by their paths, `/SERVICE/METHOD`."""

    def __init__(self, handlers: Mapping[str, Handler], limits: Limits) -> None:
        self._handlers = handlers
        self._limits = limits
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._socket: OwnSocket | None = None

    async def start(self, path: Path) -> None:
        """Listen; raise OSError where that cannot be, SocketTakenError where it is not free."""
        socket = OwnSocket(path)
        await socket.check_free()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connect, path, backlog=_BACKLOG)
        socket.claim()
        self._socket = socket

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, and end after this time those that are still under way."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.leave()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_seconds
        while loop.time() < until and self._is_busy():  # noqa: ASYNC110 - only while stopping
            await asyncio.sleep(_POLL_SECONDS)
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.closed()
        if self._socket is not None:
            self._socket.release()

    def _is_busy(self) -> bool:
        return not all(connection.is_idle for connection in self._connections)

    def _connect(self) -> Connection:
        return Connection(
            self._handlers,
            self._limits,
            self._connections.add,
            self._connections.discard,
        )

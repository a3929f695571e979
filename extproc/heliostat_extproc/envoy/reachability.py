"""Tells Envoy which regions are reachable: it asks here, many times a second, of each of them.

Envoy takes a 503 for an explicit no, and cuts the connections to that region. Anything else that
is no 200 would be one too, so there is no other answer.
"""

import asyncio
from pathlib import Path
from typing import cast
from urllib.parse import quote

from heliostat_extproc.unix_socket import OwnSocket

_PATH_PREFIX = "/regions/"
_YES = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_NO = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
_END = b"\r\n\r\n"
_LONGEST_HEAD_BYTES = 8192


def health_path(region: str) -> str:
    """Give the path at which Envoy asks of a region."""
    return _PATH_PREFIX + quote(region, safe="")


class ReachabilityServer:
    """Answers on a Unix socket; a region counts as reachable until the router says otherwise."""

    def __init__(self, socket: Path) -> None:
        self._socket = OwnSocket(socket)
        self._unreachable: set[str] = set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; OSError where that cannot be, SocketTakenError where it is not free."""
        path = self._socket.path
        path.parent.mkdir(parents=True, exist_ok=True)
        await self._socket.check_free()
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Connection(self._unreachable, self._connections), path
        )
        self._socket.claim()

    def set_reachable(self, region: str, reachable: bool) -> None:
        """Say it of a region; what runs to one that is not comes back at once."""
        if reachable:
            self._unreachable.discard(health_path(region))
        else:
            self._unreachable.add(health_path(region))

    def stop(self) -> None:
        """Answer no more, which Envoy takes for no change."""
        if self._server is not None:
            self._server.close()
            self._socket.release()
        for connection in tuple(self._connections):
            connection.close()


class _Connection(asyncio.Protocol):
    """One of Envoy's connections: requests without bodies, one after the other."""

    def __init__(self, unreachable: set[str], connections: "set[_Connection]") -> None:
        self._unreachable = unreachable
        self._connections = connections
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's have no base class
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._transport is not None and _END in self._received:
            head, _, self._received = self._received.partition(_END)
            self._transport.write(self._answer(head))
        if len(self._received) > _LONGEST_HEAD_BYTES:
            self.close()

    def _answer(self, head: bytes) -> bytes:
        _method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].decode("ascii", "replace")
        return _NO if path in self._unreachable else _YES

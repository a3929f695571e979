"""Where the router's gRPC is served: all of it to its own Envoy, picking alone to other gateways.

Whoever can send configuration acknowledgements and access logs can mislead the router, and whoever
gets its whole answers learns the engines' key. Over the network there is the endpoint picker
without that key, and its health.
"""

import asyncio
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from heliostat_extproc.certificates import CertificateError, CertificateFiles, server_credentials
from heliostat_extproc.envoy.addresses import requests_socket, state_socket
from heliostat_extproc.federation.protocol import LARGEST_REQUEST_BYTES, UNREAD_BYTES
from heliostat_extproc.grpc_streams.message_stream import Handler, Limits
from heliostat_extproc.grpc_streams.server import StreamServer
from heliostat_extproc.unix_socket import OwnSocket

_LONGEST_MESSAGE_BYTES = 256 * 1024 * 1024
_OPTIONS = (
    # The exchange has a lower limit, and answers 413 where gRPC would cut the stream.
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE_BYTES),
    # A second router on the same port must fail, not take half of the requests.
    ("grpc.so_reuseport", 0),
)


class ListenError(RuntimeError):
    """The router cannot listen where it should."""


@dataclass(frozen=True, slots=True)
class PickerAddress:
    """Where other gateways ask which endpoint a request goes to."""

    address: str
    """`host:port`."""
    tls: bool = False
    certificate: CertificateFiles | None = None
    """With `tls`: None makes one at the start."""
    fallbacks: int = 0
    """Endpoints that are named after the pick: some gateways can read no list."""


class Listeners:
    """The gRPC servers of one router.

    `requests` serves what Envoy asks and tells of each request, `state` the router's watchers;
    `add_all` registers every other service, `add_picker` those of the endpoint picker.
    """

    def __init__(
        self,
        socket: Path,
        picker: PickerAddress | None,
        *,
        requests: Mapping[str, Handler],
        state: Mapping[str, Handler] | None,
        add_all: Callable[[grpc.aio.Server], None],
        add_picker: Callable[[grpc.aio.Server], None],
    ) -> None:
        self._socket = OwnSocket(socket)
        self._picker = picker
        self._add_all = add_all
        self._add_picker = add_picker
        self._streams = {
            requests_socket(socket): StreamServer(requests, Limits(_LONGEST_MESSAGE_BYTES))
        }
        if state is not None:
            limits = Limits(LARGEST_REQUEST_BYTES, UNREAD_BYTES)
            self._streams[state_socket(socket)] = StreamServer(state, limits)
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        """Listen; raise `ListenError` where a port is taken or a certificate is of no use."""
        try:
            await self._start()
        except OSError as error:
            raise ListenError(f"cannot listen: {error}") from error

    async def _start(self) -> None:
        self._socket.path.parent.mkdir(parents=True, exist_ok=True)
        await self._socket.check_free()
        self._servers.append(_server(f"unix:{self._socket.path}", None, self._add_all))
        self._socket.claim()
        if self._picker is not None:
            credentials = _credentials(self._picker)
            self._servers.append(_server(self._picker.address, credentials, self._add_picker))
        # Before the configuration, with which Envoy begins to send requests.
        for path, streams in self._streams.items():
            await streams.start(path)
        for server in self._servers:
            await server.start()

    async def stop(self, grace_seconds: float) -> None:
        """End every stream, at once those that are still open after this time."""
        stops = [streams.stop(grace_seconds) for streams in self._streams.values()]
        stops += [server.stop(grace_seconds) for server in self._servers]
        await asyncio.gather(*stops)
        self._socket.release()


def _credentials(picker: PickerAddress) -> grpc.ServerCredentials | None:
    if not picker.tls:
        return None
    try:
        return server_credentials(picker.certificate, platform.node() or "localhost")
    except CertificateError as error:
        raise ListenError(f"no TLS on {picker.address}: {error}") from error


def _server(
    address: str,
    credentials: grpc.ServerCredentials | None,
    add: Callable[[grpc.aio.Server], None],
) -> grpc.aio.Server:
    server = grpc.aio.server(options=_OPTIONS)
    add(server)
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address}: {error}") from error
    return server

"""One call of a connection: puts its messages together, and gives them to its handler."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import NoReturn, Protocol

from grpc import StatusCode

from heliostat_extproc.grpc_streams.message_stream import PREFIX_BYTES


class CallAbortedError(Exception):
    """A handler ends its call with this status."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Outlet(Protocol):
    """Where a call's messages go."""

    def send(self, stream: int, message: bytes) -> bool:
        """Send one message, after those before it; false where it has to wait."""
        ...

    async def sent(self, stream: int) -> None:
        """Wait until all messages are sent."""
        ...

    def on_read(self, stream: int, size: int) -> None:
        """So many bytes have been read, and leave room for others."""
        ...


class Call:
    """What has come of a call, and the way back: a `MessageStream`."""

    def __init__(
        self, stream: int, headers: Mapping[str, str], outlet: Outlet, largest_bytes: int
    ) -> None:
        self._stream = stream
        self._headers = headers
        self._outlet = outlet
        self._largest_bytes = largest_bytes
        self._messages: deque[bytes] = deque()
        self._head = b""
        """What has come of the next message's prefix."""
        self._parts: list[bytes] = []
        """What has come of a message."""
        self._missing: int | None = None
        """Bytes of it that have not; None between messages."""
        self._is_complete = False
        self._problem: CallAbortedError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def metadata(self, name: str) -> str:
        """Give what the caller says beside its messages; empty where there is nothing."""
        return self._headers.get(name, "")

    async def read(self) -> bytes | None:
        """Take the next message; None once the caller has said all. One reader at a time."""
        while not self._messages:
            if self._problem is not None:
                raise self._problem
            if self._is_complete:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._outlet.on_read(self._stream, len(message) + PREFIX_BYTES)
        return message

    async def write(self, message: bytes) -> None:
        """Send a message; returns once the caller takes it."""
        if not self._outlet.send(self._stream, message):
            await self._outlet.sent(self._stream)

    async def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with this status: raises."""
        raise CallAbortedError(code, details)

    def on_data(self, data: bytes) -> None:
        """Take in what has come: part of a message, or several."""
        if self._problem is not None:
            return
        if self._missing is None and not self._head and _is_one_message(data, self._largest_bytes):
            self._messages.append(data[PREFIX_BYTES:])
            self._wake()
            return
        if self._missing is not None and len(data) < self._missing:
            self._parts.append(data)
            self._missing -= len(data)
            return
        while data and self._problem is None:
            data = self._take_part(data)
        self._wake()

    def _take_part(self, data: bytes) -> bytes:
        """Take in the rest of a message, or the prefix of the next; give what is left."""
        if self._missing is None:
            data, self._head = self._head + data, b""
            if len(data) < PREFIX_BYTES:
                self._head = data
                return b""
            self._missing = self._read_prefix(data)
            data = data[PREFIX_BYTES:]
        self._parts.append(data[: self._missing])
        data, missing = data[self._missing :], self._missing - len(data)
        self._missing = max(0, missing)
        if missing <= 0 and self._problem is None:
            self._messages.append(b"".join(self._parts))
            self._parts, self._missing = [], None
        return data

    def _read_prefix(self, data: bytes) -> int:
        length = int.from_bytes(data[1:PREFIX_BYTES])
        if data[0]:
            self._fail(StatusCode.UNIMPLEMENTED, "compressed messages are not understood")
        elif length > self._largest_bytes:
            self._fail(StatusCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes")
        return length

    def on_complete(self) -> None:
        """The caller has said all."""
        if self._head or self._missing is not None:
            self._fail(StatusCode.INTERNAL, "the last message is not whole")
        self._is_complete = True
        self._wake()

    def _fail(self, code: StatusCode, details: str) -> None:
        if self._problem is None:
            self._problem = CallAbortedError(code, details)
        self._parts.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _is_one_message(data: bytes, largest_bytes: int) -> bool:
    """Whether this is exactly one message, not compressed and not too large."""
    head, size = data[:PREFIX_BYTES], len(data) - PREFIX_BYTES
    return 0 <= size <= largest_bytes and not head[0] and int.from_bytes(head[1:]) == size

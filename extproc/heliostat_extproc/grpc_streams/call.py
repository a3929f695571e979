"""One call of a connection: puts its messages together, and gives them to its handler."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import NoReturn, Protocol

from grpc import StatusCode

_PREFIX_BYTES = 5


class CallAbortedError(Exception):
    """A handler ends its call with this status."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Outlet(Protocol):
    """Where a call's messages go."""

    def send(self, stream: int, message: bytes) -> None:
        """Send one message, after those before it."""
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
        self._partial = bytearray()
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
        return self._messages.popleft()

    async def write(self, message: bytes) -> None:
        """Send a message."""
        self._outlet.send(self._stream, message)

    async def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with this status: raises."""
        raise CallAbortedError(code, details)

    def on_data(self, data: bytes) -> None:
        """Take in what has come: part of a message, or several."""
        if not self._partial and _is_one_message(data):
            self._messages.append(data[_PREFIX_BYTES:])
        elif self._problem is None:
            self._partial += data
            self._split()
        self._wake()

    def on_complete(self) -> None:
        """The caller has said all."""
        if self._partial:
            self._fail(StatusCode.INTERNAL, "the last message is not whole")
        self._is_complete = True
        self._wake()

    def _split(self) -> None:
        partial, start = self._partial, 0
        while len(partial) - start >= _PREFIX_BYTES and self._problem is None:
            length = int.from_bytes(partial[start + 1 : start + _PREFIX_BYTES])
            if partial[start]:
                self._fail(StatusCode.UNIMPLEMENTED, "compressed messages are not understood")
            elif length > self._largest_bytes:
                self._fail(StatusCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes")
            end = start + _PREFIX_BYTES + length
            if self._problem is not None or len(partial) < end:
                break
            self._messages.append(bytes(partial[start + _PREFIX_BYTES : end]))
            start = end
        del partial[:start]

    def _fail(self, code: StatusCode, details: str) -> None:
        if self._problem is None:
            self._problem = CallAbortedError(code, details)
        self._partial.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _is_one_message(data: bytes) -> bool:
    """Whether this is exactly one message, not compressed."""
    head = data[:_PREFIX_BYTES]
    return (
        len(head) == _PREFIX_BYTES
        and not head[0]
        and int.from_bytes(head[1:]) == len(data) - _PREFIX_BYTES
    )

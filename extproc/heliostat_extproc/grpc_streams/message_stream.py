"""What a service sees of a call, whichever server it came in by."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

from grpc import StatusCode

PREFIX_BYTES = 5
"""Before each message."""


class MessageStream(Protocol):
    """A call with messages each way, as bytes."""

    async def read(self) -> bytes | None:
        """Take the next message; None once the caller has said all. One reader at a time."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message; returns once the caller takes it, so that what waits is bounded."""
        ...

    async def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with this status: raises."""
        ...

    def metadata(self, name: str) -> str:
        """Give what the caller says beside its messages: repeated values with commas between, empty
        where there is nothing."""
        ...


Handler: TypeAlias = Callable[[MessageStream], Awaitable[None]]
"""Serves one call, which ends when it returns or raises. Cancelled when the caller leaves."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may take."""

    largest_bytes: int
    """Of a message."""
    window_bytes: int = 2**31 - 1
    """What may come before it is read, at least two of the largest messages: it grows anew once
    half of it has been read. The default, which is the largest, holds nobody back."""

    def __post_init__(self) -> None:
        if 2 * (self.largest_bytes + PREFIX_BYTES) > self.window_bytes:
            raise ValueError("two messages must fit into the window")

"""What a service sees of a call, whichever server it came in by."""

from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol, TypeAlias

from grpc import StatusCode


class MessageStream(Protocol):
    """A call with messages each way, as bytes."""

    async def read(self) -> bytes | None:
        """Take the next message; None once the caller has said all. One reader at a time."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message."""
        ...

    async def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with this status: raises."""
        ...

    def metadata(self, name: str) -> str:
        """Give what the caller says beside its messages; empty where there is nothing."""
        ...


Handler: TypeAlias = Callable[[MessageStream], Awaitable[None]]
"""Serves one call, which ends when it returns or raises. Cancelled when the caller leaves."""

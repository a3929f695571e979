"""The other end of a connection, as a list of bytes."""

import asyncio


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: object) -> None:
        self.written += data  # type: ignore[operator]

    def close(self) -> None:
        self.is_closed = True

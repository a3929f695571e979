"""The path of a Unix socket: taken from nobody who listens, and left to whoever has it by now."""

import asyncio
from contextlib import suppress
from pathlib import Path


class SocketTakenError(OSError):
    """It cannot be listened on this path; the text says why."""


class OwnSocket:
    """A path that this process listens on, from `claim` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None

    async def check_free(self) -> None:
        """Raise SocketTakenError where somebody listens there, or where no socket can be."""
        if self.path.exists() and not self.path.is_socket():
            raise SocketTakenError(f"{self.path} is no socket")
        try:
            _, writer = await asyncio.open_unix_connection(self.path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise SocketTakenError(f"{self.path}: {error.strerror or error}") from error
        writer.close()
        raise SocketTakenError(f"somebody else listens on {self.path}")

    def claim(self) -> None:
        """Note that what is there now is this process' own."""
        found = self.path.stat()
        self._identity = found.st_dev, found.st_ino

    def release(self) -> None:
        """Take it away, unless another has taken its place."""
        with suppress(FileNotFoundError):
            found = self.path.stat()
            if self._identity == (found.st_dev, found.st_ino):
                self.path.unlink()
        self._identity = None

"""The path of a Unix socket: taken from nobody who listens, and left to whoever has it by now."""

import asyncio
import errno
from contextlib import suppress
from pathlib import Path


class OwnSocket:
    """A path that this process listens on, from `claim` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None

    async def check_free(self) -> None:
        """Raise OSError where somebody listens there, or where it is no socket."""
        if self.path.exists() and not self.path.is_socket():
            raise FileExistsError(errno.EEXIST, "is no socket", str(self.path))
        with suppress(FileNotFoundError, ConnectionRefusedError):
            _, writer = await asyncio.open_unix_connection(self.path)
            writer.close()
            raise OSError(errno.EADDRINUSE, "somebody else listens there", str(self.path))

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

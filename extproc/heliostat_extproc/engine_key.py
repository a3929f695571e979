"""The API key that engines ask for: the router gives it to them, so that clients need not know it.

It lies in a file, as Kubernetes mounts a Secret, and may be replaced while the router runs.
"""

import asyncio
from pathlib import Path

import structlog

POLL_SECONDS = 2.0
"""How often the file is read: it is small, and a watch would miss how Kubernetes replaces it."""

_log = structlog.get_logger(__name__)


class EngineKeyError(RuntimeError):
    """The file holds no key that can be sent."""


class EngineKey:
    """The key in a file; raise `EngineKeyError` where there is none at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.authorization = f"Bearer {_read_key(path)}"
        """The value of the header `authorization` for engines."""
        self._problem = ""

    async def follow(self) -> None:
        """Take new keys for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.reload()

    def reload(self) -> None:
        """Read the file again; while it holds no key, the last one stays."""
        try:
            authorization = f"Bearer {_read_key(self._path)}"
        except EngineKeyError as error:
            if str(error) != self._problem:
                _log.warning("engine API key not reloaded", problem=str(error))
            self._problem = str(error)
            return
        self._problem = ""
        if authorization != self.authorization:
            self.authorization = authorization
            _log.info("engine API key reloaded", file=str(self._path))


def _read_key(path: Path) -> str:
    try:
        key = path.read_text("ascii").strip()
    except OSError as error:
        raise EngineKeyError(f"cannot read the engine API key {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EngineKeyError(f"the engine API key in {path} must be ASCII") from error
    if not key:
        raise EngineKeyError(f"the engine API key file {path} is empty")
    if not key.isprintable() or " " in key:
        raise EngineKeyError(f"the engine API key in {path} must be one word")
    return key

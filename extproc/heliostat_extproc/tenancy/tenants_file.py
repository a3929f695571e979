"""The file of tenants, which may be replaced while the router runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from heliostat_crds.tenants import Tenants, TenantsError, parse_tenants

POLL_SECONDS = 2.0
"""How often the file is read: a watch would miss how Kubernetes replaces what it mounts."""
LARGEST_BYTES = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


class TenantsFileError(RuntimeError):
    """The file holds no tenants that can be used."""


class TenantsFile:
    """The tenants in a file; raise `TenantsFileError` where there are none at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self.tenants = self._read()
        self.problem = ""
        """Why the file as it is now is not in use; empty where it is."""

    async def follow(self, on_change: Callable[[Tenants], None]) -> None:
        """Take over other tenants for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            # In a thread: thousands of tenants take longer to read than Envoy waits for a word.
            if await asyncio.to_thread(self.reload):
                on_change(self.tenants)

    def reload(self) -> bool:
        """Read the file again, and say whether it is another; one that is wrong changes nothing."""
        before = self._text
        try:
            tenants = self._read()
        except TenantsFileError as error:
            if str(error) != self.problem:
                _log.warning("tenants not reloaded", problem=str(error))
            self.problem = str(error)
            return False
        self.problem = ""
        if self._text == before:
            return False
        self.tenants = tenants
        _log.info("tenants reloaded", file=str(self._path), tenants=len(tenants.tenants))
        return True

    def _read(self) -> Tenants:
        try:
            with self._path.open("rb") as file:
                data = file.read(LARGEST_BYTES + 1)
        except OSError as error:
            raise TenantsFileError(
                f"cannot read the tenants in {self._path}: {error.strerror}"
            ) from error
        if len(data) > LARGEST_BYTES:
            raise TenantsFileError(f"{self._path} is larger than {LARGEST_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise TenantsFileError(f"{self._path} is not UTF-8") from error
        if text == self._text and text:
            return self.tenants
        try:
            tenants = parse_tenants(text)
        except TenantsError as error:
            raise TenantsFileError(f"{self._path}: {error}") from error
        self._text = text
        return tenants

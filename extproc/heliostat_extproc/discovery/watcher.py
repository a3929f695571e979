"""Tells when a folder may have changed: at once where the system says so, else at the next look.

The folder may be missing, vanish, or be replaced by another of the same name, as a symbolic link
that is swapped does; the watch then moves to what the path leads to.
"""

import asyncio
import contextlib
from pathlib import Path

import structlog
from watchfiles import awatch

_QUIET_MILLISECONDS = 50
"""A change is told when the folder has been quiet for this long ..."""
_DEBOUNCE_MILLISECONDS = 100
"""... or this long after the first of a burst."""
_MISSING_POLL_SECONDS = 0.1

_log = structlog.get_logger(__name__)


class FolderWatcher:
    """Watches the entries of one folder, not those of folders inside it."""

    def __init__(self, path: Path, resync_seconds: float) -> None:
        self._path = path
        self._resync_seconds = resync_seconds
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watched: tuple[int, int] | None = None
        self._failure: str | None = None

    async def follow(self) -> None:
        """Watch what the path leads to now. Changes after this call are not missed."""
        identity = await asyncio.to_thread(self._identity)
        ended = self._task is not None and self._task.done()
        if identity == self._watched and not ended:
            return
        await self.close()
        self._watched = identity
        if identity is not None:
            self._task = asyncio.create_task(self._watch())
            await asyncio.sleep(0)  # the task's first step sets the watch up

    async def wait(self) -> None:
        """Return when the folder may have changed, at the next resync at the latest."""
        timeout = self._resync_seconds if self._watched else _MISSING_POLL_SECONDS
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)
        self._changed.clear()

    async def close(self) -> None:
        """Stop watching."""
        task, self._task, self._watched = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _watch(self) -> None:
        """Report changes until the folder itself is touched: it may be another one then."""
        folder = str(self._path)
        try:
            async for changes in awatch(
                folder,
                watch_filter=None,
                step=_QUIET_MILLISECONDS,
                debounce=_DEBOUNCE_MILLISECONDS,
                recursive=False,
            ):
                self._failure = None
                self._changed.set()
                if any(path == folder for _, path in changes):
                    return
        except Exception as error:
            self._report(str(error))

    def _report(self, failure: str) -> None:
        if failure != self._failure:
            _log.warning(
                "folder-watch-failed",
                folder=str(self._path),
                error=failure,
                resync_seconds=self._resync_seconds,
            )
        self._failure = failure

"""Discovery from a folder of manifests, watched live: pools and peers without a cluster.

Reads `*.yaml` and `*.yml` in the folder itself; hidden files are left alone.
"""

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import structlog

from heliostat_crds.manifest import MAX_FILE_BYTES, parse_manifests
from heliostat_crds.problem import ManifestProblem
from heliostat_extproc.discovery.folder_state import (
    Contents,
    FolderState,
    Unreadable,
    read_folder,
)
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_extproc.discovery.watcher import FolderWatcher

_SUFFIXES = (".yaml", ".yml")
_REMEMBERED_FILES = 1024
"""Files whose parsed form is kept, so that a change of one does not parse the others again."""

_log = structlog.get_logger(__name__)


class FolderDiscovery:
    """The pools and peers that the manifests in a folder declare.

    `own_region` is the region of this router, which no peer may be. `resync_seconds` is how often
    the folder is read even where no change was told: a link that leads out of the folder, a network
    file system.
    """

    def __init__(
        self, path: Path, *, own_region: str | None = None, resync_seconds: float = 2.0
    ) -> None:
        self._path = path
        self._own_region = own_region
        self._resync_seconds = resync_seconds
        self._parse = lru_cache(_REMEMBERED_FILES)(parse_manifests)
        self._read_at: float | None = None

    def age_seconds(self) -> float:
        """Seconds since the folder was last read; infinite before the first time."""
        return float("inf") if self._read_at is None else time.monotonic() - self._read_at

    async def watch(self) -> AsyncIterator[Snapshot]:
        """Give the snapshot of the first full reading, then each that differs from the last.

        There is no snapshot before the folder could be read once. When it can no longer be read,
        its pools stay in force and the snapshot's problems say so.
        """
        state: FolderState | None = None
        watcher = FolderWatcher(self._path, self._resync_seconds)
        waiting = False
        try:
            while True:
                await watcher.follow()
                fresh = await asyncio.to_thread(self._read, state)
                if fresh is None:
                    if not waiting:
                        _log.warning("folder-missing", folder=str(self._path))
                    waiting = True
                else:
                    changed = state is None or fresh.snapshot != state.snapshot
                    state = fresh
                    if changed:
                        yield fresh.snapshot
                await watcher.wait()
        finally:
            await watcher.close()

    def _read(self, before: FolderState | None) -> FolderState | None:
        """Read everything; None where the folder cannot be read and never could."""
        last = before or FolderState(Snapshot(), {})
        try:
            contents = read_contents(self._path)
            self._read_at = time.monotonic()
        except OSError as error:
            if before is None:
                return None
            problem = ManifestProblem(
                str(self._path), None, "", f"the folder cannot be read: {error.strerror}"
            )
            return replace(before, snapshot=replace(before.snapshot, problems=(str(problem),)))
        return read_folder(
            contents,
            last.accepted,
            self._parse,
            last_peers=last.peers,
            own_region=self._own_region,
        )


def read_contents(folder: Path) -> Contents:
    """Read the manifests in a folder; OSError where the folder itself cannot be read."""
    contents: dict[str, str | Unreadable] = {}
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.suffix not in _SUFFIXES:
            continue
        text = _read_text(entry)
        if text is not None:
            contents[entry.name] = text
    return contents


def _read_text(file: Path) -> str | Unreadable | None:
    """Read one file; None where it is gone or is no file."""
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            return Unreadable("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            return Unreadable(f"larger than {MAX_FILE_BYTES} bytes")
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Unreadable("a link to a file that is not there") if file.is_symlink() else None
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}")
    except OSError as error:
        return Unreadable(f"cannot be read: {error.strerror}")

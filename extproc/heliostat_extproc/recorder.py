"""Writes the log of (now, event, commands) from which a run can be replayed: JSON, a line a step.

It holds the hashes and lengths of prompts, never their text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from heliostat_routing.commands import Command
from heliostat_routing.events import Event
from heliostat_routing.recording import encode_step

_BUFFER_BYTES = 1024 * 1024

_log = structlog.get_logger(__name__)


class FileRecorder:
    """Appends steps to a file. A disk that fails ends the recording, not the router."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO | None = file
        self._encode = msgspec.json.Encoder().encode

    def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        """Append one step."""
        if self._file is None:
            return
        try:
            self._file.write(self._encode(encode_step(now, event, commands)) + b"\n")
        except OSError as error:
            self._file = None
            _log.error("recording ended", reason=error.strerror)


@contextmanager
def record_to(path: Path | None) -> Iterator[FileRecorder | None]:
    """Record to a new file at this path while the context lasts; None records nothing."""
    if path is None:
        yield None
        return
    with path.open("wb", buffering=_BUFFER_BYTES) as file:
        yield FileRecorder(file)

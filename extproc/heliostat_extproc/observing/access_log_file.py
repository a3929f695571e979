"""Writes the access log, a JSON object a line, in a thread: no disk or pipe holds up a request.

What cannot be written in time is lost and counted: the log is for people, not for accounts.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from heliostat_extproc.observing.request_record import Ending, RequestRecord
from heliostat_extproc.observing.request_story import log_line

MOST_WAITING = 10_000
"""Requests that wait to be written."""
_FLUSH_SECONDS = 0.2
_STOP_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class AccessLogFile:
    """A file that gets a line for each request. One that fails is tried again."""

    def __init__(self, file: BinaryIO, most_waiting: int = MOST_WAITING) -> None:
        self._file = file
        self._most_waiting = most_waiting
        self._waiting: deque[RequestRecord] = deque()
        self._encode = msgspec.json.Encoder().encode
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._failed = False
        self.lost_lines = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def tell(self, record: RequestRecord) -> None:
        """Write a request that has ended, soon."""
        if record.ending is Ending.ANSWERED_HERE:
            return
        if len(self._waiting) >= self._most_waiting:
            self.lost_lines += 1
            return
        self._waiting.append(record)

    def stop(self) -> None:
        """Write what waits, if that can be done soon."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(_FLUSH_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        count = len(self._waiting)
        if not count:
            return
        records = [self._waiting.popleft() for _ in range(count)]
        try:
            lines = [self._encode(log_line(record)) for record in records]
            self._file.write(b"\n".join(lines) + b"\n")
            self._file.flush()
            self._failed = False
        except Exception as error:
            self.lost_lines += count
            if not self._failed:
                self._failed = True
                _log.error("the access log cannot be written", reason=str(error))


@contextmanager
def access_log_to(path: Path | None) -> Iterator[AccessLogFile | None]:
    """Write to the end of this file while the context lasts: `-` is stdout, None writes nothing."""
    if path is None:
        yield None
        return
    file = sys.stdout.buffer if str(path) == "-" else path.open("ab")
    log = AccessLogFile(file)
    log.start()
    try:
        yield log
    finally:
        log.stop()
        if file is not sys.stdout.buffer:
            file.close()

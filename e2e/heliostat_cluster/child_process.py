"""Programs that belong to the cluster and end with it, however it ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from heliostat_cluster.errors import ClusterError
from heliostat_extproc.envoy import leash

_POLL_SECONDS = 0.02


class ChildProcess:
    """One program whose output goes to a file. The kernel kills it when this process dies.

    It may be used from any event loop. `start` must be called in the main thread: the kernel takes
    the end of the thread that started a program for the end of its parent.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._environment = dict(environment or os.environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the program; its output is appended to the log."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise ClusterError with the end of the log if the program has ended."""
        if self.pid is None:
            status = self._process.returncode if self._process else None
            end = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise ClusterError(f"{self.name} has ended (status {status}), {self.log} ends:\n{end}")

    async def stop(self, within_seconds: float = 5.0) -> None:
        """Ask the program to end, and kill it where it does not in time."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        deadline = time.monotonic() + within_seconds
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
            await asyncio.sleep(_POLL_SECONDS)
        self._process = None

"""Starts the programs under test, waits until they serve, and ends them with all they started."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

STOP_TIMEOUT_SECONDS = 20.0
LOG_TAIL_LINES = 30


class ProgramError(Exception):
    """A program ended or did not serve in time; the message holds the end of its log."""


class Server:
    """A program that serves HTTP on the loopback interface; it can be started more than once."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, log: Path, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.port = port
        self._command = command
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`ip:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        """Whether the program has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program, in a process group of its own; what it prints is appended."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment,
                start_new_session=True,
            )

    def terminate(self) -> None:
        """Ask the program to end."""
        assert self._process is not None
        self._process.terminate()

    def kill(self) -> None:
        """Kill the program and all it has started, and wait until they are gone."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask the program to end, then kill whatever is left of it."""
        if self._process is None:
            return
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_SECONDS)
        self.kill()

    def connect(self, timeout_seconds: float = 30.0) -> http.client.HTTPConnection:
        """Make a connection to it, to be closed by the caller."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)

    def request(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a GET, or a POST of JSON; give status and body. Raises OSError."""
        connection = self.connect()
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """Sum a metric of `/metrics` over its labels, 0 where it is absent."""
        families = text_string_to_metric_families(self.request("/metrics")[1].decode())
        return sum(s.value for family in families for s in family.samples if s.name == name)

    def wait_until(self, serves: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait for a condition; raises ProgramError where the program ends or time runs out."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if not self.runs:
                raise ProgramError(f"{self.name} ended\n{self._log_tail()}")
            with suppress(OSError, http.client.HTTPException):
                if serves():
                    return
            if time.monotonic() > deadline:
                raise ProgramError(f"{self.name} is not ready\n{self._log_tail()}")
            time.sleep(0.2)

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def free_port() -> int:
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(server: Server) -> Iterator[Server]:
    """Have a program run, and stop it at the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop()

"""Starts the programs under test, waits until they serve, and ends them with all they started."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

STOP_TIMEOUT_SECONDS = 20.0
LOG_TAIL_LINES = 30


class ProgramError(Exception):
    """A program ended or did not serve in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A program that serves HTTP on the loopback interface."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        """`ip:port`."""
        return f"127.0.0.1:{self.port}"

    def request(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a GET, or a POST of JSON; give status and body. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
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
            if self.process.poll() is not None:
                raise ProgramError(f"{self.name} ended\n{self._log_tail()}")
            with suppress(OSError, http.client.HTTPException):
                if serves():
                    return
            if time.monotonic() > deadline:
                raise ProgramError(f"{self.name} is not ready\n{self._log_tail()}")
            time.sleep(0.2)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def free_port() -> int:
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    name: str, command: Sequence[str], port: int, log: Path, environment: dict[str, str]
) -> Iterator[Server]:
    """Run a program; at the end ask it to stop, then kill whatever is left of its group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
        yield Server(name, port, process, log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

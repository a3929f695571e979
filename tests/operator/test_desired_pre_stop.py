"""The preStop script, run as the kubelet runs it, against a real HTTP server."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from heliostat_operator.desired.lifecycle import PRE_STOP_SCRIPT

QUIET_SECONDS = 3.0
"""What the script waits in any case, for routers to drop the pod."""


def metrics(running: float, waiting: float) -> str:
    """What vLLM tells, with a series that must not be counted."""
    labels = 'engine="0",model_name="m{odel}"'
    return (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        f"vllm:num_requests_running{{{labels}}} {running}\n"
        f"vllm:num_requests_waiting{{{labels}}} {waiting}\n"
        f'vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}} 7.0\n'
    )


@contextmanager
def engine(answer: Callable[[], tuple[int, str]]) -> Iterator[int]:
    """Serve /metrics; give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer() if self.path == "/metrics" else (404, "")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def seconds_to_stop(port: int, limit: str) -> float:
    """Run the script as the pod's hook does."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PRE_STOP_SCRIPT, str(port), limit],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"http_proxy": "http://127.0.0.1:9", "PATH": ""},
    )
    assert (done.stdout, done.stderr) == ("", "")
    return time.monotonic() - began


class Run(NamedTuple):
    """How long the script took, and when the engine was last busy: seconds since its start."""

    seconds: float
    last_busy: float


def run(answer: Callable[[float], tuple[int, str]], limit: str, *, dead: bool = False) -> Run:
    """Run the script against an engine whose answer depends on its age."""
    began = time.monotonic()
    last_busy = 0.0

    def answer_now() -> tuple[int, str]:
        nonlocal last_busy
        age = time.monotonic() - began
        found = answer(age)
        last_busy = last_busy if found == IDLE else age
        return found

    with engine(answer_now) as port:
        if not dead:
            return Run(seconds_to_stop(port, limit), last_busy)
    return Run(seconds_to_stop(port, limit), last_busy)


IDLE = (200, metrics(0, 0))


def lull(age: float) -> tuple[int, str]:
    """Requests wait, nobody comes for a second, then one more runs."""
    if age < 2:
        return 200, metrics(0, 2)
    return (200, metrics(1, 0)) if 3 < age < 5 else IDLE


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """Every situation at once: each of them mostly waits."""
    situations: dict[str, Callable[[], Run]] = {
        "idle": lambda: run(lambda age: IDLE, "30"),
        "lull": lambda: run(lull, "30"),
        "busy": lambda: run(lambda age: (200, metrics(1, 0)), "4"),
        "no time": lambda: run(lambda age: (200, metrics(5, 0)), "0"),
        "dead": lambda: run(lambda age: IDLE, "30", dead=True),
        "no counts": lambda: run(lambda age: (200, "up 1\n"), "5"),
        "broken": lambda: run(lambda age: (500, "broken"), "5"),
    }
    with ThreadPoolExecutor(len(situations)) as pool:
        started = {name: pool.submit(situation) for name, situation in situations.items()}
        return {name: future.result() for name, future in started.items()}


@pytest.mark.parametrize(
    ("situation", "seconds"),
    [
        pytest.param("idle", QUIET_SECONDS, id="an idle engine waits only for the routers"),
        pytest.param("dead", QUIET_SECONDS, id="an engine that does not listen is not waited for"),
        pytest.param("no time", QUIET_SECONDS, id="without any time the routers still get theirs"),
        pytest.param("busy", 4, id="time up lets a busy engine go"),
        pytest.param("no counts", 5, id="counts that are missing are not zero"),
        pytest.param("broken", 5, id="an engine that answers errors may be busy"),
    ],
)
def test_engine_stops_when_it_should(runs: dict[str, Run], situation: str, seconds: float) -> None:
    """An engine stops after the time that its situation asks for, and not much later."""
    assert seconds <= runs[situation].seconds < seconds + 4


def test_requests_in_flight_hold_the_engine_and_a_short_lull_does_not_end_it(
    runs: dict[str, Run],
) -> None:
    """An engine stops after its last request, running or waiting."""
    assert runs["lull"].last_busy > 4
    assert runs["lull"].seconds > runs["lull"].last_busy + 1

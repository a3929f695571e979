"""The preStop script, run as the kubelet runs it, against a real HTTP server."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


def test_an_idle_engine_stops_once_routers_have_dropped_it() -> None:
    """An engine without requests waits three seconds, and no longer; proxies are not asked."""
    with engine(lambda: (200, metrics(0, 0))) as port:
        assert QUIET_SECONDS <= seconds_to_stop(port, "30") < QUIET_SECONDS + 3


def test_requests_in_flight_hold_the_engine() -> None:
    """An engine stops after its last request, running or waiting, and not in a short lull."""
    began = time.monotonic()
    last_busy = [0.0]

    def answer() -> tuple[int, str]:
        age = time.monotonic() - began
        if age < 2 or 3 < age < 5:
            last_busy[0] = age
            return 200, metrics(*((0, 2) if age < 2 else (1, 0)))
        return 200, metrics(0, 0)

    with engine(answer) as port:
        took = seconds_to_stop(port, "30")
    assert last_busy[0] > 4
    assert took > last_busy[0] + 1


def test_time_up_lets_the_engine_go() -> None:
    """An engine that is never idle stops at the limit."""
    with engine(lambda: (200, metrics(1, 0))) as port:
        assert 4 <= seconds_to_stop(port, "4") < 7


def test_no_time_at_all_still_lets_routers_drop_the_pod() -> None:
    """A drain timeout of zero waits only for the routers."""
    with engine(lambda: (200, metrics(5, 0))) as port:
        assert QUIET_SECONDS <= seconds_to_stop(port, "0") < QUIET_SECONDS + 3


def test_an_engine_that_does_not_listen_is_not_waited_for() -> None:
    """A dead engine, or one that still loads, stops as soon as an idle one."""
    with engine(lambda: (200, "")) as port:
        pass
    assert QUIET_SECONDS <= seconds_to_stop(port, "30") < QUIET_SECONDS + 3


@pytest.mark.parametrize("answer", [(200, "up 1\n"), (500, "broken")])
def test_missing_counts_are_not_zero(answer: tuple[int, str]) -> None:
    """An engine that tells nothing may be busy, and gets the whole time."""
    with engine(lambda: answer) as port:
        assert 5 <= seconds_to_stop(port, "5") < 8

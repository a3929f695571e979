"""`heliostat demo` as a process: real engines, a real Envoy, and nothing left behind."""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.gateway,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]

PROGRAM = "import sys; from heliostat_cli.main import main; sys.exit(main())"
DEADLINE_SECONDS = 60.0


class DemoProcess:
    """A demo whose descendants can be found, wherever they are, by a mark in their environment."""

    def __init__(self, *arguments: str) -> None:
        self._mark = f"HELIOSTAT_TEST_MARK={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, name: value},
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read what it prints up to this text; fail if that does not come in time."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.output:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, left))
            piece = os.read(self.process.stdout.fileno(), 65_536) if readable else b""
            assert piece, f"{text!r} did not come: {self.output}"
            self.output += piece.decode()

    def wait(self, deadline_seconds: float = DEADLINE_SECONDS) -> int:
        """Its exit status, with all output read."""
        out, _ = self.process.communicate(timeout=deadline_seconds)
        self.output += out.decode()
        return self.process.returncode

    def running(self) -> dict[int, str]:
        """The processes of this demo, itself included, and their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = command
            except OSError:
                continue
        return found


@pytest.fixture
def start(start_days: Callable[..., DemoProcess]) -> Callable[..., DemoProcess]:
    """Start the demo of one region."""
    return lambda *arguments: start_days("--single-region", *arguments)


@pytest.fixture
def start_days() -> Iterator[Callable[..., DemoProcess]]:
    """Start a demo; whatever is left of it is killed at the end of the test."""
    demos: list[DemoProcess] = []

    def start_one(*arguments: str) -> DemoProcess:
        demos.append(DemoProcess(*arguments))
        return demos[-1]

    yield start_one
    for demo in demos:
        for pid in demo.running():
            os.kill(pid, signal.SIGKILL)
        demo.process.communicate()


def until_gone(demo: DemoProcess) -> None:
    """Wait until no process of the demo runs."""
    deadline = time.monotonic() + 10
    while left := demo.running():
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)


def test_a_short_demo_measures_both_policies(
    start: Callable[..., DemoProcess], tmp_path: Path
) -> None:
    """Both policies answer every request; the table is printed, the JSON written, all ended."""
    path = tmp_path / "demo.json"
    demo = start("--seconds", "3", "--json", str(path))
    assert demo.wait() == 0, demo.output
    assert demo.running() == {}
    policies = json.loads(path.read_text())["policies"]
    assert list(policies) == ["round-robin", "heliostat"]
    for report in policies.values():
        assert (report["failed"], report["errors"]) == (0, {})
        assert report["requests"] > 0
        assert report["hit_ratio"] > 0
    assert "Side by side" in demo.output
    again = re.search(
        r"^heliostat demo --single-region --keep --port (\d+)$", demo.output, re.MULTILINE
    )
    assert again is not None, demo.output
    assert f"curl http://127.0.0.1:{again[1]}/" in demo.output


def test_an_interrupt_shows_what_was_measured(
    start: Callable[..., DemoProcess], tmp_path: Path
) -> None:
    """^C amid the load ends with the table, status 130 and no process left."""
    path = tmp_path / "demo.json"
    demo = start("--seconds", "300", "--policies", "heliostat", "--json", str(path))
    demo.read_until("heliostat 5 s:")
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 130, demo.output
    assert demo.running() == {}
    assert "interrupted" in demo.output
    assert "Traceback" not in demo.output
    assert json.loads(path.read_text())["policies"]["heliostat"]["requests"] > 0


def test_an_interrupt_while_starting_leaves_nothing(start: Callable[..., DemoProcess]) -> None:
    """^C before the first request ends at once, with status 130."""
    demo = start()
    demo.read_until("starting")
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 130, demo.output
    assert demo.running() == {}
    assert "Traceback" not in demo.output


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is Linux's")
def test_a_killed_demo_takes_its_children_along(start: Callable[..., DemoProcess]) -> None:
    """Not even SIGKILL leaves engines, gateway or Envoy behind."""
    demo = start("--policies", "heliostat")
    demo.read_until("heliostat 5 s:")
    assert any("envoy" in command for command in demo.running().values())
    demo.process.kill()
    demo.process.wait()
    until_gone(demo)


def test_kept_engines_answer_the_printed_curl_line(start: Callable[..., DemoProcess]) -> None:
    """With --keep the printed curl line works until ^C, which is then a good end."""
    demo = start("--seconds", "0.5", "--policies", "heliostat", "--keep")
    demo.read_until('"max_tokens": 40}\'\n')
    line = re.search(r"^curl .*$", demo.output, re.MULTILINE)
    assert line is not None
    answer = subprocess.run(
        [*shlex.split(line[0]), "--silent", "--max-time", "20"], capture_output=True, check=True
    )
    assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 40
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 0, demo.output
    assert demo.running() == {}


@pytest.mark.parametrize(("name", "command"), [("engines", "engine"), ("gateway", "gateway")])
def test_a_kept_process_that_dies_ends_the_demo(
    start: Callable[..., DemoProcess], name: str, command: str
) -> None:
    """With --keep the demo does not outlast its engines or gateway: it names what ended."""
    demo = start("--seconds", "0.5", "--policies", "heliostat", "--keep")
    demo.read_until('"max_tokens": 40}\'\n')
    (pid,) = [pid for pid, line in demo.running().items() if f"sys.exit(main()) {command} " in line]
    os.kill(pid, signal.SIGKILL)
    assert demo.wait() == 1, demo.output
    assert f"heliostat demo: the {name} ended early" in demo.output
    assert "Traceback" not in demo.output
    until_gone(demo)


def test_three_regions_live_through_both_days(
    start_days: Callable[..., DemoProcess], tmp_path: Path
) -> None:
    """No request fails but those the kill cuts; federated regions serve each other, alone not."""
    path = tmp_path / "days.json"
    demo = start_days("--seconds", "16", "--json", str(path))
    assert demo.wait(deadline_seconds=180.0) == 0, demo.output
    assert demo.running() == {}
    assert "The day side by side" in demo.output
    assert "Europe is lost" in demo.output
    report = json.loads(path.read_text())
    assert list(report["runs"]) == ["region-local", "federated"]
    for run in report["runs"].values():
        assert (run["failed"], run["errors"]) == (0, {})
        assert run["served"] > 50
    alone, together = (run["served_by"] for run in report["runs"].values())
    assert not any(alone["asia"][name] for name in ("us", "europe"))
    passed_on = sum(together[one][other] for one in together for other in together if one != other)
    assert passed_on > sum(alone["europe"].values()) - alone["europe"]["europe"]
    engines = report["simulated_engines"]
    assert engines["federated"] < sum(engines["region_local"].values())


def test_an_interrupt_amid_a_day_shows_what_was_measured(
    start_days: Callable[..., DemoProcess],
) -> None:
    """^C ends with the table, status 130 and no process left."""
    demo = start_days("--seconds", "300")
    demo.read_until("region-local 5 s:")
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 130, demo.output
    assert demo.running() == {}
    assert "region-local: interrupted" in demo.output
    assert "Traceback" not in demo.output


def test_a_gateway_that_dies_by_itself_ends_the_day(
    start_days: Callable[..., DemoProcess],
) -> None:
    """What the demo has not killed itself is an error that names what ended."""
    demo = start_days("--seconds", "300")
    demo.read_until("region-local 5 s:")
    (pid,) = [
        pid
        for pid, line in demo.running().items()
        if " gateway --pools" in line and "/asia/" in line
    ]
    os.kill(pid, signal.SIGKILL)
    assert demo.wait() == 1, demo.output
    assert "heliostat demo: the asia-gateway ended early" in demo.output
    assert "Traceback" not in demo.output
    until_gone(demo)

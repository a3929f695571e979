import argparse
import io
import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat_cli.loading import LoadOptions
from heliostat_cli.loading.display import completed_ratio, duration, print_report
from heliostat_cli.loading.report import Measurements, Outcome, Progress
from heliostat_cli.loading.workloads import choose_workload, configure_workload
from heliostat_cli.main import main
from heliostat_sim.workload.session import Session, Turn, Workload


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure_workload(parser)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def test_options_shape_the_conversations() -> None:
    """An option of conversations reaches their plan."""
    workload = choose_workload(
        parse("--system-tokens", "50", "--profile-tokens", "0", "--rate", "2", "--seed", "4")
    )
    session = next(iter(workload))
    assert [part.tokens for part in session.system] == [50]
    assert (workload.timed, workload.seed) == (True, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --seconds or --requests"),
        (["--workload", "mooncake"], "needs --trace PATH"),
        (["--workload", "mooncake", "--trace", "/nowhere"], "/nowhere: No such file"),
        (["--seconds", "1", "--trace", "x"], "--trace means nothing to --workload conversations"),
        (["--workload", "azure", "--groups", "2"], "--groups means nothing to --workload azure"),
        (["--seconds", "1", "--rate", "1", "--concurrency", "2"], "exclude each other"),
        (["--seconds", "0"], "seconds must be positive, not 0"),
        (["--seconds", "1", "--url", "localhost:1"], "must start with http"),
        (["--seconds", "1", "--json", "/nowhere/x.json"], "--json /nowhere/x.json: No such file"),
        (["--seconds", "1", "--users", "1"], "a user for each group"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option ends with status 2 and one line that says what is wrong."""
    assert main(["load", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_absent_gateway_is_status_1(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no gateway answers the command fails with one line on what to start."""
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert main(["load", "--requests", "1", "--url", url]) == 1
    assert capsys.readouterr().err.startswith(f"heliostat load: nothing answers at {url}: start")


ENGINE = """
import asyncio, sys
from aiohttp import web
answer = b'data: {"choices":[{"delta":{"content":"a"}}]}\\n\\n'
async def models(request): return web.json_response({"data": [{"id": "m"}]})
async def chat(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(answer)
    if sys.argv[1] == "hang":
        print("hanging", flush=True)
        await asyncio.Event().wait()
    await response.write(answer + b"data: [DONE]\\n\\n")
    return response
async def serve():
    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""


class EngineProcess:
    """An engine in a process of its own, so that the command may own this one's event loop."""

    def __init__(self, behaviour: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENGINE, behaviour], stdout=subprocess.PIPE
        )
        self.url = f"http://127.0.0.1:{self.read_line()}"

    def read_line(self) -> str:
        """The next line that the engine prints, within 20 seconds."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 20)
        assert readable, "the engine printed nothing in time"
        return self.process.stdout.readline().decode().strip()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    engine = EngineProcess(request.param)
    yield engine
    engine.process.kill()
    engine.process.communicate()


@pytest.mark.parametrize("engine", ["answer"], indirect=True)
def test_a_run_prints_and_writes_its_report(
    engine: EngineProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without failures exits 0, prints a table and writes the same numbers as JSON."""
    path = tmp_path / "report.json"
    command = [
        "load",
        "--url",
        engine.url,
        "--requests",
        "5",
        "--think-seconds",
        "0",
        "--name",
        "mine",
    ]
    assert main([*command, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert (report["requests"], report["failed"], report["workload"]) == (5, 0, "conversations")
    printed = capsys.readouterr().out
    assert "mine" in printed
    assert "5 in" in printed
    assert main([*command, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 5


@pytest.mark.parametrize("engine", ["hang"], indirect=True)
def test_an_interrupt_ends_with_the_report(engine: EngineProcess) -> None:
    """An interrupt ends a hanging run with its report and status 130."""
    command = "import sys; from heliostat_cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "load", "--url", engine.url, "--requests", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert engine.read_line() == "hanging"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, error
    assert "Interrupted" in out
    assert "Traceback" not in error


def test_the_report_names_failures_and_lag() -> None:
    """The printed report lists each failure's count and says when it is not valid."""
    measurements = Measurements()
    measurements.record(Outcome(failure="429 queue-full"))
    measurements.lag.record(0.5)
    text = io.StringIO()
    print_report(measurements.report("plan", 0, interrupted=False), None, text)
    assert "1 failed: 429 queue-full" in text.getvalue()
    assert "Not valid: this process lagged 500 ms" in text.getvalue()


def test_progress_is_the_limit_that_ends_first() -> None:
    """The bar follows whichever of requests, time and the trace's end is nearest."""
    progress = Progress(5.0, 10, 0, 0, None, None, None, 0, None)
    endless = Workload("w", 0, False, lambda: iter([Session((Turn((), 1),))]))
    assert completed_ratio(LoadOptions(seconds=10, max_requests=40), endless, progress) == 0.5
    assert completed_ratio(LoadOptions(seconds=50, max_requests=40), endless, progress) == 0.25
    assert completed_ratio(LoadOptions(), endless, progress) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0, "0 ms"), (0.01234, "12.3 ms"), (0.9996, "0.9996 s"), (12.3456, "12.35 s")],
)
def test_durations_have_a_fitting_unit(seconds: float | None, text: str) -> None:
    """Durations are shown in milliseconds below a second, in seconds above."""
    assert duration(seconds) == text

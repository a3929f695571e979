import io
import json
import shlex
import socket
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from rich.console import Console

from heliostat_cli.demonstration.comparison import (
    MEASURES,
    comparison,
    comparison_json,
    curl_line,
    problems,
    summary_sentence,
    verdict,
)
from heliostat_cli.demonstration.ports import PortError, choose_port
from heliostat_cli.demonstration.program import called_program
from heliostat_cli.demonstration.scenario import Scenario
from heliostat_cli.demonstration.screen import PlainDisplay, Scene, render_scene
from heliostat_cli.demonstration.watch import EndpointState, FleetState, read_engine, read_pools
from heliostat_cli.loading.report import LoadReport, Measurements, Outcome, Progress
from heliostat_cli.main import main
from heliostat_routing.events import EngineMetrics


def measured(
    ttft_seconds: float = 0.1, cached_tokens: int = 50, failure: str | None = None
) -> LoadReport:
    """The report of one good request, and of a failed one if a failure is named."""
    measurements = Measurements()
    measurements.lag.record(0.001)
    measurements.record(
        Outcome(
            ttft_seconds=ttft_seconds,
            e2e_seconds=1.0,
            prompt_tokens=100,
            output_tokens=10,
            cached_tokens=cached_tokens,
        )
    )
    if failure is not None:
        measurements.record(Outcome(failure=failure))
    return measurements.report("conversations", 0, interrupted=False)


def printed(renderable: object, width: int = 80, *, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, height=24, force_terminal=terminal).print(renderable)
    return out.getvalue()


REPORTS = {
    "round-robin": measured(ttft_seconds=0.4, cached_tokens=20),
    "heliostat": measured(ttft_seconds=0.1, cached_tokens=80),
}
PROGRESS = Progress(6.0, 1234, 2, 24, 0.123, 12.34, 0.5, 3000, 0.001)


def test_json_holds_the_load_reports_by_policy() -> None:
    """The JSON is each policy's load report, unchanged and in order."""
    policies = json.loads(comparison_json(REPORTS))["policies"]
    assert list(policies) == ["round-robin", "heliostat"]
    assert policies["heliostat"] == REPORTS["heliostat"].to_json()


def test_table_shows_every_measure_and_how_the_last_policy_compares() -> None:
    """Plain text has a row for each measure, with the factor between first and last policy."""
    lines = printed(comparison(REPORTS)).splitlines()
    rows = {measure.label: line for measure in MEASURES for line in lines if measure.label in line}
    assert set(rows) == {measure.label for measure in MEASURES}
    assert rows["hit ratio"].split() == ["hit", "ratio", "20.0%", "80.0%", "4x", "better"]
    assert rows["TTFT p90"].split()[2:] == ["400", "ms", "100", "ms", "4x", "better"]
    assert rows["end to end p50"].rstrip().endswith("alike")
    assert max(len(line) for line in lines) <= 80


def test_a_worse_result_is_called_worse() -> None:
    """Neither table nor sentence favours a policy."""
    ttft = next(measure for measure in MEASURES if measure.label == "TTFT p50")
    assert verdict(ttft, measured(ttft_seconds=0.1), measured(ttft_seconds=0.3)) == "3x worse"
    turned = {"heliostat": REPORTS["heliostat"], "round-robin": REPORTS["round-robin"]}
    assert "20.0% of the prompt tokens were cached where round-robin" in summary_sentence(turned)


def test_one_policy_alone_is_not_compared() -> None:
    """With a single policy there is a table, and nothing it is better than."""
    text = printed(comparison({"heliostat": REPORTS["heliostat"]}))
    assert "80.0%" in text
    assert "better" not in text
    assert "alike" not in text


def test_a_policy_cut_short_is_not_compared() -> None:
    """What an interrupt cut short is shown, but neither table nor sentence compares it."""
    reports = {**REPORTS, "heliostat": replace(REPORTS["heliostat"], interrupted=True)}
    text = printed(comparison(reports))
    assert "80.0%" in text
    assert "heliostat: interrupted" in text
    assert "better" not in text
    assert summary_sentence(reports) == ""


def test_failures_and_interrupts_are_named() -> None:
    """What devalues the numbers stands beside them."""
    measurements = Measurements()
    measurements.lag.record(0.5)
    reports = {
        "round-robin": measured(failure="429 queue-full"),
        "heliostat": measurements.report("conversations", 0, interrupted=True),
        "least-inflight": measurements.report("conversations", 0, interrupted=False),
    }
    failed, interrupted, invalid = problems(reports)
    assert failed == "round-robin: 1 failed: 429 queue-full"
    assert interrupted.startswith("heliostat: interrupted")
    assert invalid.startswith("least-inflight: not valid, this machine is too busy")
    assert summary_sentence({"heliostat": reports["heliostat"]}) == "Nothing was measured."


@pytest.mark.parametrize("stage", ["starting", "running", "second"])
def test_the_live_view_fits_a_small_terminal(stage: str) -> None:
    """At every stage the view has at most 80 columns and 24 lines."""
    scene = Scene(policies=("round-robin", "heliostat"), seconds=20)
    scene.enter("round-robin")
    if stage != "starting":
        scene.url = "http://127.0.0.1:65535"
        scene.progress = PROGRESS
        scene.fleet.endpoints = [
            EndpointState(f"127.0.0.1:6553{i}", 100, 100, 100, 1.0, 1.0) for i in range(4)
        ]
    if stage == "second":
        scene.reports["round-robin"] = REPORTS["round-robin"]
        scene.policy = "heliostat"
    text = printed(render_scene(scene))
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines) <= 80
    assert "…" not in text


def test_plain_lines_come_every_few_seconds() -> None:
    """Without a terminal a policy's start is one line, and its progress one line in 5 seconds."""
    out = io.StringIO()
    display = PlainDisplay(Console(file=out))
    scene = Scene(policies=("heliostat",), seconds=20)
    scene.enter("heliostat")
    display.show(scene)
    for _ in range(3):
        scene.progress = PROGRESS
        display.show(scene)
    start, progress = out.getvalue().splitlines()
    assert start == "heliostat: starting fresh engines and gateway"
    assert progress.startswith("heliostat 6 s: 1234 done, 24 active, 2 failed")


def test_engines_and_router_are_shown_by_their_own_word() -> None:
    """Running, waiting and hits come from the engine, in flight and queued from the router."""
    endpoint = EndpointState("127.0.0.1:1")
    read_engine(endpoint, EngineMetrics(3, 2, 0.5, 0, 0, 0, 200, 50))
    fleet = FleetState([endpoint])
    pools = [{"queued": 7, "endpoints": [{"address": "127.0.0.1:1", "inflight": 4}]}]
    read_pools(fleet, pools)
    assert endpoint == EndpointState("127.0.0.1:1", 3, 2, 4, 0.25, 0.5)
    assert fleet.queued == 7


def test_the_chats_are_the_same_for_the_same_seed() -> None:
    """Every policy is sent the same sequence of chats; the first ones begin one after the other."""
    scenario = Scenario()
    first, again = (iter(scenario.workload(3, 20)) for _ in range(2))
    sessions = [next(first) for _ in range(40)]
    assert sessions == [next(again) for _ in range(40)]
    delays = [session.turns[0].think_seconds for session in sessions]
    assert delays[: scenario.concurrency] == sorted(delays[: scenario.concurrency])
    assert 2 < max(delays) < 3
    assert all(
        session.turns[0].think_seconds < 1 for session in islice(scenario.workload(3, 5), 40)
    )
    assert not any(delays[scenario.concurrency :])
    assert sessions[0] != next(iter(scenario.workload(4, 20)))


def test_the_table_says_what_it_was_measured_on() -> None:
    """Beneath the table stands that the engines are models, and faster than the hardware."""
    text = " ".join(printed(comparison(REPORTS)).split())
    assert "stand-ins that model L4 GPUs at 2 times their speed." in text
    assert "With the same sequence of chats and cold caches" in text


def test_the_program_is_named_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path below the folder is relative, another whole, and on the PATH the name is enough."""
    program = tmp_path / "project" / "bin" / "heliostat"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path / "project")
    assert called_program("bin/heliostat", tmp_path / "project") == "bin/heliostat"
    assert called_program(str(program), tmp_path / "project") == "bin/heliostat"
    assert called_program(str(program), program.parent) == "./heliostat"
    assert called_program(str(program), tmp_path / "elsewhere") == str(program)
    assert called_program("-c", tmp_path) == "heliostat"
    monkeypatch.setenv("PATH", str(program.parent))
    assert called_program(str(program), tmp_path / "project") == "heliostat"


def test_the_curl_line_survives_the_shell() -> None:
    """The printed line is what a shell hands to curl."""
    program, url, header, content_type, data, body = shlex.split(curl_line("http://h:1", "it's"))
    assert (program, url) == ("curl", "http://h:1/v1/chat/completions")
    assert (header, content_type, data) == ("-H", "content-type: application/json", "-d")
    assert json.loads(body)["model"] == "it's"


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken ends the command with status 1 before anything starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--single-region", "--port", str(port)]) == 1
        error = capsys.readouterr().err
        assert error == (
            f"heliostat demo: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        )
        with pytest.raises(PortError, match="no such port"):
            choose_port(65_536)


@pytest.mark.parametrize("policies", ["fastest", "heliostat,heliostat", ""])
def test_wrong_policies_are_refused(policies: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that does not exist, or comes twice, is a usage error."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--policies", policies])
    assert ended.value.code == 2
    assert "--policies" in capsys.readouterr().err

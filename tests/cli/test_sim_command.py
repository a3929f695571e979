import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from heliostat_cli.main import main
from heliostat_cli.simulation.catalogue import POLICY_LINES
from heliostat_cli.simulation.options import chosen_policies, parse_sweep, seconds_from
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.scenario.scenario import scenario_names

SCENARIO = """
description: Two regions and a handful of chats.
engine: {profile: l4-llama-8b}
regions:
  us: {engines: 1, clients: 3}
  eu: {engines: 1, clients: 2}
roundTrips: {between: {us: {eu: 100ms}}}
workload: {kind: wildchat}
ramp: 1s
duration: 60s
short: {duration: 15s}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(SCENARIO)
    return str(path)


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """The list has every scenario and every policy, with words on each."""
    assert main(["sim", "list"]) == 0
    first_words = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert {*scenario_names(), *PolicyName} <= set(first_words)
    assert set(POLICY_LINES) == set(PolicyName)


def test_a_policy_without_words_is_listed_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that has no line in the catalogue stands in the list all the same."""
    monkeypatch.setattr("heliostat_cli.sim.POLICY_LINES", {})
    assert main(["sim", "list"]) == 0
    assert "  skylb             skylb\n" in capsys.readouterr().out


def test_output_that_nobody_reads_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that leaves early, as `head` does, ends the command without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["sim", "list"]) == 1


def test_a_run_is_the_same_each_time(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run prints a table, and writes the same bytes of JSON for the same seed."""
    texts = []
    for name in ("one.json", "two.json"):
        path = tmp_path / name
        command = ["sim", "run", scenario, "--short", "--seed", "2", "--json", str(path)]
        assert main(command) == 0
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]
    report = json.loads(texts[0])
    assert (report["policy"], report["seed"], report["duration_seconds"]) == ("heliostat", 2, 15.0)
    assert report["lost"] == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny, heliostat, seed 2: 15 s\n")
    assert "TTFT p90" in printed


def test_json_on_stdout_is_all_that_is_there(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--json -` the table goes to stderr, so that stdout can be piped on."""
    command = ["sim", "run", scenario, "--set", "duration=5s", "--set", "think=1s"]
    assert main([*command, "--policy", "skylb", "--slo", "2", "--json", "-"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["duration_seconds"], report["slo_seconds"]) == (5.0, 2.0)
    assert "TTFT p90" in captured.err


def test_policies_are_compared_over_processes(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison over processes gives what one process gives, with ratios to the reference."""
    texts = []
    for processes in ("1", "2"):
        path = tmp_path / f"{processes}.json"
        command = ["sim", "compare", scenario, "--short", "--policies", "heliostat,round-robin"]
        command += ["--reference", "skylb", "--seeds", "2", "--processes", processes]
        assert main([*command, "--json", str(path)]) == 0
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]
    plain = json.loads(texts[0])
    assert list(plain["policies"]) == ["skylb", "heliostat", "round-robin"]
    assert plain["policies"]["skylb"]["ratios"]["ttft_p50_seconds"]["ratio"] == 1.0
    captured = capsys.readouterr()
    assert "Times skylb's value, with 95 % limits" in captured.out
    assert "6 of 6: " in captured.err


def test_a_sweep_is_written_and_drawn(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep has a table for each headline, a point of JSON for each value, and a picture."""
    out, picture = tmp_path / "sweep.json", tmp_path / "sweep.svg"
    command = ["sim", "sweep", scenario, "--short", "--set", "regions.us.clients=1,3"]
    command += ["--set", "think=500ms", "--policies", "skylb", "--seeds", "1", "--processes", "1"]
    command += ["--cache", str(tmp_path / "cache.jsonl"), "--json", str(out), "--svg", str(picture)]
    assert main(command) == 0
    assert [point["value"] for point in json.loads(out.read_text())["points"]] == ["1", "3"]
    drawn = ElementTree.fromstring(picture.read_text())  # noqa: S314 - our own
    assert "regions.us.clients" in [element.text for element in drawn.iter()]
    assert "regions.us.clients" in capsys.readouterr().out
    assert len((tmp_path / "cache.jsonl").read_text().splitlines()) == 2


def test_policies_add_up() -> None:
    """Policies may be given in one list or one by one."""
    assert chosen_policies(["skylb, gke", "gorgo"], "gke") == (["gke", "skylb", "gorgo"], "gke")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("500ms", 0.5), ("2m", 120), ("2.5", 2.5)]
)
def test_times_have_units(text: str, seconds: float) -> None:
    """A time on the command line is a duration with a unit, or bare seconds."""
    assert seconds_from(text) == seconds


def test_a_wrong_time_is_told(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no duration ends with status 2 and says what would be one."""
    with pytest.raises(SystemExit) as ended:
        main(["sim", "run", scenario, "--slo", "soon"])
    assert ended.value.code == 2
    assert '--slo: "soon" is not a duration; write' in capsys.readouterr().err


def test_one_parameter_is_swept() -> None:
    """Of the changes one takes several values, the others hold for all runs."""
    changes, swept = parse_sweep(["think=1s", "regions.us.engines=1, 2,4"])
    assert changes == ("think=1s",)
    assert swept == ("regions.us.engines", ("1", "2", "4"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere"], 'there is no scenario "nowhere"; there are'),
        (["run", "nowhere.yaml"], "nowhere.yaml: "),
        (["run", "TINY", "--policy", "magic"], "there is no policy 'magic'; there are heliostat"),
        (["run", "TINY", "--set", "think"], '"think" is not a change'),
        (["run", "TINY", "--set", "regions.us.engines=many"], "regions.us.engines"),
        (["run", "TINY", "--warmup", "60"], "--warmup 60 leaves nothing of 60 s"),
        (["run", "TINY", "--slo", "0"], "must be positive, not 0 s"),
        (["run", "TINY", "--json", "/nowhere/x"], "--json /nowhere/x: No such file"),
        (["compare", "TINY", "--policies", "skylb", "--seeds", "0"], "--seeds must be positive"),
        (["compare", "TINY", "--policies", "skylb", "--reference", "x"], "no policy 'x'"),
        (["compare", "TINY", "--policies", "skylb", "--processes", "0"], "--processes must be"),
        (["compare", "TINY", "--policies", "gke,skylb,gke"], "--policies: 'gke' is given twice"),
        (["compare", "TINY", "--policies", "gke", "--policies", "gke"], "'gke' is given twice"),
        (["sweep", "TINY", "--policies", "gke", "--set", "think=1s"], "with several values"),
        (["sweep", "TINY", "--policies", "gke", "--set", "think=1s,,2s"], "must be NAME=V1,V2"),
        (["sweep", "TINY", "--policies", "gke", "--set", "think=1s,x"], "think"),
        (
            ["sweep", "TINY", "--policies", "gke", "--set", "think=1s,2s", "--measure", "x"],
            "--measure x: no report has such a number",
        ),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], message: str, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option ends with status 2 and one line that says what is wrong."""
    arguments = [scenario if argument == "TINY" else argument for argument in arguments]
    assert main(["sim", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("heliostat sim: ")
    assert error.count("\n") == 1

"""What a simulated router is told and decides, written down and decided again."""

import json
from pathlib import Path

import pytest

from heliostat_cli.main import main
from heliostat_cli.simulation.recording import replay_file

SCENARIO = """\
description: a region that is asked for more than it can do, and a link that is cut for a while
engine: {profile: l4-llama-8b, kvTokens: 6000, speed: 200%}
regions:
  us: {engines: 1, rate: 5/s}
  eu: {engines: 2, rate: 1/s}
roundTrips: {between: {us: {eu: 100ms}}}
workload:
  kind: single-turn
  questionTokens: 400
duration: 40s
queueTimeout: 5s
faults:
  - {kind: link, at: 15s, lasts: 5s, region: us, otherRegion: eu}
  - {kind: engine, at: 25s, lasts: 5s, region: us, engine: 0}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "two.yaml"
    file.write_text(SCENARIO)
    return str(file)


def record(scenario: str, file: Path, *options: str) -> str:
    assert main(["sim", "run", scenario, "--record", str(file), *options]) == 0
    return file.read_text()


@pytest.mark.parametrize("gateway", ["us-0", "eu-0"])
def test_a_simulated_router_replays_alike(scenario: str, tmp_path: Path, gateway: str) -> None:
    """Each router's file gives the same commands again, whatever came from other regions."""
    file = tmp_path / "recording.jsonl"
    text = record(scenario, file, "--record-gateway", gateway)
    count = replay_file(file)
    assert count.first_difference is None
    assert count.agreeing == count.steps == text.count("\n") > 500
    for kind in ("PeersUpdated", "RegionStateReceived", "PoolCapacity", "RequestMeasured"):
        assert f'"type":"{kind}"' in text, kind
    if gateway == "us-0":
        for kind in ("Forward", "ForwardRefused", "Enqueue", "WakeAt", "Tick", "AttemptFailed"):
            assert f'"type":"{kind}"' in text, kind
    else:
        assert '"origin":"us' in text


def test_a_recording_changes_no_run(scenario: str, tmp_path: Path) -> None:
    """The report is the same with and without one."""
    with_it, without = tmp_path / "with.json", tmp_path / "without.json"
    record(scenario, tmp_path / "recording.jsonl", "--json", str(with_it))
    assert main(["sim", "run", scenario, "--json", str(without)]) == 0
    assert with_it.read_text() == without.read_text()


def test_a_difference_is_shown_and_fails(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step that is decided otherwise is shown with both decisions; the status is 1."""
    file = tmp_path / "recording.jsonl"
    lines = record(scenario, file).splitlines()
    number = next(n for n, line in enumerate(lines) if '"type":"Dispatch"' in line)
    step = json.loads(lines[number])
    step["commands"][0]["endpoints"] = ["elsewhere"]
    lines[number] = json.dumps(step)
    file.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert main(["sim", "replay", str(file)]) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{len(lines) - 1} of {len(lines)} steps agree\n"
    assert f"{file}:{number + 1}: the replay differs at " in shown.err
    assert "RequestArrived" in shown.err
    assert '"elsewhere"' in shown.err


def test_a_file_that_was_cut_off_replays_up_to_there(scenario: str, tmp_path: Path) -> None:
    """A router that was killed leaves half a line, which is left out."""
    file = tmp_path / "recording.jsonl"
    text = record(scenario, file)
    file.write_text(text[:-20])
    assert replay_file(file).agreeing == text.count("\n") - 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense\n", ":1: not JSON: "),
        ("[]\n", ":1: a step is a JSON object"),
        ('{"now": 1}\n', ":1: a step lacks 'event'"),
    ],
)
def test_what_is_no_recording_is_told(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file is refused by its line, with status 2."""
    file = tmp_path / "other.txt"
    file.write_text(text)
    assert main(["sim", "replay", str(file)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--policy", "skylb", "--record", "x"], "skylb has no router to record"),
        (["--record-gateway", "us-0"], "--record-gateway means nothing without --record"),
        (["--record", "x", "--record-gateway", "us-9"], "no gateway 'us-9'; there are us-0, eu-0"),
        (["--record", "/nowhere/x"], "--record /nowhere/x: No such file"),
    ],
)
def test_wrong_options_of_a_recording_are_told(
    options: list[str], told: str, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs, and status 2 says what is wrong."""
    assert main(["sim", "run", scenario, *options]) == 2
    assert told in capsys.readouterr().err
    assert not Path("x").exists()

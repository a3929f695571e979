"""Every scenario in its short form: nothing is lost, and a seed gives the same bytes everywhere."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat_sim.evaluation import Job, run_job
from heliostat_sim.scenario.scenario import scenario_names

NAMES = scenario_names()
POLICIES = ("heliostat", "skylb")
DIGESTS = """\
import hashlib, json, sys
from pathlib import Path
from heliostat_sim.evaluation import Job, run_job
traces = Path(sys.argv[1])
jobs = [Job(name, policy, 1, short=True, traces=traces) for name, policy in json.load(sys.stdin)]
print(json.dumps([hashlib.sha256(run_job(job).dumps().encode()).hexdigest() for job in jobs]))
"""


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small traces of the shapes that scenarios replay."""
    folder = tmp_path_factory.mktemp("traces")
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    rows += [
        f"2023-11-16 18:15:{number // 2:02}.{number % 2 * 5}00000,{200 + 37 * number},{20 + number}"
        for number in range(40)
    ]
    (folder / "azure2023_conv.csv").write_text("\n".join(rows) + "\n")
    lines = [
        {
            "timestamp": 700 * number,
            "input_length": 2000,
            "output_length": 30 + number,
            "hash_ids": [number % 3, 100 + number % 5, 1000 + number, 2000 + number],
        }
        for number in range(60)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "mooncake_conversation.jsonl").write_text(text)
    return folder


def short(name: str, policy: str, seed: int, traces: Path) -> Job:
    return Job(name, policy, seed, short=True, traces=traces)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost(name: str, policy: str, traces: Path) -> None:
    """What was sent has ended or is open at the end, and something was served."""
    report = run_job(short(name, policy, 1, traces))
    ended = report.served + report.rejected + report.expired + report.broken
    assert report.lost == 0
    assert report.sent == ended + report.still_open
    assert report.served >= 5


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_run(name: str, policy: str, traces: Path) -> None:
    """The seed decides what is asked and in which order chance falls."""
    one, other = (run_job(short(name, policy, seed, traces)) for seed in (1, 2))
    plain, others = one.to_json(), other.to_json()
    assert (plain.pop("seed"), others.pop("seed")) == (1, 2)
    if name in ("azure", "mooncake"):
        plain.pop("messages"), others.pop("messages")
    assert plain != others


def test_a_seed_gives_the_same_bytes_in_every_process(traces: Path) -> None:
    """Reports do not depend on the process, nor on how it orders sets and hashes text."""
    wanted = [(name, policy) for name in NAMES for policy in POLICIES]
    here = [
        hashlib.sha256(run_job(short(name, policy, 1, traces)).dumps().encode()).hexdigest()
        for name, policy in wanted
    ]
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS, str(traces)],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        there = json.loads(done.stdout)
        pairs = zip(wanted, here, there, strict=True)
        assert [name for name, mine, theirs in pairs if mine != theirs] == []

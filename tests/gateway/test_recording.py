"""`heliostat gateway --record` as a process, under load: what it writes replays alike."""

import asyncio
from pathlib import Path

import pytest

from heliostat_cli.demonstration.children import run_child
from heliostat_cli.loading import LoadOptions, run_load
from heliostat_cli.main import main
from heliostat_cli.simulation.recording import replay_file
from heliostat_routing.commands import Dispatch
from heliostat_routing.events import MetricsScraped, RequestArrived, RequestMeasured
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engines
from heliostat_sim.workload.conversations import (
    ConversationSettings,
    LengthDistribution,
    conversations,
)

pytestmark = pytest.mark.gateway

CHATS = ConversationSettings(
    groups=2,
    users=6,
    system_tokens=300,
    output_tokens=LengthDistribution(20, 10, 60),
    think_seconds=0.05,
)
MANIFEST = """\
apiVersion: heliostat.dev/v1alpha1
kind: InferencePool
metadata: {{name: recorded}}
spec:
  model: {{name: recorded}}
  endpoints: [{endpoints}]
"""


async def record_load(folder: Path, recording: Path, port: int) -> int:
    """Let a gateway before two small engines record a few seconds; return how many were served."""
    options = EngineOptions(model="recorded", speed_ratio=10, kv_tokens=4000)
    pools = folder / "pools"
    pools.mkdir()
    async with running_engines([options, options]) as engines:
        addresses = ", ".join(f"{{address: {engine.address}}}" for engine in engines)
        (pools / "recorded.yaml").write_text(MANIFEST.format(endpoints=addresses))
        command = ["gateway", "--pools", str(pools), "--port", str(port), "--admin-port", "0"]
        command += ["--record", str(recording), "--drain-seconds", "1"]
        async with run_child("gateway", command, folder) as gateway:
            await gateway.ready_line()
            load = LoadOptions(f"http://127.0.0.1:{port}", "recorded", concurrency=8, seconds=3.0)
            report = await run_load(load, conversations(CHATS, 1), lambda _: None)
    return report.requests - report.failed


def test_a_production_log_replays_to_the_same_decisions(
    tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step that the router process has written is decided alike by a fresh core."""
    recording = tmp_path / "recording.jsonl"
    served = asyncio.run(record_load(tmp_path, recording, free_port))
    assert served > 30
    count = replay_file(recording)
    assert count.first_difference is None
    assert count.agreeing == count.steps
    text = recording.read_text()
    for kind in (RequestArrived, RequestMeasured, MetricsScraped, Dispatch):
        assert text.count(f'"type":"{kind.__name__}"') >= 20, kind
    assert main(["sim", "replay", str(recording)]) == 0
    assert capsys.readouterr().out == f"{count.steps} of {count.steps} steps agree\n"

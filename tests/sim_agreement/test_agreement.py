"""The engine stand-in over HTTP and the simulated world, given the same trace, measure the same.

Both run the engine's profile at `SPEED` times its speed; what the stand-in adds is HTTP, a real
clock and a real client: about 10 ms a request, which a faster engine would make more than 5 %.
Requests come at the trace's own times. Were they sent when earlier ones are answered, milliseconds
would decide who is first in a queue, and so change the times of both sides by more than that.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

import aiohttp
import pytest
import uvloop

from heliostat_cli.loading import LoadOptions
from heliostat_cli.loading.client import Client
from heliostat_cli.loading.lag import watch_lag
from heliostat_cli.loading.report import Measurements, Outcome
from heliostat_cli.loading.run import Sender
from heliostat_sim.demand.planned import planned_arrivals
from heliostat_sim.evaluation import quantile
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.simulation import run_world
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engine
from heliostat_sim.workload.conversations import (
    ConversationSettings,
    LengthDistribution,
    conversations,
)
from heliostat_sim.workload.session import Session, Turn, Workload, with_poisson_arrivals
from heliostat_sim.workload.text import TextPart
from heliostat_sim.world.demand import Demand
from heliostat_sim.world.settings import RegionSettings, WorldSettings

SPEED = 1.0
SESSIONS = 32
SESSIONS_PER_SECOND = 1.2
DISAGREEMENT_RATIO = 0.05
ATTEMPTS = 3
"""A machine that is busy with other things delays tokens; it is not so every time."""
OPTIONS = EngineOptions(speed_ratio=SPEED)
CHATS = ConversationSettings(
    groups=2,
    users=8,
    system_tokens=600,
    single_turn_ratio=1.0,
    user_tokens=LengthDistribution(900, 500, 2500),
    output_tokens=LengthDistribution(50, 30, 120),
)
_TURN_START, _TURN_END = 1, 1
_ROLE_TOKENS = {"system": 2, "user": 1, "assistant": 3}


@dataclass(frozen=True)
class Measured:
    """What both sides tell of a run."""

    ttft_seconds: Sequence[float]
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    span_seconds: float
    """From the beginning to the last token."""
    lag_seconds: float = 0.0

    def numbers(self) -> dict[str, float]:
        """What they must agree on."""
        ttft = sorted(self.ttft_seconds)
        return {
            "TTFT mean": fmean(ttft),
            "TTFT p50": quantile(ttft, 0.5) or 0.0,
            "TTFT p90": quantile(ttft, 0.9) or 0.0,
            "output tokens/s": self.output_tokens / self.span_seconds,
            "cached tokens": self.cached_tokens,
        }


def plan() -> Workload:
    """Chats that arrive by themselves; a fixed number of them."""
    endless = with_poisson_arrivals(conversations(CHATS, 5), SESSIONS_PER_SECOND)
    return replace(endless, sessions=lambda: islice(endless, SESSIONS), length=SESSIONS)


def templated(workload: Workload) -> Workload:
    """The plan with the tokens that the stand-in's chat template puts around every message."""
    return replace(workload, sessions=lambda: map(_templated, workload))


def _templated(session: Session) -> Session:
    def opening(role: str, before: int) -> TextPart:
        return TextPart(f"{role} begins", before + _TURN_START + _ROLE_TOKENS[role])

    turns = tuple(
        Turn(
            (opening("user", _TURN_END), *turn.user, opening("assistant", _TURN_END)),
            turn.output_tokens,
            turn.think_seconds,
        )
        for turn in session.turns
    )
    return replace(session, system=(opening("system", 0), *session.system), turns=turns)


class Outcomes(Measurements):
    """Keeps each outcome as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Outcome] = []

    def record(self, outcome: Outcome) -> None:
        super().record(outcome)
        self.kept.append(outcome)


async def measure_stand_in() -> Measured:
    """Send the plan to a stand-in with the load tool's own client."""
    workload, loop = plan(), asyncio.get_running_loop()
    async with running_engine(OPTIONS) as engine, aiohttp.ClientSession() as http:
        client = Client(http, engine.url, OPTIONS.model)
        await client.ask([b'{"role":"user","content":"hello"}'], 2, Outcomes().token_gaps, False)
        outcomes = Outcomes()
        watching = asyncio.create_task(watch_lag(outcomes.lag))
        began_at = loop.time()
        await Sender(LoadOptions(engine.url), client, outcomes).send_all(workload)
        span_seconds = loop.time() - began_at
        watching.cancel()
    kept = outcomes.kept
    assert [outcome.failure for outcome in kept if outcome.failure] == []
    return Measured(
        [outcome.ttft_seconds for outcome in kept],
        sum(outcome.prompt_tokens for outcome in kept),
        sum(outcome.cached_tokens or 0 for outcome in kept),
        sum(outcome.output_tokens for outcome in kept),
        span_seconds,
        outcomes.lag.percentile(99) or 0.0,
    )


def measure_simulation() -> Measured:
    """Run the plan in a world of one engine and no distances."""
    settings = WorldSettings(
        regions=(RegionSettings("here", 1),),
        profile=OPTIONS.engine_profile(),
        round_trips={},
        within_seconds=0.0,
    )
    demand = Demand(arrivals=planned_arrivals(templated(plan()), {"here": 1.0}))
    records = run_world(settings, demand, PolicyName.ROUND_ROBIN, seed=1).requests
    return Measured(
        [record.ttft_seconds or 0.0 for record in records],
        sum(record.prompt_tokens for record in records),
        sum(record.cached_tokens for record in records),
        sum(record.output_tokens for record in records),
        max(record.ended_at for record in records),
    )


def disagreement(measured: Measured, simulated: Measured) -> dict[str, float]:
    """By how much what was measured is more, or less, than what was simulated."""
    expected = simulated.numbers()
    return {name: value / expected[name] - 1 for name, value in measured.numbers().items()}


def test_the_stand_in_and_the_simulator_agree() -> None:
    """Times to first token and throughput differ by less than 5 %, and tokens not at all."""
    simulated = measure_simulation()
    spoiled = []
    for _ in range(ATTEMPTS):
        measured = uvloop.run(measure_stand_in())
        assert measured.prompt_tokens == simulated.prompt_tokens
        assert measured.output_tokens == simulated.output_tokens
        off = disagreement(measured, simulated)
        if all(abs(ratio) < DISAGREEMENT_RATIO for ratio in off.values()):
            return
        spoiled.append((measured.lag_seconds, off))
    pytest.fail(f"(event loop lag p99, disagreement) of each attempt: {spoiled}")

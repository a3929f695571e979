"""Small worlds with round numbers, sessions that keep count, and a balancer that obeys a script."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from heliostat_sim.engine import Engine, EngineProfile, EngineRequest
from heliostat_sim.policies.registry import PolicyName, factory
from heliostat_sim.world.balancer import Balancer, GatewayPort
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Arrival, Ask, Demand
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Ending, Request
from heliostat_sim.world.settings import RegionSettings, WorldSettings
from heliostat_sim.world.world import World

PROFILE = EngineProfile(
    kv_tokens=8000,
    prefill_seconds_per_token=1e-3,
    prefill_floor_seconds=0.05,
    decode_floor_seconds=0.05,
    context_seconds_per_token=0.0,
    step_overhead_seconds=0.0,
)
"""Prompts take a millisecond a token, output tokens 50 ms each."""
ROUND_TRIPS = {
    frozenset(("us", "eu")): 0.1,
    frozenset(("us", "asia")): 0.14,
    frozenset(("eu", "asia")): 0.22,
}
WITHIN_SECONDS = 0.004


class Once:
    """A session of one request, which counts its answers."""

    def __init__(
        self, name: int = 0, prompt_tokens: int = 200, output_tokens: int = 20, user: int = 0
    ) -> None:
        self.user = user
        self.answers = 0
        self._chain = TokenChain()
        self._chain.add(1_000_000 + name, prompt_tokens)
        self._ask = Ask(self._chain, prompt_tokens, output_tokens)
        self._chain.add(2_000_000 + name, output_tokens)

    def start(self) -> list[Ask]:
        return [self._ask]

    def on_answer(self, ask: Ask) -> list[Ask]:
        self.answers += 1
        return []


def settings_of(engines: dict[str, int], **changes: Any) -> WorldSettings:
    """Regions with so many engines each, for 60 s."""
    settings = WorldSettings(
        regions=tuple(RegionSettings(name, count) for name, count in engines.items()),
        profile=PROFILE,
        round_trips=ROUND_TRIPS,
        within_seconds=WITHIN_SECONDS,
        duration_seconds=60.0,
    )
    return replace(settings, **changes)


def arrivals(*sessions: tuple[float, str, Once]) -> Demand:
    """Sessions at their times, in their regions."""
    return Demand(arrivals=(Arrival(at, region, session) for at, region, session in sessions))


def world_of(
    settings: WorldSettings,
    demand: Demand,
    balancer: PolicyName | Callable[[GatewayPort], Balancer],
) -> World:
    """A world that has not begun."""
    make = factory(balancer, settings) if isinstance(balancer, PolicyName) else balancer
    return World(settings, demand, make, seed=1)


def prefill_seconds(prompt_tokens: int, profile: EngineProfile = PROFILE) -> float:
    """How long an engine takes to the first token of a request that it has alone."""
    engine, chain = Engine(profile), TokenChain()
    chain.add(1, prompt_tokens + 2)
    engine.submit(EngineRequest(1, prompt_tokens, 2, chain), 0.0)
    at = engine.next_step_at()
    assert at is not None
    return at


class Scripted:
    """Dispatches to the first engine; `forwards_to` sends what clients bring to a region first.

    Requests of users in `held` are kept.
    """

    def __init__(
        self, port: GatewayPort, forwards_to: str | None = None, held: Iterable[int] = ()
    ) -> None:
        self.port = port
        self.forwards_to = forwards_to
        self.held = set(held)
        self.seen: list[tuple[float, str]] = []

    def start(self) -> None:
        self._note("start")

    def on_request(self, request: Request) -> None:
        self._note("request")
        if request.user in self.held:
            return
        if self.forwards_to not in (None, self.port.region) and not request.forwarded:
            self.port.forward(request, str(self.forwards_to))
        else:
            self._dispatch(request)

    def on_first_token(self, request: Request) -> None:
        self._note("first-token")

    def on_finished(self, request: Request) -> None:
        self._note("finished")

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        self._note(f"failed {engine.address}")
        self._dispatch(request)

    def on_sent_back(self, request: Request, region: str) -> None:
        self._note(f"sent-back {region}")
        self._dispatch(request)

    def on_message(self, sender: str, message: Any) -> None:
        self._note(f"message {sender} {message}")

    def on_engines_changed(self) -> None:
        self._note("engines " + ",".join(engine.address for engine in self.port.engines))

    def times(self, what: str) -> list[float]:
        """When something happened here."""
        return [at for at, seen in self.seen if seen == what]

    def _dispatch(self, request: Request) -> None:
        if self.port.engines:
            self.port.dispatch(request, self.port.engines[0])
        else:
            self.port.end(request, Ending.REJECTED)

    def _note(self, what: str) -> None:
        self.seen.append((round(self.port.now, 9), what))


def scripted(made: list[Scripted], **options: Any) -> Callable[[GatewayPort], Scripted]:
    """A factory of scripted balancers, which are put into the list as they are made."""

    def make(port: GatewayPort) -> Scripted:
        balancer = Scripted(port, **options)
        made.append(balancer)
        return balancer

    return make


def check_books(world: World, sessions: Sequence[Once]) -> None:
    """Nothing is lost or answered twice, and what has ended is nowhere in the world."""
    records = world.records
    assert records.sent == len(records.requests) + len(records.still_open)
    endings = Counter(record.ending for record in records.requests)
    assert max((session.answers for session in sessions), default=0) <= 1
    assert sum(session.answers for session in sessions) == endings[Ending.SERVED]
    open_ids = set(world.open)
    for engines in world.engines.values():
        for engine in engines:
            assert set(engine.requests) <= open_ids
    for gateway in world.all_gateways():
        assert set(gateway.open) | set(gateway.lent) <= open_ids

"""A greedy policy that knows everything: not a rival, but how far one could get with full sight.

One mind for all gateways knows without delay every engine's batch and cache and every output's
length. It sends a request where the sum of all requests' finishing times grows least: network, wait
until its whole life fits into the KV cache, uncached prompts before it and its own, its output at
the step time of that batch, and what it costs the others there (see `engine_outlook`). While the
best engine has no room it holds the request, and decides anew whenever a request comes or ends
anywhere. It dispatches to any region's engines without a hop over a peer.

It is greedy and no optimum: it looks at one request at a time, oldest first, and weighs neither
what a dispatch evicts nor who comes next.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from heliostat_sim.policies.engine_outlook import EngineOutlook, Forecast
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Ending, Request

LOOK_AHEAD_REQUESTS = 256
"""Held requests that are considered at a time, oldest first."""
PATIENCE_SECONDS = 30.0
"""One that has waited longer keeps younger ones from the engine that is best for it."""
FORECAST_SECONDS = 1.0
"""How long a forecast holds for an engine that nobody enters or leaves."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A request that waits for a decision."""

    request: Request
    gateway: GatewayPort
    since: float
    forecasts: dict[str, tuple[int, float, Forecast | None]] = field(default_factory=dict)
    """By engine: (its turn, when it was made, what)."""


class Mind:
    """What all gateways of a world share."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._sent: dict[str, dict[int, Request]] = {}
        """By engine, what was dispatched and has not ended."""
        self._engine_of: dict[int, str] = {}
        self._turns: Counter[str] = Counter()
        """By engine, how often somebody has entered or left it."""

    def hold(self, request: Request, port: GatewayPort) -> None:
        """Take a request in."""
        self.forget(request)
        self._held[request.id] = _Held(request, port, port.now)

    def forget(self, request: Request) -> None:
        """A request is over, or did not get there."""
        self._held.pop(request.id, None)
        address = self._engine_of.pop(request.id, None)
        if address is not None:
            self._sent[address].pop(request.id, None)
            self._turns[address] += 1

    def decide(self, port: GatewayPort) -> None:
        """Dispatch all that the best engine has room for."""
        if not self._held:
            return
        engines = [engine for engine in port.all_engines if engine.alive]
        outlooks: dict[str, EngineOutlook] = {}
        reserved: set[str] = set()
        for held in list(self._held.values())[:LOOK_AHEAD_REQUESTS]:
            request = held.request
            if request.ending is not None:
                self.forget(request)
                continue
            choice = self._best(held, engines, outlooks, port.now)
            if choice is None:
                if engines:
                    self.forget(request)
                    held.gateway.end(request, Ending.REJECTED)
                continue
            engine, has_room = choice
            if has_room and engine.address not in reserved:
                self._dispatch(held, engine)
                outlooks.pop(engine.address, None)
            elif port.now - held.since > PATIENCE_SECONDS:
                reserved.add(engine.address)

    def _dispatch(self, held: _Held, engine: EngineHost) -> None:
        request, address = held.request, engine.address
        del self._held[request.id]
        self._sent.setdefault(address, {})[request.id] = request
        self._engine_of[request.id] = address
        self._turns[address] += 1
        held.gateway.dispatch(request, engine)

    def _best(
        self,
        held: _Held,
        engines: list[EngineHost],
        outlooks: dict[str, EngineOutlook],
        now: float,
    ) -> tuple[EngineHost, bool] | None:
        """The engine of least cost, and whether it has room now."""
        best: tuple[EngineHost, bool] | None = None
        least = float("inf")
        for engine in engines:
            address, turn = engine.address, self._turns[engine.address]
            made = held.forecasts.get(address)
            if made is None or made[0] != turn or now - made[1] > FORECAST_SECONDS:
                outlook = outlooks.get(address)
                if outlook is None:
                    outlook = outlooks[address] = self._look(engine, now)
                made = held.forecasts[address] = (turn, now, outlook.forecast(held.request))
            _, made_at, forecast = made
            if forecast is None:
                continue
            passed = min(now - made_at, forecast.wait_seconds)
            cost = forecast.cost_seconds - passed + held.gateway.round_trip_seconds(engine.region)
            if cost < least:
                least, best = cost, (engine, not forecast.wait_seconds)
        return best

    def _look(self, engine: EngineHost, now: float) -> EngineOutlook:
        sent = self._sent.get(engine.address, {})
        coming = [
            request
            for request in sent.values()
            if request.id not in engine.requests and request.first_token_at is None
        ]
        return EngineOutlook(engine, coming, now)


class Clairvoyant:
    """A gateway's part: it hands everything to the shared mind."""

    def __init__(self, port: GatewayPort, shared: dict[str, Any]) -> None:
        self._port = port
        self._mind: Mind = shared.setdefault("clairvoyant", Mind())

    def start(self) -> None:
        """Nothing to set up."""

    def on_request(self, request: Request) -> None:
        """Hold it, and decide."""
        self._mind.hold(request, self._port)
        self._mind.decide(self._port)

    def on_first_token(self, request: Request) -> None:
        """Nothing that was not known."""

    def on_finished(self, request: Request) -> None:
        """Decide anew with what has become free."""
        self._mind.forget(request)
        self._mind.decide(self._port)

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """Place it anew."""
        self.on_request(request)

    def on_sent_back(self, request: Request, region: str) -> None:
        """It forwards nothing."""
        self.on_request(request)

    def on_message(self, sender: str, message: Any) -> None:
        """It needs no messages."""

    def on_engines_changed(self) -> None:
        """Decide anew."""
        self._mind.decide(self._port)

"""One engine in its place: the engine model, driven by the world's clock."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from heliostat_sim.engine import (
    Engine,
    EngineProfile,
    EngineRequest,
    EngineTotals,
    Finished,
    FirstToken,
)
from heliostat_sim.engine.errors import EngineError
from heliostat_sim.world.loop import EventLoop
from heliostat_sim.world.request import Request

OnToken = Callable[[Request, float], None]


class Scrape(NamedTuple):
    """What an engine's metrics page says at one instant; counts since the engine's start."""

    running_requests: int
    waiting_requests: int
    kv_cache_utilization: float
    totals: EngineTotals
    finished_requests: int
    prefilled_requests: int


class EngineHost:
    """An engine with an address in a region. It calls back for first and last tokens."""

    def __init__(
        self,
        address: str,
        region: str,
        profile: EngineProfile,
        loop: EventLoop,
        on_first_token: OnToken,
        on_finished: OnToken,
    ) -> None:
        self.address = address
        self.region = region
        self.profile = profile
        self._running_profile = profile
        self.engine = Engine(profile)
        self.requests: dict[int, Request] = {}
        self.alive = True
        self.finished_requests = 0
        self.prefilled_requests = 0
        self._loop = loop
        self._on_first_token = on_first_token
        self._on_finished = on_finished
        self._wake_at: float | None = None

    def submit(self, request: Request) -> bool:
        """Take a request in; False if the engine is dead or refuses it."""
        if not self.alive:
            return False
        order = EngineRequest(
            request.id, request.prompt_tokens, request.output_tokens, request.chain
        )
        try:
            self.engine.submit(order, self._loop.now)
        except EngineError:
            return False
        self.requests[request.id] = request
        self._advance()
        return True

    def abort(self, request: Request) -> None:
        """Forget a request whose client or gateway has gone."""
        if self.requests.pop(request.id, None) is not None:
            self.engine.abort(request.id, self._loop.now)
            self._advance()

    def metrics(self) -> Scrape | None:
        """What a scrape would tell now; None from a dead engine."""
        if not self.alive:
            return None
        self._advance()
        now = self.engine.metrics()
        return Scrape(
            now.running_requests,
            now.waiting_requests,
            now.kv_cache_utilization,
            now.totals,
            self.finished_requests,
            self.prefilled_requests,
        )

    def kill(self) -> list[Request]:
        """Die; return the requests that were lost."""
        lost, self.requests = list(self.requests.values()), {}
        self.alive = False
        self._wake_at = None
        return lost

    def set_speed(self, ratio: float) -> None:
        """Run at this part of the profile's speed from the next step on, restarts included."""
        speed_ratio = self.profile.speed_ratio * ratio
        self._running_profile = replace(self.profile, speed_ratio=speed_ratio)
        self.engine.profile = self._running_profile

    def restart(self) -> None:
        """Come back with an empty cache and counters at zero."""
        self.engine = Engine(self._running_profile)
        self.finished_requests = self.prefilled_requests = 0
        self.alive = True

    @property
    def totals(self) -> EngineTotals:
        """The engine's counters as of its last step."""
        return self.engine.metrics().totals

    def _advance(self) -> None:
        for event in self.engine.advance(self._loop.now):
            if isinstance(event, FirstToken):
                self.prefilled_requests += 1
                request = self.requests.get(event.request_id)
                if request is not None:
                    request.cached_tokens = event.cached_tokens
                    self._on_first_token(request, event.at)
            elif isinstance(event, Finished):
                self.finished_requests += 1
                request = self.requests.pop(event.request_id, None)
                if request is not None:
                    self._on_finished(request, event.at)
        self._schedule()

    def _schedule(self) -> None:
        due_at = self.engine.next_event_at()
        if due_at is not None and due_at != self._wake_at:
            self._loop.at(due_at, lambda: self._wake(due_at))
        self._wake_at = due_at

    def _wake(self, due_at: float) -> None:
        if self._wake_at == due_at:
            self._wake_at = None
            self._advance()

"""What policies that dispatch at once share: books of what is open, and requests without an engine.

A request is held only while there is no engine at all.
"""

from collections import Counter, deque
from typing import Any

from heliostat_sim.policies.engine_health import EngineHealth
from heliostat_sim.policies.outstanding import Outstanding
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Ending, Request

MAX_REFUSALS = 20
"""After so many refusals by engines a request is rejected: none will ever take it."""


class PushingBalancer:
    """Dispatches every request when it comes; subclasses say where to."""

    def __init__(self, port: GatewayPort) -> None:
        self.port = port
        self.open = Outstanding()
        self.health = EngineHealth(port, self._place_held)
        self._held: deque[Request] = deque()
        self._refusals: Counter[int] = Counter()

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose among engines that work; there is at least one."""
        raise NotImplementedError

    def on_dispatched(self, request: Request, engine: EngineHost) -> None:
        """A request goes to an engine: what a policy notes."""

    def start(self) -> None:
        """Nothing to set up."""

    def on_request(self, request: Request) -> None:
        """Dispatch at once, or hold while there is no engine."""
        self.place(request)

    def place(self, request: Request) -> None:
        """Dispatch a request to the engine that the policy picks."""
        engines = self.health.working()
        if not engines:
            self._held.append(request)
            return
        self.dispatch(request, self.pick(request, engines))

    def dispatch(self, request: Request, engine: EngineHost) -> None:
        """Send a request to an engine, and note it."""
        self.open.add(request, engine.address)
        self.on_dispatched(request, engine)
        self.port.dispatch(request, engine)

    def on_first_token(self, request: Request) -> None:
        """Of no interest to most policies."""

    def on_finished(self, request: Request) -> None:
        """Strike a request off the books."""
        self.open.release(request)
        self._refusals.pop(request.id, None)

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """Suspect the engine and place the request anew."""
        self.open.release(request)
        self.health.suspect(engine)
        self._refusals[request.id] += 1
        if self._refusals[request.id] > MAX_REFUSALS:
            del self._refusals[request.id]
            self.port.end(request, Ending.REJECTED)
            return
        self.place(request)

    def on_sent_back(self, request: Request, region: str) -> None:
        """Place it here; most policies forward nothing."""
        self.open.release(request)
        self.place(request)

    def on_message(self, sender: str, message: Any) -> None:
        """Most policies tell each other nothing."""

    def on_engines_changed(self) -> None:
        """Try again what had no engine."""
        self.health.forget_gone()
        self._place_held()

    def _place_held(self) -> None:
        held, self._held = self._held, deque()
        for request in held:
            if request.ending is None:
                self.place(request)

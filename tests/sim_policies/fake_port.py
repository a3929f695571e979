"""A gateway's port that writes down what a policy does, over real engines on one virtual clock."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from heliostat_sim.engine import PROFILES, EngineProfile
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.engine_host import EngineHost, Scrape
from heliostat_sim.world.loop import EventLoop
from heliostat_sim.world.request import Ending, Request

PROFILE = PROFILES["l4-llama-8b"]
ROUND_TRIPS = {"us": 0.003, "eu": 0.1, "asia": 0.2}


class FakePort:
    """Region `us`; engines are named us-0, us-1, ..."""

    def __init__(
        self,
        engines: int = 3,
        peers: Sequence[str] = (),
        profile: EngineProfile = PROFILE,
        loop: EventLoop | None = None,
    ) -> None:
        self.loop = loop or EventLoop()
        self.region = "us"
        self.peers = tuple(peers)
        self.random = Random("fake")
        self.engines = tuple(self._engine(f"us-{n}", "us", profile) for n in range(engines))
        self.all_engines = self.engines
        self.waiting: dict[str, int | None] = {}
        """What a probe says of an engine: its waiting requests; None: no answer."""
        self.dispatched: list[tuple[Request, str]] = []
        self.forwarded: list[tuple[Request, str]] = []
        self.ended: list[tuple[Request, Ending]] = []
        self.told: list[tuple[str, Any]] = []

    def _engine(self, address: str, region: str, profile: EngineProfile) -> EngineHost:
        return EngineHost(address, region, profile, self.loop, lambda *_: None, lambda *_: None)

    @property
    def now(self) -> float:
        return self.loop.now

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        self.loop.at(at, action)

    def round_trip_seconds(self, region: str) -> float:
        return ROUND_TRIPS[region]

    def dispatch(self, request: Request, engine: EngineHost) -> None:
        request.engine = engine
        self.dispatched.append((request, engine.address))

    def forward(self, request: Request, region: str) -> None:
        request.forwarded = True
        self.forwarded.append((request, region))

    def end(self, request: Request, ending: Ending) -> None:
        request.ending = ending
        self.ended.append((request, ending))

    def send_back(self, request: Request) -> None:
        raise AssertionError("no policy sends back")

    def probe(self, engine: EngineHost, answer: Callable[[Scrape | None], None]) -> None:
        waiting = self.waiting.get(engine.address, 0)
        scrape = engine.metrics()
        if waiting is None or scrape is None:
            answer(None)
        else:
            answer(scrape._replace(waiting_requests=waiting))

    def tell(self, region: str, message: Any) -> None:
        self.told.append((region, message))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run(self.loop.now + seconds)

    @property
    def places(self) -> list[str]:
        """Where requests went, in order."""
        return [address for _, address in self.dispatched]


class Requests:
    """Makes requests with increasing ids."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(
        self,
        *texts: tuple[int, int],
        user: int = 0,
        output_tokens: int = 10,
        forwarded: bool = False,
    ) -> Request:
        """A prompt of parts, each (text's name, tokens); alone, one text of its own."""
        self._last += 1
        parts: Iterable[tuple[int, int]] = texts or ((1_000_000 + self._last, 160),)
        chain = TokenChain()
        for name, tokens in parts:
            chain.add(name, tokens)
        prompt_tokens = chain.tokens
        chain.add(2_000_000 + self._last, output_tokens)
        return Request(
            id=self._last,
            region="us",
            user=user,
            chain=chain,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            max_output_tokens=None,
            source=None,
            sent_at=0.0,
            forwarded=forwarded,
        )


SMALL = replace(PROFILE, kv_tokens=1600)
"""An engine of 100 blocks."""

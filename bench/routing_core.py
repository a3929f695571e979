"""The routing core and the engine model, by the microsecond: what one event and one request cost.

Drives a router with a pool of endpoints that are busy as engines are: 10 to 20 requests in flight
at each, prompts of 8 to 16 block keys of which half begin with a shared prefix, a scrape of each
endpoint every 1.4 s, and per request an arrival, a finish and a measurement. What the engines do is
drawn from a queue and a random duration, outside the times that are taken. Then drives one engine
model with 15 to 25 requests at once. Prints two tables; one core, no I/O, garbage collection off.

    python bench/routing_core.py --endpoints 200 --requests 20000
"""

import argparse
import gc
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from time import perf_counter

from heliostat_routing.commands import Command, Dispatch, WakeAt
from heliostat_routing.events import (
    EngineMetrics,
    Event,
    MetricsScraped,
    Outcome,
    PoolUpdated,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    Tick,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import BLOCK_BYTES, EndpointSettings, PoolSettings
from heliostat_sim.engine import PROFILES, Engine, EngineRequest, Finished
from heliostat_sim.world.chain import TokenChain

POOL = "pool"
BLOCK_TOKENS = 128
PREFILL_SECONDS_PER_TOKEN = 0.4e-3
KV_CAPACITY_TOKENS = 28_000
SCRAPE_SECONDS = 1.4
ARRIVALS_PER_ENDPOINT_PER_SECOND = 1.0
DURATION_SECONDS = (10.0, 20.0)
SHARED_PREFIXES_PER_ENDPOINT = 0.5

Handle = Callable[[Event, float], list[Command]]


@dataclass
class DrawnEngine:
    """An engine as its counters show it: one prompt after the other, then a random duration."""

    prompts: dict[int, float] = field(default_factory=dict)
    """Tokens of the requests in flight."""
    prefill_ends: list[float] = field(default_factory=list)
    free_at: float = 0.0
    finished: int = 0
    prompt_tokens: int = 0
    first_tokens: int = 0
    hit_tokens: int = 0
    generated: int = 0
    warm: set[int] = field(default_factory=set)

    def metrics(self, now: float) -> EngineMetrics:
        """What a scrape tells."""
        while self.prefill_ends and self.prefill_ends[0] <= now:
            self.prefill_ends.pop(0)
            self.first_tokens += 1
        waiting = max(0, len(self.prefill_ends) - 1)
        self.generated += len(self.prompts)
        return EngineMetrics(
            running_requests=len(self.prompts) - waiting,
            waiting_requests=waiting,
            kv_cache_utilization=min(1.0, sum(self.prompts.values()) / KV_CAPACITY_TOKENS),
            finished_requests=self.finished,
            prompt_tokens=self.prompt_tokens,
            generation_tokens=self.generated,
            prefix_query_tokens=self.prompt_tokens,
            prefix_hit_tokens=self.hit_tokens,
            first_tokens=self.first_tokens,
            kv_capacity_tokens=KV_CAPACITY_TOKENS,
        )


class Traffic:
    """Events for a router, each from the commands that came before."""

    def __init__(self, endpoints: int, seed: str) -> None:
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, Event]] = []
        self._order = count()
        self._tickets = count(1)
        self._wake_at: float | None = None
        self._asked: dict[int, tuple[RequestArrived, int]] = {}
        self._engines = {f"10.0.{i >> 8}.{i & 255}:8000": DrawnEngine() for i in range(endpoints)}
        self._prefixes = max(1, round(endpoints * SHARED_PREFIXES_PER_ENDPOINT))
        self._rate = endpoints * ARRIVALS_PER_ENDPOINT_PER_SECOND
        settings = PoolSettings(
            prefill_tokens_per_second=1 / PREFILL_SECONDS_PER_TOKEN,
            kv_capacity_tokens=KV_CAPACITY_TOKENS,
        )
        members = tuple(EndpointSettings(address) for address in self._engines)
        self._push(0.0, PoolUpdated(POOL, settings, members))
        for address, engine in self._engines.items():
            at = self._random.uniform(0.0, SCRAPE_SECONDS)
            self._push(at, MetricsScraped(address, engine.metrics(0.0)))
        self._push(0.001, self._arrival())

    def run(self, requests: int, handle: Handle) -> None:
        """Feed events until so many requests more have arrived."""
        while requests:
            now, _, event = heappop(self._heap)
            match event:
                case RequestArrived():
                    requests -= 1
                    self._push(now + self._random.expovariate(self._rate), self._arrival())
                case MetricsScraped(address):
                    engine = self._engines[address]
                    event = MetricsScraped(address, engine.metrics(now))
                    self._push(now + SCRAPE_SECONDS, event)
                case RequestMeasured(ticket, str(address)):
                    self._finish(ticket, address)
                case Tick() if now != self._wake_at:
                    continue
                case _:
                    pass
            for command in handle(event, now):
                self._on_command(command, now)

    def _push(self, at: float, event: Event) -> None:
        heappush(self._heap, (at, next(self._order), event))

    def _arrival(self) -> RequestArrived:
        draw = self._random
        blocks, prefix = draw.randint(8, 16), -1
        keys = [draw.getrandbits(64) for _ in range(blocks)]
        if draw.random() < 0.5:
            prefix = draw.randrange(self._prefixes)
            shared = blocks // 2
            keys[:shared] = [hash((prefix, block)) for block in range(shared)]
        ticket = next(self._tickets)
        request = RequestArrived(ticket, POOL, tuple(keys), blocks * BLOCK_BYTES, 400)
        self._asked[ticket] = request, prefix
        return request

    def _on_command(self, command: Command, now: float) -> None:
        match command:
            case WakeAt(at):
                self._wake_at = at
                self._push(at, Tick())
            case Dispatch(ticket, (address, *_)):
                self._serve(ticket, address, now)
            case _:
                pass

    def _serve(self, ticket: int, address: str, now: float) -> None:
        engine = self._engines[address]
        request, prefix = self._asked[ticket]
        blocks = len(request.block_keys)
        cached = blocks // 2 * BLOCK_TOKENS if prefix in engine.warm else 0
        if prefix >= 0:
            engine.warm.add(prefix)
        tokens = blocks * BLOCK_TOKENS
        engine.free_at = max(now, engine.free_at) + (tokens - cached) * PREFILL_SECONDS_PER_TOKEN
        engine.prompts[ticket] = tokens
        engine.prompt_tokens += tokens
        engine.hit_tokens += cached
        engine.prefill_ends.append(engine.free_at)
        duration = self._random.uniform(*DURATION_SECONDS)
        measured = RequestMeasured(
            ticket,
            address,
            Outcome.SERVED,
            ttft_seconds=engine.free_at - now,
            duration_seconds=engine.free_at - now + duration,
            prompt_tokens=tokens,
            cached_tokens=cached,
            output_tokens=200,
            output_bytes=800,
        )
        self._push(engine.free_at + duration, RequestFinished(ticket))
        self._push(engine.free_at + duration + 0.01, measured)

    def _finish(self, ticket: int, address: str) -> None:
        engine = self._engines[address]
        del engine.prompts[ticket], self._asked[ticket]
        engine.finished += 1


class Stopwatch:
    """Seconds and calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, router: Router) -> Handle:
        """The router's `handle`, with the time of each kind of event taken."""

        def handle(event: Event, now: float) -> list[Command]:
            began_at = perf_counter()
            commands = router.handle(event, now)
            self.add(type(event).__name__, perf_counter() - began_at)
            return commands

        return handle

    def add(self, name: str, seconds: float) -> None:
        """Count one call."""
        self.seconds[name] += seconds
        self.calls[name] += 1

    def lines(self, requests: int) -> Iterator[str]:
        """A table."""
        yield f"{'':<18}{'calls':>9}{'us each':>10}{'us/request':>12}"
        for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            calls = self.calls[name]
            each, share = seconds / calls * 1e6, seconds / requests * 1e6
            yield f"{name:<18}{calls:>9}{each:>10.1f}{share:>12.1f}"
        total = sum(self.seconds.values()) / requests * 1e6
        yield f"{'all':<37}{total:>12.1f}"


def measure_router(endpoints: int, requests: int) -> Stopwatch:
    """The router's share, once the endpoints are as full as they stay."""
    router, watch = Router(), Stopwatch()
    traffic = Traffic(endpoints, "routing core")
    traffic.run(round(endpoints * ARRIVALS_PER_ENDPOINT_PER_SECOND * 30), router.handle)
    traffic.run(requests, watch.timed(router))
    return watch


def measure_engine(requests: int) -> Stopwatch:
    """The engine model's share: one engine, driven as the simulator drives it."""
    draw, watch = random.Random("engine"), Stopwatch()
    engine, now = Engine(PROFILES["l4-llama-8b"]), 0.0
    prefixes = [TokenChain() for _ in range(4)]
    for number, prefix in enumerate(prefixes):
        prefix.add(number, 512)
    arrives_at, scraped_at = 0.0, 0.0
    submitted = finished = 0
    while finished < requests:
        due_at = engine.next_event_at()
        now = min(arrives_at, scraped_at, arrives_at if due_at is None else due_at)
        order = None
        if now == arrives_at:
            order = _order(submitted, draw, prefixes)
            submitted += 1
            arrives_at += draw.expovariate(1.25)
        began_at = perf_counter()
        if order is not None:
            engine.submit(order, now)
        events = engine.advance(now)
        engine.next_event_at()
        watch.add("submit" if order is not None else "advance", perf_counter() - began_at)
        if now == scraped_at:
            began_at = perf_counter()
            engine.metrics()
            watch.add("metrics", perf_counter() - began_at)
            scraped_at += SCRAPE_SECONDS
        finished += sum(isinstance(event, Finished) for event in events)
    return watch


def _order(number: int, draw: random.Random, prefixes: list[TokenChain]) -> EngineRequest:
    prompt_tokens, output_tokens = draw.randint(800, 1200), draw.randint(100, 300)
    chain = draw.choice(prefixes).fork() if draw.random() < 0.5 else TokenChain()
    chain.add(1000 + number, prompt_tokens + output_tokens - chain.tokens)
    return EngineRequest(number, prompt_tokens, output_tokens, chain)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=200)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    gc.disable()
    print(f"router, {options.endpoints} endpoints")
    for line in measure_router(options.endpoints, options.requests).lines(options.requests):
        print(line)
    print("\nengine model, l4-llama-8b")
    requests = max(1, options.requests // 4)
    for line in measure_engine(requests).lines(requests):
        print(line)


if __name__ == "__main__":
    main()

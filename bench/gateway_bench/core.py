"""The parts of a decision by the microsecond, without I/O: reading, hashing, deciding, ending.

Also what the index takes in memory. Garbage collection is off, as in the micro-benchmarks of
timeit; one core.
"""

import gc
import statistics
import tracemalloc
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from time import perf_counter

from gateway_bench.engines import KV_CAPACITY_TOKENS, OUTPUT_TOKENS
from gateway_bench.load import Bodies
from heliostat_extproc.request_body import PromptDigest, parse_request_body
from heliostat_routing.commands import Dispatch
from heliostat_routing.events import (
    EngineMetrics,
    MetricsScraped,
    Outcome,
    PoolUpdated,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
)
from heliostat_routing.prefix_index import PrefixIndex
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings

_POOL = "bench"
_BLOCK_TOKENS = 128
_IDLE = EngineMetrics(
    running_requests=0,
    waiting_requests=0,
    kv_cache_utilization=0.1,
    finished_requests=0,
    prompt_tokens=0,
    generation_tokens=0,
    prefix_query_tokens=None,
    prefix_hit_tokens=None,
    kv_capacity_tokens=KV_CAPACITY_TOKENS,
)


def measure_core(endpoints: int, body_bytes: int, requests: int) -> dict[str, float]:
    """Median microseconds of each part, with a request in flight at every endpoint."""
    bodies, router, tickets = Bodies(body_bytes), Router(), count(1)
    members = tuple(EndpointSettings(_address(slot)) for slot in range(endpoints))
    settings = PoolSettings(prefill_tokens_per_second=1e8, kv_capacity_tokens=KV_CAPACITY_TOKENS)
    router.handle(PoolUpdated(_POOL, settings, members), 0.0)
    for member in members:
        router.handle(MetricsScraped(member.address, _IDLE), 0.0)
    inflight: deque[tuple[int, str, int]] = deque()
    took: dict[str, list[float]] = {name: [] for name in _PARTS}
    with _no_collection():
        for number in range(endpoints + requests):
            now = 1.0 + number * 0.01
            body = bodies.next()
            times = [perf_counter()]
            parsed = parse_request_body(body)
            times.append(perf_counter())
            digest = parsed.digest("bench", None)
            times.append(perf_counter())
            arrival = _arrival(next(tickets), digest)
            times.append(perf_counter())
            commands = router.handle(arrival, now)
            times.append(perf_counter())
            dispatch = next(it for it in commands if isinstance(it, Dispatch))
            inflight.append((arrival.ticket, dispatch.endpoints[0], digest.prompt_bytes))
            if number < endpoints:
                continue
            ticket, address, size = inflight.popleft()
            measured = _measured(ticket, address, size)
            times.append(perf_counter())
            router.handle(RequestFinished(ticket), now)
            times.append(perf_counter())
            router.handle(measured, now)
            times.append(perf_counter())
            for part, position in _PARTS.items():
                took[part].append(times[position + 1] - times[position])
    return {part: statistics.median(seconds) * 1e6 for part, seconds in took.items()}


_PARTS = {
    "parse_us": 0,
    "digest_us": 1,
    "decide_us": 3,
    "finish_us": 5,
    "learn_us": 6,
}
"""Where each part begins among the instants that are taken."""


def measure_index(endpoints: int, blocks: int) -> dict[str, float]:
    """Bytes that a full index takes, for an endpoint and for a block of one.

    Prompts of ten blocks, half of them shared, so many that every endpoint's memory is full.
    """
    index, keys = PrefixIndex(), count(1 << 40)
    shared = [[next(keys) for _ in range(5)] for _ in range(64)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(endpoints * blocks // 5):
        slot = number % endpoints
        prompt = [*shared[number % 64], *(next(keys) for _ in range(5))]
        index.record(slot, prompt, float(number), blocks)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    held = sum(index.resident_blocks(slot) for slot in range(endpoints))
    return {"bytes_per_block": used / held, "bytes_per_endpoint": used / endpoints}


def _address(slot: int) -> str:
    return f"127.1.{slot >> 8}.{slot & 255}:9400"


def _arrival(ticket: int, digest: PromptDigest) -> RequestArrived:
    return RequestArrived(
        ticket,
        _POOL,
        digest.block_keys,
        digest.prompt_bytes,
        max_output_tokens=OUTPUT_TOKENS,
        affinity_key=digest.affinity_key,
    )


def _measured(ticket: int, address: str, prompt_bytes: int) -> RequestMeasured:
    return RequestMeasured(
        ticket,
        address,
        Outcome.SERVED,
        duration_seconds=0.6,
        prompt_tokens=prompt_bytes // 4,
        output_tokens=OUTPUT_TOKENS,
        output_bytes=OUTPUT_TOKENS * 4,
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

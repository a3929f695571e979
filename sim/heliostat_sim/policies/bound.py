"""What no policy is expected to exceed: a bound on throughput, from the engine's numbers alone.

**One engine.** Let a request compute u uncached prompt tokens and decode d = output - 1 tokens in
steps (the first comes with the prompt). With b requests decoding on average, n requests take
n d / b decode steps. A step lasts the longer of its prefill and the read of the weights, and adds
context reads and overhead. Since a sum of maxima is at least the maximum of the sums, one request
takes at least

    T(b) = max(u c, (d / b) w) + (d / b) o + d k (prompt + d / 2)

engine seconds: c per prompt token, w the decode floor, o the step overhead, k per context token.
T falls with b, so the best b is the largest: limited by the batch limit, by KV (b (u + d / 2) fits:
what is cached is held once for all, for nothing) and, with perfect balance, by open requests per
engine. Capacity is engines / T(b).

**Clients.** N requests open at most give N / (shortest time + think time), the shortest being a
request alone on an engine beside its client.

The bound is the smaller. Its relaxations: one infinite cache shared by all engines, without time to
compute what siblings share; no waiting, no preemption, prompt chunks that always hide in decode
steps or the reverse. It takes mean lengths. Every term is linear or convex in them but the products
of prompt and output (context reads, KV held over time), so a mix does no better than its mean
unless its longer prompts have shorter answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from heliostat_sim.engine import EngineProfile
from heliostat_sim.world.chain import TokenChain


class Prompted(Protocol):
    """A request as far as its tokens go; `Ask` and `Request` are such."""

    @property
    def chain(self) -> TokenChain:
        """Prompt and answer."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def output_tokens(self) -> int:
        """Length of the answer."""


@dataclass(frozen=True, slots=True)
class Load:
    """Mean requests, and who asks them."""

    prompt_tokens: float
    cached_tokens: float
    """Of the prompt, with one infinite cache."""
    output_tokens: float
    open_requests: float
    """Most that clients have open or think about at once: clients times their branches."""
    think_seconds: float = 0.0
    round_trip_seconds: float = 0.0
    """Between a client and the nearest engine."""

    @property
    def uncached_tokens(self) -> float:
        """Prompt tokens to compute."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def decoded_tokens(self) -> float:
        """Output tokens after the first."""
        return max(self.output_tokens - 1, 0.0)


@dataclass(frozen=True, slots=True)
class Bound:
    """Throughput that no policy is expected to exceed."""

    requests_per_second: float
    tokens_per_second: float
    """As the SkyLB paper counts: prompt tokens, cached or not, and output tokens twice."""
    output_tokens_per_second: float
    client_requests_per_second: float
    """What the clients could ask for at the shortest time."""
    engine_requests_per_second: float
    """What the engines could do."""
    batch_requests: float
    """Decoding on each engine at that."""


def shared_cache_tokens(requests: Iterable[Prompted]) -> tuple[int, int]:
    """(cached, prompt) tokens of requests in order, with one infinite cache at their service.

    As in an engine, full blocks match and at least one token of a prompt is computed; a request's
    prompt and answer are there for the next.
    """
    seen: set[int] = set()
    cached = prompts = 0
    for request in requests:
        block = request.chain.block_tokens
        prompts += request.prompt_tokens
        whole = (request.prompt_tokens + request.output_tokens - 1) // block
        hashes = request.chain.between(0, max(whole, request.prompt_tokens // block))
        for index in range((request.prompt_tokens - 1) // block):
            if hashes[index] not in seen:
                break
            cached += block
        seen.update(hashes)
    return cached, prompts


def engine_seconds(profile: EngineProfile, load: Load, batch_requests: float) -> float:
    """T(b): least engine time of one request, in seconds."""
    steps = load.decoded_tokens / batch_requests
    context = load.decoded_tokens * (load.prompt_tokens + load.decoded_tokens / 2)
    seconds = (
        max(
            load.uncached_tokens * profile.prefill_seconds_per_token,
            steps * profile.decode_floor_seconds,
        )
        + steps * profile.step_overhead_seconds
        + context * profile.context_seconds_per_token
    )
    return seconds / profile.speed_ratio


def largest_batch(profile: EngineProfile, load: Load, engines: int) -> float:
    """The largest mean batch that KV, batch limit and open requests allow."""
    own_tokens = load.uncached_tokens + load.decoded_tokens / 2
    by_memory = profile.kv_tokens / own_tokens if own_tokens else float("inf")
    return min(profile.max_running_requests, by_memory, load.open_requests / engines)


def shortest_seconds(profile: EngineProfile, load: Load) -> float:
    """From asking to the last token, alone on an engine."""
    prefill = max(
        load.uncached_tokens * profile.prefill_seconds_per_token, profile.prefill_floor_seconds
    )
    step = profile.decode_floor_seconds + profile.step_overhead_seconds
    context = load.decoded_tokens * (load.prompt_tokens + load.decoded_tokens / 2)
    engine = (
        prefill
        + profile.step_overhead_seconds
        + load.decoded_tokens * step
        + context * profile.context_seconds_per_token
    )
    return load.round_trip_seconds + engine / profile.speed_ratio


def throughput_bound(profile: EngineProfile, engines: int, load: Load) -> Bound:
    """The bound for so many engines of one profile."""
    by_clients = load.open_requests / (shortest_seconds(profile, load) + load.think_seconds)
    batch = largest_batch(profile, load, engines)
    seconds = engine_seconds(profile, load, batch)
    by_engines = engines / seconds if seconds else float("inf")
    rate = min(by_clients, by_engines)
    return Bound(
        requests_per_second=rate,
        tokens_per_second=rate * (load.prompt_tokens + 2 * load.output_tokens),
        output_tokens_per_second=rate * load.output_tokens,
        client_requests_per_second=by_clients,
        engine_requests_per_second=by_engines,
        batch_requests=batch,
    )

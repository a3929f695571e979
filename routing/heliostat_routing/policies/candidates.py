"""Which endpoints are worth scoring, and what each would cost in seconds.

cost = network + predicted wait + (u / P) (1 + load / mean load) + spread

u are the prompt tokens that the endpoint does not hold, P its measured prefill rate. Spread is
what the only, crowded holder of a prefix pays, so that a hot prefix gets a second home before the
first saturates. A dozen endpoints at most are scored: the least loaded at the deepest matches, and
the least loaded of all.
"""

from dataclasses import dataclass

from heliostat_routing.endpoint import Endpoint
from heliostat_routing.explanation import Candidate
from heliostat_routing.flight import Flight
from heliostat_routing.need import predict_need
from heliostat_routing.policies.policy import World
from heliostat_routing.pool import Pool

MATCH_LEVELS = 3
"""Distinct match depths looked at."""
PER_LEVEL = 2
"""Holders scored at each depth: available ones first, then busy ones."""
LEAST_LOADED = 2
"""Endpoints scored for their low load alone."""
INDIFFERENT_RATIO = 0.05
INDIFFERENT_SECONDS = 0.0005
"""Costs that differ by less than this share and these seconds together are alike."""
CROWDED_KV_UTILIZATION = 0.5


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with what the decision needs beyond its explanation."""

    candidate: Candidate
    slot: int
    load: int
    available: bool
    work_seconds: float


def score_candidates(
    flight: Flight, pool: Pool, eligible: int, world: World, now: float
) -> list[Scored]:
    """Score the sensible endpoints, best first."""
    fleet = world.fleet
    chosen: dict[int, tuple[int, bool]] = {}
    for depth, mask in world.index.match(flight.request.block_keys, eligible, MATCH_LEVELS):
        only = not mask & (mask - 1)
        for endpoint in _near(mask, PER_LEVEL, world):
            chosen.setdefault(endpoint.slot, (depth, only))
    for endpoint in _near(eligible, LEAST_LOADED, world):
        chosen.setdefault(endpoint.slot, (0, False))
    scored = [
        score_endpoint(
            flight, pool, fleet[slot], match, now, pool.queue.ahead_seconds(flight, slot)
        )
        for slot, match in chosen.items()
    ]
    return _ranked(scored)


def _ranked(scored: list[Scored]) -> list[Scored]:
    """Cheapest first. Those that cost as good as the same are told apart by what they can do now,
    what they hold and what they carry, so that noise in measured rates attracts no load."""
    cheapest = min(s.candidate.cost_seconds for s in scored)
    margin = cheapest * INDIFFERENT_RATIO + INDIFFERENT_SECONDS

    def rank(s: Scored) -> tuple[float, bool, float, int]:
        cost = s.candidate.cost_seconds
        alike = cost <= cheapest + margin
        return (cheapest if alike else cost, not s.available, -s.candidate.cached_tokens, s.load)

    return sorted(scored, key=rank)


def _near(mask: int, most: int, world: World) -> list[Endpoint]:
    """The least loaded of a set: up to `most` available ones, then one busy one."""
    fleet = world.fleet
    found = fleet.least_loaded(mask & fleet.available, most)
    return found + fleet.least_loaded(mask & ~fleet.available, 1)


def score_endpoint(
    flight: Flight,
    pool: Pool,
    endpoint: Endpoint,
    match: tuple[int, bool],
    now: float,
    ahead_seconds: float = 0.0,
) -> Scored:
    """Predict, in seconds, what serving this request here costs.

    `match` is the depth of the prefix held and whether it is held only here; `ahead_seconds` the
    prefill of the requests that are held for this endpoint and go first.
    """
    depth, only = match
    need = predict_need(flight, endpoint, depth)
    cached, uncached = need.cached_tokens, need.uncached_tokens
    request_seconds = pool.tokens.mean_duration_seconds
    kv_wait = endpoint.kv_wait_seconds(need.kv_tokens, request_seconds)
    wait = max(endpoint.wait_seconds(now, request_seconds), kv_wait) + ahead_seconds
    mean_load = max(1.0, pool.mean_inflight)
    prefill = endpoint.prefill.seconds(uncached) * (1 + endpoint.load / mean_load)
    spread = endpoint.prefill.seconds(cached) * _crowding(endpoint, pool) if only else 0.0
    network = pool.settings.network_seconds
    candidate = Candidate(
        endpoint=endpoint.address,
        cached_tokens=cached,
        uncached_tokens=uncached,
        wait_seconds=wait,
        prefill_seconds=prefill,
        network_seconds=network,
        spread_seconds=spread,
        cost_seconds=network + wait + prefill + spread,
    )
    available = endpoint.available(now) and kv_wait == 0.0
    work_seconds = endpoint.prefill.seconds(uncached)
    return Scored(candidate, endpoint.slot, endpoint.load, available, work_seconds)


def _crowding(endpoint: Endpoint, pool: Pool) -> float:
    """How much more than the others an endpoint carries: 0 at twice their mean, 1 at four times.

    A KV cache that is more than half in use counts as well, 1 when it is full.
    """
    others = (pool.inflight - endpoint.inflight) / max(1, pool.members.bit_count() - 1)
    by_load = endpoint.load / (2 * (max(0.0, others) + 1)) - 1
    by_kv = 0.0
    if endpoint.kv_capacity_tokens:
        utilization = endpoint.kv_used_tokens() / endpoint.kv_capacity_tokens
        by_kv = (utilization - CROWDED_KV_UTILIZATION) / (1 - CROWDED_KV_UTILIZATION)
    return max(0.0, by_load, by_kv)

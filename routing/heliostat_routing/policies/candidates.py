"""Which endpoints are worth scoring, and what each would cost in seconds (see `cost`).

Spread is what the only, crowded holder of a prefix pays, so that a hot prefix gets a second home
before the first saturates. A dozen endpoints at most are scored: the least loaded at the deepest
matches, and the least loaded of all.
"""

from typing import NamedTuple

from heliostat_routing.cost import burden_seconds
from heliostat_routing.endpoint import Endpoint
from heliostat_routing.explanation import Candidate
from heliostat_routing.fleet import Fleet
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
INDIFFERENT_RATIO = 0.1
INDIFFERENT_SECONDS = 0.0005
"""Costs that differ by less than this share and these seconds together are alike."""
CROWDED_KV_UTILIZATION = 0.5


class Scored(NamedTuple):
    """A candidate's terms, as in `Candidate`, with what the decision needs beyond them."""

    endpoint: str
    cached_tokens: float
    uncached_tokens: float
    wait_seconds: float
    prefill_seconds: float
    network_seconds: float
    burden_seconds: float
    spread_seconds: float
    cost_seconds: float
    slot: int
    load: int
    available: bool
    work_seconds: float

    def candidate(self) -> Candidate:
        """What the explanation tells of it."""
        return Candidate(*self[:9])


class Costs:
    """What one request would cost at each endpoint; what all endpoints share is computed once."""

    __slots__ = (
        "_decode_seconds",
        "_flight",
        "_network_seconds",
        "_now",
        "_objective_seconds",
        "_pool",
        "_queue_seconds",
        "_request_seconds",
    )

    def __init__(self, flight: Flight, pool: Pool, now: float, queue_seconds: float = 0.0) -> None:
        """With `queue_seconds` the request waits at least so long, wherever it goes."""
        self._flight = flight
        self._pool = pool
        self._now = now
        self._request_seconds = pool.tokens.mean_duration_seconds
        self._decode_seconds = pool.decode_seconds(flight.request.max_output_tokens)
        self._objective_seconds = flight.objective_seconds(now)
        self._queue_seconds = queue_seconds
        self._network_seconds = pool.settings.network_seconds

    def at(
        self, endpoint: Endpoint, depth: int, only: bool = False, ahead_seconds: float = 0.0
    ) -> Scored:
        """Predict, in seconds, what serving the request here costs.

        `depth` is that of the prefix held, `only` whether no other endpoint holds it;
        `ahead_seconds` the prefill of the requests that are held for this endpoint and go first.
        """
        now, request_seconds, network = self._now, self._request_seconds, self._network_seconds
        cached, uncached, kv_tokens = predict_need(self._flight, endpoint, depth)
        spare_tokens = self._pool.spare_tokens(endpoint.load)
        kv_wait = endpoint.kv_wait_seconds(kv_tokens, request_seconds, spare_tokens)
        wait = max(endpoint.wait_seconds(now, request_seconds), kv_wait) + ahead_seconds
        wait = max(wait, self._queue_seconds)
        work = endpoint.prefill.seconds(uncached)
        ttft = network + wait + work
        late = ttft - self._objective_seconds
        burden = burden_seconds(endpoint.load, work, late, self._decode_seconds)
        spread = endpoint.prefill.seconds(cached) * _crowding(endpoint, self._pool) if only else 0.0
        return Scored(
            endpoint.address,
            cached,
            uncached,
            wait,
            work,
            network,
            burden,
            spread,
            ttft + burden + spread,
            endpoint.slot,
            endpoint.load,
            kv_wait == 0.0 and endpoint.available(now),
            work,
        )


def score_candidates(
    costs: Costs, flight: Flight, pool: Pool, eligible: int, world: World
) -> list[Scored]:
    """Score the sensible endpoints, best first."""
    fleet = world.fleet
    chosen: dict[int, tuple[int, bool]] = {}
    for depth, mask in world.index.match(flight.request.block_keys, eligible, MATCH_LEVELS):
        only = not mask & (mask - 1)
        for endpoint in _near(mask, PER_LEVEL, fleet):
            chosen.setdefault(endpoint.slot, (depth, only))
    for endpoint in _near(eligible, LEAST_LOADED, fleet):
        chosen.setdefault(endpoint.slot, (0, False))
    queue = pool.queue
    return _ranked(
        [
            costs.at(fleet[slot], depth, only, queue.ahead_seconds(flight, slot))
            for slot, (depth, only) in chosen.items()
        ]
    )


def _ranked(scored: list[Scored]) -> list[Scored]:
    """Cheapest first. Those that cost as good as the same are told apart by what they can do now,
    what they hold and what they carry, so that noise in measured rates attracts no load."""
    cheapest = min(s.cost_seconds for s in scored)
    margin = cheapest * INDIFFERENT_RATIO + INDIFFERENT_SECONDS

    def rank(s: Scored) -> tuple[float, bool, float, int]:
        cost = s.cost_seconds
        alike = cost <= cheapest + margin
        return (cheapest if alike else cost, not s.available, -s.cached_tokens, s.load)

    scored.sort(key=rank)
    return scored


def _near(mask: int, most: int, fleet: Fleet) -> list[Endpoint]:
    """The least loaded of a set: up to `most` available ones, then one busy one."""
    available = mask & fleet.available
    found = fleet.least_loaded(available, most)
    return found + fleet.least_loaded(mask & ~available, 1)


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

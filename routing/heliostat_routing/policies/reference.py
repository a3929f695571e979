"""The policies that people run today, to compare with: they send at once and know no cache."""

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_left
from functools import lru_cache
from weakref import WeakKeyDictionary

from heliostat_routing.bitmask import slot_from, slots
from heliostat_routing.eligibility import eligible_slots
from heliostat_routing.explanation import Explanation
from heliostat_routing.flight import Flight
from heliostat_routing.policies.policy import Choice, Pick, World
from heliostat_routing.pool import Pool
from heliostat_routing.settings import PolicyName

COMPARED = 16
"""Endpoints of the lowest load buckets whose exact loads are compared."""
POINTS_PER_ENDPOINT = 100
"""Points on the hash ring for each endpoint: keeps shares within about 10 % of each other."""


class _ImmediatePolicy(ABC):
    """What the reference policies share: no holding, queues first come first served."""

    name: PolicyName

    def __init__(self, world: World) -> None:
        self._fleet = world.fleet

    def pick(self, flight: Flight, pool: Pool, eligible: int, now: float) -> Pick:
        """Order the endpoints by the policy's rule; the first serves, the rest are for retries."""
        order = tuple(self.order(flight, pool, eligible)[: 1 + pool.settings.fallbacks])
        winner = self._fleet[order[0]].address
        return Pick(order, Explanation(self.name, self.name, winner, eligible.bit_count()))

    def leave(
        self, flight: Flight, pool: Pool, eligible: int, queue_seconds: float, now: float
    ) -> tuple[float, Pick] | None:
        """They know one region only."""
        return None

    def choose(self, window: list[Flight], pool: Pool, slot: int, now: float) -> Choice:
        """The oldest, wherever the rule sends it."""
        flight = window[0]
        eligible = eligible_slots(flight, self._fleet)
        return Choice((flight, self.pick(flight, pool, eligible, now)), [])

    @abstractmethod
    def order(self, flight: Flight, pool: Pool, eligible: int) -> list[int]:
        """The eligible slots, first choice first; enough for the fallbacks."""


class RoundRobinPolicy(_ImmediatePolicy):
    """Each endpoint of the pool in turn."""

    name = PolicyName.ROUND_ROBIN

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._next: WeakKeyDictionary[Pool, int] = WeakKeyDictionary()

    def order(self, flight: Flight, pool: Pool, eligible: int) -> list[int]:
        """Ascending slots from the pool's cursor on."""
        found: list[int] = []
        cursor = self._next.get(pool, 0)
        while eligible and len(found) <= pool.settings.fallbacks:
            slot = slot_from(eligible, cursor)
            found.append(slot)
            eligible &= ~(1 << slot)
            cursor = slot + 1
        self._next[pool] = found[0] + 1
        return found


class LeastInflightPolicy(_ImmediatePolicy):
    """The endpoint with the fewest requests in flight; equal ones take turns."""

    name = PolicyName.LEAST_INFLIGHT

    def order(self, flight: Flight, pool: Pool, eligible: int) -> list[int]:
        """Ascending by load."""
        found = self._fleet.least_loaded(eligible, max(COMPARED, 1 + pool.settings.fallbacks))
        found.sort(key=lambda endpoint: endpoint.load)
        self._fleet.rotate(found[0].slot)
        return [endpoint.slot for endpoint in found]


class ConsistentHashPolicy(_ImmediatePolicy):
    """A hash ring over the request's affinity key; endpoints that cannot serve are walked past."""

    name = PolicyName.CONSISTENT_HASH

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._rings: WeakKeyDictionary[Pool, tuple[int, list[tuple[int, int]]]]
        self._rings = WeakKeyDictionary()

    def order(self, flight: Flight, pool: Pool, eligible: int) -> list[int]:
        """Clockwise from the key."""
        ring = self._ring(pool)
        start = bisect_left(ring, (flight.request.affinity_key, 0))
        found: list[int] = []
        for step in range(len(ring)):
            slot = ring[(start + step) % len(ring)][1]
            if eligible >> slot & 1:
                found.append(slot)
                eligible &= ~(1 << slot)
                if not eligible or len(found) > pool.settings.fallbacks:
                    break
        return found

    def _ring(self, pool: Pool) -> list[tuple[int, int]]:
        """The ring of the pool's members, built anew when they change."""
        generation, ring = self._rings.get(pool, (-1, []))
        if generation != pool.generation:
            ring = sorted(
                (point, slot)
                for slot in slots(pool.members)
                for point in _points(self._fleet[slot].address)
            )
            self._rings[pool] = pool.generation, ring
        return ring


@lru_cache(maxsize=10_000)
def _points(address: str) -> tuple[int, ...]:
    labels = (f"{address}#{number}".encode() for number in range(POINTS_PER_ENDPOINT))
    return tuple(int.from_bytes(hashlib.blake2b(label, digest_size=8).digest()) for label in labels)

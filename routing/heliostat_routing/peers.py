"""The other regions: what each could take, what was sent there, and what its caches may hold.

A request that is on its way to a peer is its own reservation: until the peer's state has counted
it, it stands before any other in the peer's queue, so a state of any age is not spent twice. What a
peer's caches hold is known from what was forwarded to it. A state that is missing or too old is not
an idle region: its region is no candidate. Regions that cost as good as the same take turns, so
that ingresses which see the same states do not all choose the same one.
"""

from collections import deque
from collections.abc import Iterator
from heapq import nsmallest
from math import inf
from typing import NamedTuple

from heliostat_routing.bitmask import slots
from heliostat_routing.capacity import PoolCapacity, combine
from heliostat_routing.cost import burden_seconds
from heliostat_routing.events import PeerSettings, RegionStateReceived
from heliostat_routing.explanation import Candidate
from heliostat_routing.flight import Flight
from heliostat_routing.pool import Pool
from heliostat_routing.prefix_index import PrefixIndex

STATE_LIMIT_SECONDS = 1.0
"""A state older than this, beside its way, says nothing any more."""
LOST_SECONDS = 5.0
"""A forwarded request that the peer has not counted for so long has never come. A region
silent for as long is not waited for where no endpoint is left."""
FORGOTTEN_SECONDS = 60.0
"""A router of a peer that is silent for so long is gone, with all that it has counted."""
ALIKE_RATIO = 0.05
"""Regions whose costs differ by less than this share are alike."""
SCORED_REGIONS = 4
"""Regions that are scored for one request at most."""
HOLDERS = 2
"""Of those, regions that are chosen because they hold most of the prompt, at most."""
RANKED_SECONDS = 0.05
"""How long an order of the regions is used again."""


class Remote(NamedTuple):
    """What serving a request in another region would cost, in seconds."""

    region: str
    cached_tokens: float
    uncached_tokens: float
    wait_seconds: float
    prefill_seconds: float
    network_seconds: float
    burden_seconds: float
    cost_seconds: float
    hold_seconds: float
    """How long the peer may hold it before it shall refuse."""

    @property
    def account(self) -> str:
        """The name under which the ledger and explanations have the region."""
        return region_account(self.region)

    def candidate(self) -> Candidate:
        """What the explanation tells of it."""
        return Candidate(
            endpoint=self.account,
            cached_tokens=self.cached_tokens,
            uncached_tokens=self.uncached_tokens,
            wait_seconds=self.wait_seconds,
            prefill_seconds=self.prefill_seconds,
            network_seconds=self.network_seconds,
            burden_seconds=self.burden_seconds,
            spread_seconds=0.0,
            cost_seconds=self.cost_seconds,
        )


def region_account(region: str) -> str:
    """The name of a region where endpoints have their addresses."""
    return f"region/{region}"


class _Report(NamedTuple):
    """What one router of a region said last."""

    heard_at: float
    capacities: dict[str, PoolCapacity]
    received: int


class Peer:
    """One other region, as its routers describe it."""

    def __init__(self, settings: PeerSettings, slot: int, now: float) -> None:
        self.settings = settings
        self.slot = slot
        self.capacities: dict[str, PoolCapacity] = {}
        self.heard_at: float | None = None
        self.forwarded_at = 0.0
        """The stamp of the last request that was sent there."""
        self._known_since = now
        self._refused_until = 0.0
        self._round_trip_seconds: float | None = None
        self._reports: dict[str, _Report] = {}
        self._in_transit: deque[tuple[float, str]] = deque()
        self._in_transit_to: dict[str, int] = {}

    @property
    def round_trip_seconds(self) -> float:
        """As measured, else as assumed."""
        measured = self._round_trip_seconds
        return self.settings.round_trip_seconds if measured is None else measured

    def on_state(self, event: RegionStateReceived, now: float) -> None:
        """Take over what one of the region's routers says."""
        self.heard_at = now
        if event.round_trip_seconds is not None:
            self._round_trip_seconds = event.round_trip_seconds
        before = self._reports.get(event.writer)
        if before is not None:
            begun_anew = event.received < before.received
            self._arrived(event.received - (0 if begun_anew else before.received))
        capacities = {name: capacity for name, capacity in event.capacities if capacity.serves}
        self._reports[event.writer] = _Report(now, capacities, event.received)
        self._combine(now)

    def on_forward(self, pool: str, stamp: float, now: float) -> None:
        """Note a request that is sent there."""
        self.forwarded_at = stamp
        self._in_transit.append((now, pool))
        self._in_transit_to[pool] = self._in_transit_to.get(pool, 0) + 1

    def on_refusal(self, now: float) -> None:
        """Leave the region alone until its next state can know better."""
        self._refused_until = now + self.round_trip_seconds

    def in_transit(self, pool: str, now: float) -> int:
        """Requests sent to a pool there that no state has counted yet."""
        while self._in_transit and self._in_transit[0][0] < now - LOST_SECONDS:
            self._arrived(1)
        return self._in_transit_to.get(pool, 0)

    def usable(self, now: float) -> bool:
        """Whether its state is fresh enough to act on."""
        if self.heard_at is None or now < self._refused_until:
            return False
        return now - self.heard_at <= self._state_limit_seconds

    def expected(self, pool: str, now: float) -> bool:
        """Whether it may say soon that it could serve a pool, as it did or as it is new."""
        if self.heard_at is None:
            return now - self._known_since <= LOST_SECONDS
        return pool in self.capacities and now - self.heard_at <= LOST_SECONDS

    @property
    def _state_limit_seconds(self) -> float:
        return STATE_LIMIT_SECONDS + self.round_trip_seconds

    def _arrived(self, requests: int) -> None:
        """So many of those in transit, the oldest, are so no more."""
        for _ in range(min(requests, len(self._in_transit))):
            pool = self._in_transit.popleft()[1]
            self._in_transit_to[pool] -= 1
            if not self._in_transit_to[pool]:
                del self._in_transit_to[pool]

    def _combine(self, now: float) -> None:
        """Put together what the routers have said that are not silent."""
        said: dict[str, list[PoolCapacity]] = {}
        for writer, report in list(self._reports.items()):
            silent_seconds = now - report.heard_at
            if silent_seconds > FORGOTTEN_SECONDS:
                del self._reports[writer]
            elif silent_seconds <= self._state_limit_seconds:
                for name, capacity in report.capacities.items():
                    said.setdefault(name, []).append(capacity)
        self.capacities = {name: combine(views) for name, views in said.items()}


class Peers:
    """All other regions, and the prefixes that were forwarded to them."""

    def __init__(self) -> None:
        self.by_region: dict[str, Peer] = {}
        self.index = PrefixIndex()
        self._by_slot: dict[int, Peer] = {}
        self._slots = 0
        self._attractive: dict[str, tuple[float, list[Peer]]] = {}

    def on_state(self, event: RegionStateReceived, now: float) -> bool:
        """Take over what a router of a region says; return whether the region is a peer."""
        peer = self.by_region.get(event.region)
        if peer is not None:
            peer.on_state(event, now)
        return peer is not None

    def update(self, settings: tuple[PeerSettings, ...], now: float) -> None:
        """Take over the whole truth about who the peers are."""
        regions = {peer.region for peer in settings}
        for region in [r for r in self.by_region if r not in regions]:
            self.index.drop(self.by_region.pop(region).slot)
        for peer in settings:
            known = self.by_region.get(peer.region)
            if known is not None:
                known.settings = peer
            else:
                used = {other.slot for other in self.by_region.values()}
                slot = next(n for n in range(len(used) + 1) if n not in used)
                self.by_region[peer.region] = Peer(peer, slot, now)
        self._by_slot = {peer.slot: peer for peer in self.by_region.values()}
        self._slots = sum(1 << slot for slot in self._by_slot)
        self._attractive.clear()

    def nearest_seconds(self) -> float:
        """The shortest round trip to any region."""
        return min((peer.round_trip_seconds for peer in self.by_region.values()), default=inf)

    def cheapest(
        self, flight: Flight, pool: Pool, now: float, limit_seconds: float = inf
    ) -> Remote | None:
        """The region that would serve the request best, for less than the limit.

        None if there is none, or none can be judged. However many regions there are, a few are
        scored: those that hold most of the prompt, and those that are best for a usual request.
        """
        if flight.request.origin is not None:
            return None
        scored: list[tuple[Remote, Peer]] = []
        for peer, depth in self._promising(flight, pool, now):
            capacity = peer.capacities.get(pool.name)
            if capacity is None or not peer.usable(now) or peer.settings.region in flight.refused:
                continue
            wait_seconds = capacity.wait_seconds(capacity.queued + peer.in_transit(pool.name, now))
            if peer.round_trip_seconds + wait_seconds < limit_seconds:
                remote = self._score(flight, pool, peer, capacity, depth, wait_seconds, now)
                if remote.cost_seconds < limit_seconds:
                    scored.append((remote, peer))
        if not scored:
            return None
        limit = min(remote.cost_seconds for remote, _ in scored) * (1 + ALIKE_RATIO)

        def rank(found: tuple[Remote, Peer]) -> tuple[float, float, int, float]:
            remote, peer = found
            alike = remote.cost_seconds <= limit
            cost = 0.0 if alike else remote.cost_seconds
            in_transit = peer.in_transit(pool.name, now)
            return cost, -remote.cached_tokens, in_transit, peer.forwarded_at

        return min(scored, key=rank)[0]

    def _promising(self, flight: Flight, pool: Pool, now: float) -> Iterator[tuple[Peer, int]]:
        """The regions worth scoring, with how many leading blocks of the prompt each holds."""
        keys, chosen = flight.request.block_keys, self._by_slot
        if len(chosen) > SCORED_REGIONS:
            levels = self.index.match(keys, self._slots, 1)
            holders = [self._by_slot[slot] for slot in slots(levels[0][1])] if levels else []
            able = [p for p in holders if p.usable(now) and p.settings.region not in flight.refused]
            nearest = nsmallest(HOLDERS, able, key=lambda peer: peer.round_trip_seconds)
            chosen = {peer.slot: peer for peer in nearest}
            for peer in self._attractive_to(pool, now):
                if len(chosen) < SCORED_REGIONS:
                    chosen[peer.slot] = peer
        for slot, peer in chosen.items():
            yield peer, self.index.depth(keys, slot)

    def _attractive_to(self, pool: Pool, now: float) -> list[Peer]:
        """The regions that would serve a usual request of the pool best, about now."""
        at, best = self._attractive.get(pool.name, (now - RANKED_SECONDS, []))
        if now - at < RANKED_SECONDS and best:
            return best
        decode_seconds = pool.decode_seconds(None)

        def usual_seconds(peer: Peer) -> float:
            capacity = peer.capacities.get(pool.name)
            if capacity is None or not peer.usable(now):
                return inf
            wait = capacity.wait_seconds(capacity.queued + peer.in_transit(pool.name, now))
            burden = burden_seconds(capacity.load, pool.usual_work_seconds, 0.0, decode_seconds)
            return peer.round_trip_seconds + wait + burden

        best = nsmallest(SCORED_REGIONS, self.by_region.values(), key=usual_seconds)
        self._attractive[pool.name] = now, best
        return best

    def expected(self, flight: Flight, now: float) -> bool:
        """Whether a region that the request has not been to may soon be able to serve it."""
        return flight.request.origin is None and any(
            peer.expected(flight.pool.name, now)
            for region, peer in self.by_region.items()
            if region not in flight.refused
        )

    def _score(
        self,
        flight: Flight,
        pool: Pool,
        peer: Peer,
        capacity: PoolCapacity,
        depth: int,
        wait: float,
        now: float,
    ) -> Remote:
        cached = min(depth * pool.tokens.block_tokens, flight.prompt_tokens)
        uncached = flight.prompt_tokens - cached
        prefill = uncached / capacity.prefill_tokens_per_second
        network = peer.round_trip_seconds
        ttft = network + wait + prefill
        burden = burden_seconds(
            capacity.load,
            prefill,
            ttft - flight.objective_seconds(now),
            pool.decode_seconds(flight.request.max_output_tokens),
        )
        patience_seconds = flight.deadline - now
        return Remote(
            region=peer.settings.region,
            cached_tokens=cached,
            uncached_tokens=uncached,
            wait_seconds=wait,
            prefill_seconds=prefill,
            network_seconds=network,
            burden_seconds=burden,
            cost_seconds=ttft + burden,
            hold_seconds=max(network, min(2 * wait, patience_seconds)),
        )

    def send(self, flight: Flight, region: str, stamp: float, now: float) -> None:
        """Note that a request goes to a region, and that its caches will hold the prompt."""
        peer, keys = self.by_region[region], flight.request.block_keys
        peer.on_forward(flight.pool.name, stamp, now)
        flight.depth, flight.stamp = self.index.depth(keys, peer.slot), stamp
        kv_tokens = sum(capacity.kv_capacity_tokens for capacity in peer.capacities.values())
        self.index.record(peer.slot, keys, stamp, int(kv_tokens / flight.pool.tokens.block_tokens))

    def take_back(self, flight: Flight, region: str, now: float) -> None:
        """Note that a region has not served a request: its caches do not hold what was new."""
        peer = self.by_region.get(region)
        if peer is not None:
            peer.on_refusal(now)
            self.index.retract(peer.slot, flight.request.block_keys, flight.depth, flight.stamp)

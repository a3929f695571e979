"""The other regions: what each could take, what was sent there, and what its caches may hold.

A request that is on its way to a peer is its own reservation: until the peer's state has counted
it, it stands before any other in the peer's queue, so a state of any age is not spent twice. What a
peer's caches hold is known from what was forwarded to it. The few prefixes that are asked for most
there, which it tells, choose among regions that cost as good as the same, and no more: an endpoint
that is free there need not be the one that holds them. A state that is missing or too old is not
an idle region: its region is no candidate. Nor is one that the rules of the pool or of the request
do not allow. Regions that cost as good as the same take turns, so that ingresses which see the same
states do not all choose the same one.
"""

from collections.abc import Iterator
from heapq import nsmallest
from math import inf
from typing import NamedTuple

from heliostat_routing.bitmask import slots
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.cost import burden_seconds
from heliostat_routing.events import PeerSettings, RegionStateReceived, RequestMeasured
from heliostat_routing.explanation import Candidate
from heliostat_routing.flight import Flight
from heliostat_routing.peer import Peer
from heliostat_routing.pool import Pool
from heliostat_routing.prefix_heads import head_depth
from heliostat_routing.prefix_index import PrefixIndex
from heliostat_routing.residency import allows
from heliostat_routing.views import PeerView

ALIKE_RATIO = 0.05
"""Regions whose costs differ by less than this share are alike."""
SCORED_REGIONS = 4
"""Regions that are scored for one request at most."""
HOLDERS = 2
"""Of those, regions that are chosen because they hold most of the prompt, at most."""
RANKED_SECONDS = 0.05
"""How long an order of the regions is used again."""
BYTES_PER_OUTPUT_TOKEN = 250
"""Of a streamed answer on the wire: an event with one token in JSON."""
MOST_FORWARDS = 4
"""Times that a request is sent to other regions; then it stays here."""


class Remote(NamedTuple):
    """What serving a request in another region would cost, in seconds."""

    region: str
    cached_tokens: float
    uncached_tokens: float
    wait_seconds: float
    prefill_seconds: float
    network_seconds: float
    burden_seconds: float
    egress_seconds: float
    """The price of the way, as the time of an engine that it would buy."""
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
            egress_seconds=self.egress_seconds,
        )


def region_account(region: str) -> str:
    """The name of a region where endpoints have their addresses."""
    return f"region/{region}"


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

    def may_leave(self, flight: Flight, pool: Pool) -> bool:
        """Whether the request may be sent to another region at all."""
        return bool(
            self.by_region
            and pool.settings.sends
            and flight.request.origin is None
            and flight.request.may_leave
            and flight.forwards < MOST_FORWARDS
        )

    def cheapest(
        self,
        flight: Flight,
        pool: Pool,
        now: float,
        limit_seconds: float = inf,
        stay_wait_seconds: float = inf,
    ) -> Remote | None:
        """The region that would serve the request best, for less than the limit.

        `stay_wait_seconds` is how long it would wait here. None if there is no such region, or none
        can be judged. However many regions there are, a few are scored: those that hold most of the
        prompt, and those that are best for a usual request.
        """
        if not self.may_leave(flight, pool):
            return None
        scored: list[tuple[Remote, Peer]] = []
        for peer, depth in self._promising(flight, pool, stay_wait_seconds, now):
            capacity = peer.capacities[pool.name]
            wait_seconds = capacity.wait_seconds(capacity.queued + peer.in_transit(pool.name, now))
            if peer.round_trip_seconds + wait_seconds < limit_seconds:
                remote = self._score(flight, pool, peer, capacity, depth, wait_seconds, now)
                if remote.cost_seconds < limit_seconds:
                    scored.append((remote, peer))
        if not scored:
            return None
        limit = min(remote.cost_seconds for remote, _ in scored) * (1 + ALIKE_RATIO)
        keys = flight.request.block_keys

        def rank(found: tuple[Remote, Peer]) -> tuple[float, float, int, int, float]:
            remote, peer = found
            alike = remote.cost_seconds <= limit
            cost = 0.0 if alike else remote.cost_seconds
            hot = head_depth(keys, peer.heads)
            in_transit = peer.in_transit(pool.name, now)
            return cost, -remote.cached_tokens, -hot, in_transit, peer.forwarded_at

        return min(scored, key=rank)[0]

    def _promising(
        self, flight: Flight, pool: Pool, stay_wait_seconds: float, now: float
    ) -> Iterator[tuple[Peer, int]]:
        """The regions worth scoring, with how many leading blocks of the prompt each holds."""
        keys = flight.request.block_keys

        def able(peer: Peer) -> bool:
            return (
                peer.settings.leave_above_seconds <= stay_wait_seconds
                and _can_serve(peer, flight, pool)
                and peer.usable(now)
            )

        if len(self._by_slot) <= SCORED_REGIONS:
            chosen = [peer for peer in self._by_slot.values() if able(peer)]
        else:
            levels = self.index.match(keys, self._slots, 1)
            holders = [self._by_slot[slot] for slot in slots(levels[0][1])] if levels else []
            nearest = [peer for peer in holders if able(peer)]
            chosen = nsmallest(HOLDERS, nearest, key=lambda peer: peer.round_trip_seconds)
            for peer in self._attractive_to(pool, now):
                if len(chosen) == SCORED_REGIONS:
                    break
                if peer not in chosen and able(peer):
                    chosen.append(peer)
        for peer in chosen:
            yield peer, self.index.depth(keys, peer.slot)

    def _attractive_to(self, pool: Pool, now: float) -> list[Peer]:
        """The regions in order of what a usual request of the pool would cost there about now."""
        at, order = self._attractive.get(pool.name, (now - RANKED_SECONDS, []))
        if now - at < RANKED_SECONDS and order:
            return order
        decode_seconds, tokens = pool.decode_seconds(None), pool.tokens
        usual_bytes = pool.usual_kv_tokens * tokens.bytes_per_token

        def usual_seconds(peer: Peer) -> float:
            capacity = peer.capacities[pool.name]
            wait = capacity.wait_seconds(capacity.queued + peer.in_transit(pool.name, now))
            burden = burden_seconds(capacity.load, pool.usual_work_seconds, 0.0, decode_seconds)
            price = peer.settings.price_per_gib
            egress = _egress_seconds(pool, price, usual_bytes, tokens.mean_output_tokens)
            return peer.round_trip_seconds + wait + burden + egress

        judged = (p for p in self.by_region.values() if pool.name in p.capacities and p.usable(now))
        order = sorted(judged, key=usual_seconds)
        self._attractive[pool.name] = now, order
        return order

    def expected(self, flight: Flight, now: float) -> bool:
        """Whether a region that the request may go to may soon be able to serve it."""
        pool, adapter = flight.pool, flight.request.adapter
        return self.may_leave(flight, pool) and any(
            _is_open_to(peer, flight, pool) and peer.expected(pool.name, adapter, now)
            for peer in self.by_region.values()
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
        # There it has a way from the gateway to an engine before it, too.
        network = peer.round_trip_seconds + pool.settings.network_seconds
        ttft = network + wait + prefill
        burden = burden_seconds(
            capacity.load,
            prefill,
            ttft - flight.objective_seconds(now),
            pool.decode_seconds(flight.request.max_output_tokens),
        )
        request, price = flight.request, peer.settings.price_per_gib
        output_tokens = pool.tokens.expected_output(request.max_output_tokens)
        egress = _egress_seconds(pool, price, request.prompt_bytes, output_tokens)
        patience_seconds = flight.deadline - now
        return Remote(
            region=peer.settings.region,
            cached_tokens=cached,
            uncached_tokens=uncached,
            wait_seconds=wait,
            prefill_seconds=prefill,
            network_seconds=network,
            burden_seconds=burden,
            egress_seconds=egress,
            cost_seconds=ttft + burden + egress,
            hold_seconds=max(peer.round_trip_seconds, min(2 * wait, patience_seconds)),
        )

    def send(self, flight: Flight, remote: Remote, stamp: float, now: float) -> None:
        """Note that a request goes to a region, and that its caches will hold the prompt."""
        peer, keys = self.by_region[remote.region], flight.request.block_keys
        peer.on_forward(flight.ticket, flight.pool.name, remote.hold_seconds, stamp, now)
        flight.forwards += 1
        flight.depth, flight.stamp = self.index.depth(keys, peer.slot), stamp
        kv_tokens = sum(capacity.kv_capacity_tokens for capacity in peer.capacities.values())
        self.index.record(peer.slot, keys, stamp, int(kv_tokens / flight.pool.tokens.block_tokens))

    def take_back(self, flight: Flight, region: str, now: float) -> None:
        """Note that a region has not served a request: its caches do not hold what was new."""
        peer = self.by_region.get(region)
        if peer is not None:
            peer.on_return(flight.ticket, flight.dispatched_at, now)
            self.index.retract(peer.slot, flight.request.block_keys, flight.depth, flight.stamp)

    def close(self, flight: Flight) -> None:
        """Note that the stream of a request that has been forwarded is over."""
        peer = self.by_region.get(flight.region or "")
        if peer is not None:
            peer.on_end(flight.ticket)

    def on_measured(self, flight: Flight, event: RequestMeasured, now: float) -> None:
        """Note how a request has ended in the region that it was forwarded to."""
        peer = self.by_region.get(flight.region or "")
        if peer is not None:
            peer.on_measured(event, flight.dispatched_at, now)

    def on_lost(self, region: str, now: float) -> None:
        """Note that a region is not reached any more."""
        peer = self.by_region.get(region)
        if peer is not None:
            peer.on_lost(now)

    def views(self, now: float) -> tuple[PeerView, ...]:
        """What is believed of each region, to read."""
        return tuple(peer.view(now) for peer in self.by_region.values())


def _egress_seconds(
    pool: Pool, price_per_gib: float, prompt_bytes: float, output_tokens: float
) -> float:
    """What sending a request and its answer costs, in seconds of an engine at its price."""
    if not price_per_gib:
        return 0.0
    gib = (prompt_bytes + output_tokens * BYTES_PER_OUTPUT_TOKEN) / 2**30
    price_per_second = pool.settings.engine_price_per_hour / 3600
    return gib * price_per_gib / price_per_second if price_per_second > 0 else inf


def _is_open_to(peer: Peer, flight: Flight, pool: Pool) -> bool:
    """Whether the rules allow the region, and it has not refused the request."""
    region, groups = peer.settings.region, peer.settings.groups
    return (
        region not in flight.refused
        and allows(pool.settings.residency, region, groups)
        and allows(flight.request.residency, region, groups)
    )


def _can_serve(peer: Peer, flight: Flight, pool: Pool) -> bool:
    """Whether the region may have the request, and has the pool and the adapter."""
    capacity = peer.capacities.get(pool.name)
    takes = capacity is not None and capacity.takes(flight.request.adapter)
    return takes and _is_open_to(peer, flight, pool)

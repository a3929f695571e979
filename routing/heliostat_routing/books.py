"""All that the router keeps account of, changed together: a request is never in one book alone."""

from collections.abc import Iterable, Sequence

from heliostat_routing.bitmask import slots
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.endpoint import Endpoint
from heliostat_routing.events import PoolUpdated
from heliostat_routing.fleet import Fleet
from heliostat_routing.flight import Flight
from heliostat_routing.ledger import Ledger
from heliostat_routing.need import predict_need
from heliostat_routing.peers import Peers, Remote
from heliostat_routing.pool import Pool
from heliostat_routing.prefill_model import PrefillModel
from heliostat_routing.prefix_index import PrefixIndex
from heliostat_routing.siblings import Siblings

CAPACITY_SECONDS = 0.05
"""How long what was measured of a pool's capacity is used again."""
SMALLEST_STEP_SECONDS = 1e-6
"""Stamps of two dispatches differ by at least this, also at the same instant."""


class Books:
    """Pools, endpoints, flights, the ledger of open streams and the prefix index."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.index = PrefixIndex()
        self.ledger = Ledger()
        self.peers = Peers()
        self.siblings = Siblings()
        self.siblings_ledger = Ledger()
        """The open streams of siblings, which are none of this router's."""
        self.pools: dict[str, Pool] = {}
        self.flights: dict[int, Flight] = {}
        """Open requests by ticket; those of siblings have negative tickets."""
        self.opened: dict[int, float] = {}
        """While siblings queue: when each slot last became able to take a request."""
        self.concerned: dict[int, None] = {}
        """Slots to which something has happened since the queues were last served."""
        self._stamp = 0.0
        self._past_queue_changes = 0
        """In pools that are gone."""
        self._capacities: dict[str, tuple[float, PoolCapacity]] = {}
        self._pools_of: dict[int, list[Pool]] = {}
        """The pools of each slot."""

    def next_stamp(self, now: float) -> float:
        """A stamp for the prefix index: later than all before it."""
        self._stamp = max(now, self._stamp + SMALLEST_STEP_SECONDS)
        return self._stamp

    @property
    def queue_changes(self) -> int:
        """How often any queue has changed: as long as this is the same, so are all queues."""
        return self._past_queue_changes + sum(p.queue.changes for p in self.pools.values())

    # Requests

    def open(self, flight: Flight) -> None:
        """Enter a request that has arrived."""
        self._ledger_of(flight).open(flight.ticket)
        self.flights[flight.ticket] = flight

    def _ledger_of(self, flight: Flight) -> Ledger:
        return self.siblings_ledger if flight.foreign else self.ledger

    def send(
        self, flight: Flight, endpoint: Endpoint, now: float, age_seconds: float = 0.0
    ) -> None:
        """Enter that a request goes to this endpoint, with what that is predicted to mean.

        It went there so long ago: this router hears late of what siblings send.
        """
        pool, keys = flight.pool, flight.request.block_keys
        sent_at = now - age_seconds
        start = sent_at + pool.settings.network_seconds
        flight.depth = self.index.depth(keys, endpoint.slot)
        cached, uncached, kv_tokens = predict_need(flight, endpoint, flight.depth)
        flight.hit_tokens, flight.uncached_tokens, flight.kv_tokens = cached, uncached, kv_tokens
        flight.dispatched_at = sent_at
        flight.load = float(endpoint.load)
        flight.wait_seconds = endpoint.clock.done_at(start) - start
        flight.stamp = self.next_stamp(now)
        work_seconds = endpoint.prefill.seconds(uncached)
        endpoint.on_dispatch(flight.ticket, start, work_seconds, kv_tokens)
        endpoint.audit.on_dispatch(flight.hit_tokens)
        pool.observe_need(work_seconds, kv_tokens)
        capacity = capacity_blocks(endpoint, pool)
        flight.runs = self.index.record(endpoint.slot, keys, flight.stamp, capacity)
        if flight.endpoint is None:
            pool.inflight += 1
            pool.siblings_inflight += flight.foreign
        flight.endpoint = endpoint.address
        before = self._ledger_of(flight).assign(flight.ticket, endpoint.address)
        if before is not None:
            self.touch(before, now)
        self.touch(endpoint.address, now)

    def forward(self, flight: Flight, remote: Remote, now: float) -> None:
        """Enter that a request goes to another region."""
        self.peers.send(flight, remote, self.next_stamp(now), now)
        flight.region, flight.dispatched_at = remote.region, now
        self.ledger.assign(flight.ticket, remote.account)

    def take_back(self, flight: Flight, region: str, now: float) -> None:
        """Enter that another region has refused the request.

        It is not asked again, unless there is no endpoint here to fall back on.
        """
        flight.region = flight.reserves = None
        if flight.pool.ready & self.fleet.serving:
            flight.refused.add(region)
        self.ledger.release(flight.ticket)
        self.peers.take_back(flight, region, now)

    def close(self, flight: Flight, now: float) -> None:
        """Enter that a request's stream is over."""
        del self.flights[flight.ticket]
        self._ledger_of(flight).close(flight.ticket)
        if flight.queued:
            flight.pool.queue.remove(flight)
        if flight.region is not None:
            self.peers.close(flight)
        if flight.endpoint is None:
            return
        flight.pool.inflight -= 1
        flight.pool.siblings_inflight -= flight.foreign
        endpoint = self.fleet.by_address.get(flight.endpoint)
        if endpoint is not None:
            endpoint.on_finish(flight.ticket, now, flight.kv_tokens)
            self.open_to_all([endpoint.slot], now)
            self.touch(endpoint.address, now)

    def open_to_all(self, freed: Iterable[int], now: float) -> None:
        """Note that siblings see these slots become able to take a request, too."""
        if self.siblings.queueing:
            for slot in freed:
                self.opened[slot] = now

    def fail(self, flight: Flight, address: str, now: float) -> None:
        """Hold a failure against an endpoint, once for each request."""
        endpoint = self.fleet.by_address.get(address)
        if endpoint is None or address in flight.failed_at:
            return
        if flight.endpoint == address:
            self.undo(flight, endpoint)
        flight.failed_at[address] = flight.returns
        endpoint.breaker.on_failure(now)
        self.touch(address, now)

    def come_back(self, flight: Flight, endpoints: tuple[str, ...], now: float) -> None:
        """Enter that none of these endpoints has answered the request: it is nowhere again."""
        for address in endpoints:
            if flight.failed_at.get(address) != flight.returns:
                flight.failed_at.pop(address, None)  # it has failed once more
                self.fail(flight, address, now)
        flight.returns += 1
        flight.reserves = None
        flight.pool.inflight -= 1
        before = flight.endpoint
        flight.endpoint = None
        self.ledger.release(flight.ticket)
        self.touch(before or "", now)

    def undo(self, flight: Flight, endpoint: Endpoint) -> None:
        """Take back what was expected of an attempt that came to nothing."""
        endpoint.on_uncounted(flight.ticket)
        endpoint.audit.on_end(flight.hit_tokens, counted=False, cached_tokens=None)
        self.index.retract(endpoint.slot, flight.request.block_keys, flight.depth, flight.stamp)

    # Endpoints

    def touch(self, address: str, now: float) -> None:
        """Bring the sets in line after anything that concerns this endpoint."""
        endpoint = self.fleet.by_address.get(address)
        if endpoint is None:
            return
        for pool in self._pools_of.get(endpoint.slot, ()):
            pool.room.changed.add(endpoint.slot)
        endpoint.count(self.ledger.inflight(address) + self.siblings_ledger.inflight(address))
        if not endpoint.inflight and not self.fleet.members >> endpoint.slot & 1:
            self.index.drop(endpoint.slot)
            self.fleet.remove(endpoint)
            return
        self.fleet.refresh(endpoint, now)
        self.concerned[endpoint.slot] = None

    def update_pool(self, event: PoolUpdated, now: float) -> None:
        """Take over the whole truth about one pool."""
        pool = self.pools.get(event.pool)
        if pool is None:
            pool = self.pools[event.pool] = Pool(event.pool, event.settings)
        before = pool.members
        slot_of = {}
        for settings in event.endpoints:
            endpoint = self.fleet.by_address.get(settings.address)
            if endpoint is None:
                model = PrefillModel(pool.prefill.tokens_per_second)
                endpoint = self.fleet.add(settings.address, model, now)
            endpoint.assume_kv_capacity(event.settings.kv_capacity_tokens)
            slot_of[settings.address] = endpoint.slot
        pool.take_over(event, slot_of)
        for slot in slots(before & ~pool.members):
            pool.queue.unhold(slot)
        self._refresh_members(before | pool.members, now)

    def remove_pool(self, pool: Pool, now: float) -> None:
        """Forget a pool; its endpoints finish what they have."""
        del self.pools[pool.name]
        self._past_queue_changes += pool.queue.changes
        self._capacities.pop(pool.name, None)
        self._refresh_members(pool.members, now)

    def restore(self, address: str, keys: Sequence[int], stamp: float) -> None:
        """Enter blocks that an endpoint has held since an instant before this router came."""
        endpoint = self.fleet.by_address.get(address)
        if endpoint is None:
            return
        pool = next((p for p in self.pools.values() if p.members >> endpoint.slot & 1), None)
        if pool is not None:
            self.index.restore(endpoint.slot, keys, stamp, capacity_blocks(endpoint, pool))

    def capacity(self, pool: Pool, now: float) -> PoolCapacity:
        """What the pool could take about now, measured at most so often."""
        known = self._capacities.get(pool.name)
        if known is not None and now - known[0] < CAPACITY_SECONDS:
            return known[1]
        capacity = measure_capacity(pool, self.fleet, self.fleet.available_at(now))
        self._capacities[pool.name] = now, capacity
        return capacity

    def capacities(self, now: float) -> tuple[tuple[str, PoolCapacity], ...]:
        """What each pool could take at this instant, all requests that have come counted.

        Pools that serve no other region are left out. A look changes no later decision.
        """
        available = self.fleet.available_at(now)
        return tuple(
            (name, measure_capacity(pool, self.fleet, available))
            for name, pool in self.pools.items()
            if not pool.retired and pool.settings.serves
        )

    def _refresh_members(self, changed: int, now: float) -> None:
        pools = self.pools.values()
        self.fleet.members = 0
        for pool in pools:
            self.fleet.members |= pool.members
        for endpoint in self.fleet.among(changed):
            of_slot = [pool for pool in pools if pool.members >> endpoint.slot & 1]
            if of_slot:
                self._pools_of[endpoint.slot] = of_slot
                endpoint.pending_limit = min(pool.settings.pending_limit for pool in of_slot)
            else:
                self._pools_of.pop(endpoint.slot, None)
                self.index.drop(endpoint.slot)
            self.touch(endpoint.address, now)


def capacity_blocks(endpoint: Endpoint, pool: Pool) -> int:
    """Blocks of prompts that the engine can keep beside the output that it is generating."""
    generating = endpoint.inflight * pool.tokens.mean_output_tokens / 2
    return max(0, int((endpoint.kv_capacity_tokens - generating) / pool.tokens.block_tokens))


def measure_capacity(pool: Pool, fleet: Fleet, available: int) -> PoolCapacity:
    """What a pool could take while these slots are available, in requests of its usual size."""
    serving, room = pool.ready & fleet.serving, pool.room
    room.look(serving, fleet, pool.usual_kv_tokens, pool.growth_tokens)
    count = serving.bit_count()
    return PoolCapacity(
        free=(serving & available & ~room.full).bit_count(),
        room=room.requests,
        queued=len(pool.queue),
        start_seconds=pool.usual_work_seconds / max(1, count),
        finish_seconds=pool.tokens.mean_duration_seconds / max(1, pool.inflight),
        load=pool.inflight / max(1, count),
        prefill_tokens_per_second=pool.prefill.tokens_per_second,
        kv_capacity_tokens=room.kv_capacity_tokens,
        adapters=pool.adapters(serving),
    )

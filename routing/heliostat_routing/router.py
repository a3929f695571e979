"""The state machine: events in, commands out.

Synchronous and without I/O, so that under one event loop every decision is atomic and the ledger is
up to date before the next request is looked at.
"""

from collections import OrderedDict
from collections.abc import Mapping
from math import inf

from heliostat_routing.books import Books
from heliostat_routing.calibration import calibrate
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import Command, Reject, RejectReason
from heliostat_routing.dispatcher import Dispatcher
from heliostat_routing.endpoint import Endpoint
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    EndpointLearned,
    EngineMetrics,
    Event,
    ForwardRefused,
    ForwardTurnedAway,
    MetricsScraped,
    Outcome,
    PeerLost,
    PeersUpdated,
    PoolLearned,
    PoolRemoved,
    PoolUpdated,
    PrefixesKnown,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    SiblingGone,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
    Tick,
)
from heliostat_routing.flight import Flight
from heliostat_routing.ledger import Ledger
from heliostat_routing.pool import Pool
from heliostat_routing.prefix_heads import PrefixHeads
from heliostat_routing.receipts import Receipts
from heliostat_routing.siblings import MOST_FLIGHTS, Relay, sibling_ticket
from heliostat_routing.views import EndpointView, PeerView, PoolView

MEASURE_SECONDS = 30.0
"""How long a finished request is remembered for its access log entry."""
SETTLE_SECONDS = 2.0
"""How long one is remembered that is finished and measured: its attempts may be told later."""
PREFILLED_SECONDS = 1.0
"""A sibling's request that was sent longer ago than this, beside its prefill, is past that."""


class Router:
    """Routes the requests of all pools. `handle` is the only way in."""

    def __init__(self) -> None:
        self._books = Books()
        self._dispatcher = Dispatcher(self._books)
        self._now = -inf
        self._unmeasured: OrderedDict[int, Flight] = OrderedDict()
        self._settled: OrderedDict[int, tuple[float, Flight]] = OrderedDict()
        self._retiring = False
        """Whether a pool has been removed that still has a queue."""
        self._receipts = Receipts()
        self._heads = PrefixHeads()

    @property
    def ledger(self) -> Ledger:
        """The account of open streams, to read."""
        return self._books.ledger

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event at the instant `now`; return what is to be done, in order.

        An instant before that of an earlier event counts as that event's.
        Raises DuplicateTicketError for the arrival of an open ticket; the state is then unchanged.
        """
        self._now = now = max(now, self._now)
        self._books.fleet.advance(now)
        self._take_in(event, now)
        self._dispatcher.settle(now)
        self._tidy(now)
        commands, self._dispatcher.out = self._dispatcher.out, []
        return commands

    def _take_in(self, event: Event, now: float) -> None:
        match event:
            case RequestArrived():
                self._on_arrived(event, now)
            case RequestFinished() | RequestMeasured() | AttemptStarted() | AttemptFailed():
                self._on_told(event.ticket, event, now)
            case SiblingSent():
                self._on_sibling_sent(event, now)
            case SiblingTold(name, told):
                sibling = self._books.siblings.by_name.get(name)
                if sibling is not None and told.ticket >= 0:
                    self._on_told(sibling_ticket(sibling.number, told.ticket), told, now)
            case MetricsScraped(address, metrics):
                self._on_scraped(address, metrics, now)
            case Tick():
                pass
            case ScrapeFailed(address):
                endpoint = self._books.fleet.by_address.get(address)
                if endpoint is not None:
                    endpoint.on_scrape_failed(now)
                    self._books.touch(address, now)
            case PoolUpdated():
                self._books.update_pool(event, now)
            case PoolRemoved(name):
                if name in self._books.pools:
                    self._books.pools[name].retired = self._retiring = True
            case PeersUpdated(peers):
                self._books.peers.update(peers, now)
            case RegionStateReceived():
                if self._books.peers.on_state(event, now):
                    self._dispatcher.on_region_state()
            case DispatchFailed(ticket, endpoints):
                flight = self._books.flights.get(ticket)
                if flight is not None and flight.endpoint is not None:
                    self._books.come_back(flight, endpoints, now)
                    self._dispatcher.decide_anew(flight, now)
            case ForwardTurnedAway(origin):
                self._note_origin(origin)
            case PeerLost(region):
                self._books.peers.on_lost(region, now)
            case ForwardRefused(ticket, region):
                flight = self._books.flights.get(ticket)
                if flight is not None and flight.region == region:
                    self._books.take_back(flight, region, now)
                    self._dispatcher.decide_anew(flight, now)
            case SiblingQueues():
                self._dispatcher.on_sibling_queues(event, now)
            case SiblingGone(name):
                self._on_sibling_gone(name, now)
            case PrefixesKnown(address, keys, age_seconds):
                self._books.restore(address, keys, now - age_seconds)
            case PoolLearned():
                pool = self._books.pools.get(event.pool)
                if pool is not None:
                    pool.learn_from(event)
            case EndpointLearned():
                endpoint = self._books.fleet.by_address.get(event.endpoint)
                if endpoint is not None:
                    endpoint.learn_from(event)

    def _on_told(
        self,
        ticket: int,
        event: RequestFinished | RequestMeasured | AttemptStarted | AttemptFailed,
        now: float,
    ) -> None:
        """Take in what has come of a request: one of this ticket, whatever the event's own."""
        match event:
            case RequestFinished():
                self._on_finished(ticket, now)
            case RequestMeasured():
                self._on_measured(ticket, event, now)
            case AttemptStarted(endpoint=address):
                self._on_attempt_started(ticket, address, now)
            case AttemptFailed(endpoint=address):
                flight = self._find(ticket)
                if flight is not None:
                    self._books.fail(flight, address, now)

    def _on_arrived(self, request: RequestArrived, now: float) -> None:
        pool = self._books.pools.get(request.pool)
        if pool is None or pool.retired:
            self._turn_away(request, RejectReason.UNKNOWN_POOL)
            return
        if request.origin is not None and not pool.settings.serves:
            self._turn_away(request, RejectReason.NOT_SERVED_FOR_PEERS)
            return
        patience_seconds = pool.settings.queue_timeout_seconds
        age_seconds = held_seconds = pool.settings.age_bound_seconds
        if request.hold_seconds is not None:
            patience_seconds = min(patience_seconds, request.hold_seconds)
            held_seconds = min(held_seconds, request.hold_seconds / 2)
        if request.priority < 0:
            held_seconds = 0.0
        flight = Flight(
            request.ticket,
            request,
            pool,
            arrived_at=now,
            deadline=now + patience_seconds,
            aged_at=now + age_seconds,
            unheld_at=now + held_seconds,
            overdue_at=now + 2 * age_seconds,
            prompt_tokens=request.prompt_bytes / pool.tokens.bytes_per_token,
        )
        self._books.open(flight)
        self._note_origin(request.origin)
        if self._books.peers.by_region:
            self._heads.note(request.block_keys)
        self._dispatcher.decide(flight, now)

    def _turn_away(self, request: RequestArrived, reason: RejectReason) -> None:
        """Answer a request that no pool here is for."""
        self._note_origin(request.origin)
        self._dispatcher.out.append(Reject(request.ticket, reason, 1.0))

    def _note_origin(self, origin: str | None) -> None:
        """Count a request that another region has sent, served or not: it is on its way no more."""
        if origin is not None:
            self._receipts.count(origin)

    def _on_sibling_sent(self, event: SiblingSent, now: float) -> None:
        """Book what a sibling has sent, as if this router had; one known already may have moved."""
        books, request = self._books, event.request
        pool, endpoint = books.pools.get(request.pool), books.fleet.by_address.get(event.endpoint)
        sibling = books.siblings.meet(event.sibling)
        if pool is None or endpoint is None or sibling is None or request.ticket < 0:
            return
        ticket = sibling_ticket(sibling.number, request.ticket)
        before = self._unmeasured.pop(ticket, None)
        if before is not None:  # it had come back
            self._give_up(before, now)
        elif self._find(ticket) is not None:
            self._on_attempt_started(ticket, event.endpoint, now)
            return
        if len(books.siblings_ledger) >= MOST_FLIGHTS:
            return
        age_seconds = max(0.0, event.age_seconds)
        flight = Flight(
            ticket,
            request,
            pool,
            arrived_at=now - age_seconds,
            deadline=inf,
            aged_at=inf,
            unheld_at=inf,
            overdue_at=inf,
            prompt_tokens=request.prompt_bytes / pool.tokens.bytes_per_token,
        )
        if before is not None:
            flight.failed_at, flight.returns = before.failed_at, before.returns + 1
        books.open(flight)
        books.send(flight, endpoint, now, age_seconds)
        if age_seconds > PREFILLED_SECONDS + endpoint.prefill.seconds(flight.uncached_tokens):
            endpoint.on_prefilled(ticket)

    def _on_sibling_gone(self, name: str, now: float) -> None:
        """Close what a sibling had open: its streams end with it, or are for engines to tell."""
        books = self._books
        for ticket in books.siblings.tickets_of(name, books.flights):
            flight = books.flights[ticket]
            endpoint = books.fleet.by_address.get(flight.endpoint or "")
            if endpoint is not None:
                endpoint.clock.release(ticket, now)
            self._give_up(flight, now)
            books.close(flight, now)
        for ticket in books.siblings.tickets_of(name, self._unmeasured):
            self._give_up(self._unmeasured.pop(ticket), now)
        for ticket in books.siblings.tickets_of(name, self._settled):
            del self._settled[ticket]
        books.siblings.forget(name)
        self._dispatcher.on_turns_changed()

    def _on_finished(self, ticket: int, now: float) -> None:
        flight = self._books.flights.get(ticket)
        if flight is None:
            return
        self._books.close(flight, now)
        if flight.measured:
            self._settled[ticket] = now, flight
        elif flight.endpoint is not None or flight.region is not None:
            flight.finished_at = now
            self._unmeasured[ticket] = flight

    def _find(self, ticket: int) -> Flight | None:
        """The request of a ticket, open or remembered."""
        flight = self._books.flights.get(ticket) or self._unmeasured.get(ticket)
        return flight or self._settled.get(ticket, (0.0, None))[1]

    def _on_attempt_started(self, ticket: int, address: str, now: float) -> None:
        """The proxy has moved the request to another endpoint than the one in the ledger."""
        books = self._books
        flight, endpoint = books.flights.get(ticket), books.fleet.by_address.get(address)
        if flight is None or endpoint is None or flight.endpoint in (None, address):
            return
        before = books.fleet.by_address.get(flight.endpoint or "")
        if before is not None and before.address not in flight.failed_at:
            books.undo(flight, before)
            before.breaker.on_neither(ticket)
        books.send(flight, endpoint, now)

    def _on_measured(self, ticket: int, event: RequestMeasured, now: float) -> None:
        """Learn how a request ended, which is told once, before or after its stream's end."""
        flight = self._unmeasured.pop(ticket, None)
        if flight is not None:
            self._settled[ticket] = now, flight
        else:
            flight = self._books.flights.get(ticket)
        if flight is None or flight.measured:
            return
        if flight.region is not None:
            flight.measured = True
            self._books.peers.on_measured(flight, event, now)
            return
        if flight.endpoint is None:
            return
        flight.measured = True
        picked = self._books.fleet.by_address.get(flight.endpoint)
        served_by = event.endpoint or flight.endpoint
        if event.outcome is Outcome.ENGINE_FAILED:
            self._books.fail(flight, served_by, now)
        elif picked is not None and served_by == flight.endpoint:
            self._learn(event, flight, picked, now)
        elif (endpoint := self._books.fleet.by_address.get(served_by)) is not None:
            endpoint.on_served(now)
            self._books.touch(served_by, now)
        if picked is not None:
            picked.breaker.on_neither(ticket)
            self._books.touch(picked.address, now)

    def _learn(
        self, event: RequestMeasured, flight: Flight, endpoint: Endpoint, now: float
    ) -> None:
        """Settle what was expected of the request at the endpoint that has answered it."""
        if event.outcome is Outcome.REFUSED:
            endpoint.clock.release(flight.ticket, now)
            endpoint.on_served(now)
            self._books.undo(flight, endpoint)
            return
        cached = event.cached_tokens
        counted = event.outcome is Outcome.SERVED
        endpoint.audit.on_end(flight.hit_tokens, counted=counted, cached_tokens=cached)
        if event.outcome is Outcome.CLIENT_ABORTED:
            self._on_aborted(flight, endpoint, now, had_output=event.ttft_seconds is not None)
            return
        if event.output_tokens:
            endpoint.on_output(flight.ticket, now)
        endpoint.on_served(now)
        stamp = self._books.next_stamp(now)
        calibrate(event, flight, endpoint, self._books.index, stamp)

    def _on_aborted(
        self, flight: Flight, endpoint: Endpoint, now: float, *, had_output: bool
    ) -> None:
        endpoint.clock.release(flight.ticket, now)
        endpoint.on_uncounted(flight.ticket, had_output=had_output)
        if endpoint.stalled:
            endpoint.breaker.on_failure(now)

    def _on_scraped(self, address: str, metrics: EngineMetrics, now: float) -> None:
        books = self._books
        endpoint = books.fleet.by_address.get(address)
        if endpoint is None:
            return
        if endpoint.on_scrape(metrics, now):
            books.index.drop(endpoint.slot)
        shortfall_tokens = endpoint.audit.shortfall_tokens(metrics.prefix_hit_tokens)
        if shortfall_tokens:
            pool = next(p for p in books.pools.values() if p.members >> endpoint.slot & 1)
            blocks = round(shortfall_tokens / pool.tokens.block_tokens)
            held = books.index.resident_blocks(endpoint.slot)
            books.index.evict_oldest(endpoint.slot, min(blocks, held // 2))
        books.touch(address, now)

    def _tidy(self, now: float) -> None:
        """Let go of what is over: requests that were never measured, pools that were removed."""
        while self._unmeasured:
            ticket, flight = next(iter(self._unmeasured.items()))
            if now - (flight.finished_at or now) < MEASURE_SECONDS:
                break
            del self._unmeasured[ticket]
            self._give_up(flight, now)
        while self._settled:
            ticket, (since, _) = next(iter(self._settled.items()))
            if now - since < SETTLE_SECONDS:
                break
            del self._settled[ticket]
        if self._retiring:
            self._remove_retired(now)

    def _give_up(self, flight: Flight, now: float) -> None:
        """Expect no more to be told of a request that was sent."""
        endpoint = self._books.fleet.by_address.get(flight.endpoint or "")
        if endpoint is not None and not flight.measured:
            endpoint.breaker.on_neither(flight.ticket)
            if flight.failed_at.get(endpoint.address) != flight.returns:
                endpoint.on_uncounted(flight.ticket)
                endpoint.audit.on_end(flight.hit_tokens, counted=False, cached_tokens=None)
            self._books.touch(endpoint.address, now)

    def _remove_retired(self, now: float) -> None:
        retired = [pool for pool in self._books.pools.values() if pool.retired]
        for pool in retired:
            if not len(pool.queue):
                self._books.remove_pool(pool, now)
        self._retiring = any(len(pool.queue) for pool in retired)

    # What is believed

    def relay(self, name: str) -> Relay:
        """What makes the words to siblings, which know this router by this name."""
        return Relay(name, self._books)

    def capacities(self, now: float) -> tuple[tuple[str, PoolCapacity], ...]:
        """What each pool could take now: what peers are told."""
        return self._books.capacities(now)

    def inflight(self, address: str) -> int:
        """Open requests at this endpoint, those that siblings have sent there among them."""
        books = self._books
        return books.ledger.inflight(address) + books.siblings_ledger.inflight(address)

    def busy_endpoints(self) -> frozenset[str]:
        """Name what has open requests, those that siblings have sent there among them."""
        return self._books.ledger.occupied | self._books.siblings_ledger.occupied

    def heads(self) -> tuple[int, ...]:
        """Block keys of the prefixes that are asked for most, hottest first: told to peers."""
        return self._heads.hottest()

    @property
    def received(self) -> Mapping[str, int]:
        """How many requests have come from each router of peers since this one began."""
        return self._receipts.by_origin()

    def peer_views(self, now: float) -> tuple[PeerView, ...]:
        """The state of every other region, to read."""
        return self._books.peers.views(now)

    def views(self, now: float) -> tuple[PoolView, ...]:
        """The state of every pool, to read."""
        return tuple(self._view_pool(pool, now) for pool in self._books.pools.values())

    def _view_pool(self, pool: Pool, now: float) -> PoolView:
        endpoints = self._books.fleet.among(pool.members)
        return PoolView(
            pool=pool.name,
            policy=pool.settings.policy,
            queued=len(pool.queue),
            inflight=pool.inflight - pool.siblings_inflight,
            bytes_per_token=pool.tokens.bytes_per_token,
            endpoints=tuple(self._view_endpoint(e, pool, now) for e in endpoints),
        )

    def _view_endpoint(self, endpoint: Endpoint, pool: Pool, now: float) -> EndpointView:
        metrics = endpoint.metrics
        blocks = self._books.index.resident_blocks(endpoint.slot)
        return EndpointView(
            address=endpoint.address,
            phase=pool.phases[endpoint.slot],
            available=endpoint.available(now),
            breaker=endpoint.breaker.state(now),
            inflight=self._books.ledger.inflight(endpoint.address),
            siblings_inflight=self._books.siblings_ledger.inflight(endpoint.address),
            pending=endpoint.pending(now),
            running_requests=metrics.running_requests if metrics else None,
            waiting_requests=metrics.waiting_requests if metrics else None,
            kv_cache_utilization=metrics.kv_cache_utilization if metrics else None,
            indexed_tokens=blocks * pool.tokens.block_tokens,
            prefill_tokens_per_second=endpoint.prefill.tokens_per_second,
        )

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
    EngineMetrics,
    Event,
    ForwardRefused,
    MetricsScraped,
    Outcome,
    PeersUpdated,
    PoolRemoved,
    PoolUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    Tick,
)
from heliostat_routing.flight import Flight
from heliostat_routing.ledger import Ledger
from heliostat_routing.pool import Pool
from heliostat_routing.views import EndpointView, PoolView

MEASURE_SECONDS = 30.0
"""How long a finished request is remembered for its access log entry."""
MOST_ORIGINS = 1000
"""Routers of peers whose requests are counted: those heard from last."""
SETTLE_SECONDS = 2.0
"""How long one is remembered that is finished and measured: its attempts may be told later."""


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
        self._received: dict[str, int] = {}

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
            case RequestFinished(ticket):
                self._on_finished(ticket, now)
            case MetricsScraped(address, metrics):
                self._on_scraped(address, metrics, now)
            case RequestMeasured():
                self._on_measured(event, now)
            case Tick():
                pass
            case AttemptStarted(ticket, address):
                self._on_attempt_started(ticket, address, now)
            case AttemptFailed(ticket, address):
                flight = self._find(ticket)
                if flight is not None:
                    self._books.fail(flight, address, now)
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
                    self._dispatcher.offer_to_peers(now)
            case ForwardRefused(ticket, region):
                flight = self._books.flights.get(ticket)
                if flight is not None and flight.region == region:
                    self._books.take_back(flight, region, now)
                    self._dispatcher.decide_anew(flight, now)

    def _on_arrived(self, request: RequestArrived, now: float) -> None:
        pool = self._books.pools.get(request.pool)
        if pool is None or pool.retired:
            self._note_origin(request)
            self._dispatcher.out.append(Reject(request.ticket, RejectReason.UNKNOWN_POOL, 1.0))
            return
        patience_seconds = pool.settings.queue_timeout_seconds
        age_seconds = held_seconds = pool.settings.age_bound_seconds
        if request.hold_seconds is not None:
            patience_seconds = min(patience_seconds, request.hold_seconds)
            held_seconds = min(held_seconds, request.hold_seconds / 2)
        flight = Flight(
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
        self._note_origin(request)
        self._dispatcher.decide(flight, now)

    def _note_origin(self, request: RequestArrived) -> None:
        """Count a request that another region has sent, served or not: it is on its way no more."""
        received = self._received
        if request.origin is not None:
            received[request.origin] = received.pop(request.origin, 0) + 1
            if len(received) > MOST_ORIGINS:
                del received[next(iter(received))]

    def _on_finished(self, ticket: int, now: float) -> None:
        flight = self._books.flights.get(ticket)
        if flight is None:
            return
        self._books.close(flight, now)
        if flight.measured:
            self._settled[ticket] = now, flight
        elif flight.endpoint is not None:
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

    def _on_measured(self, event: RequestMeasured, now: float) -> None:
        """Learn how a request ended, which is told once, before or after its stream's end."""
        flight = self._unmeasured.pop(event.ticket, None)
        if flight is not None:
            self._settled[event.ticket] = now, flight
        else:
            flight = self._books.flights.get(event.ticket)
        if flight is None or flight.measured or flight.endpoint is None:
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
            picked.breaker.on_neither(event.ticket)
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
            endpoint = self._books.fleet.by_address.get(flight.endpoint or "")
            if endpoint is not None:
                endpoint.breaker.on_neither(ticket)
                endpoint.on_uncounted(ticket)
                endpoint.audit.on_end(flight.hit_tokens, counted=False, cached_tokens=None)
                self._books.touch(endpoint.address, now)
        while self._settled:
            ticket, (since, _) = next(iter(self._settled.items()))
            if now - since < SETTLE_SECONDS:
                break
            del self._settled[ticket]
        if self._retiring:
            self._remove_retired(now)

    def _remove_retired(self, now: float) -> None:
        retired = [pool for pool in self._books.pools.values() if pool.retired]
        for pool in retired:
            if not len(pool.queue):
                self._books.remove_pool(pool, now)
        self._retiring = any(len(pool.queue) for pool in retired)

    # What is believed

    def capacities(self, now: float) -> tuple[tuple[str, PoolCapacity], ...]:
        """What each pool could take now: what peers are told."""
        return self._books.capacities(now)

    @property
    def received(self) -> Mapping[str, int]:
        """How many requests have come from each router of peers since this one began."""
        return self._received

    def views(self, now: float) -> tuple[PoolView, ...]:
        """The state of every pool, to read."""
        return tuple(self._view_pool(pool, now) for pool in self._books.pools.values())

    def _view_pool(self, pool: Pool, now: float) -> PoolView:
        endpoints = self._books.fleet.among(pool.members)
        return PoolView(
            pool=pool.name,
            policy=pool.settings.policy,
            queued=len(pool.queue),
            inflight=pool.inflight,
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
            inflight=endpoint.inflight,
            pending=endpoint.pending(now),
            running_requests=metrics.running_requests if metrics else None,
            waiting_requests=metrics.waiting_requests if metrics else None,
            kv_cache_utilization=metrics.kv_cache_utilization if metrics else None,
            indexed_tokens=blocks * pool.tokens.block_tokens,
            prefill_tokens_per_second=endpoint.prefill.tokens_per_second,
        )

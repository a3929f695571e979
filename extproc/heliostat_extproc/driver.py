"""Drives the core: the one place that has the core, the clock and the streams that wait on it.

`submit` is synchronous, so under one event loop each event and the delivery of its commands are
atomic. A failure of the core never hangs or drops a request: it falls open to Envoy's own
balancing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from heliostat_routing.commands import Command, Dispatch, Enqueue, Evict, Forward, Reject, WakeAt
from heliostat_routing.events import (
    AttemptStarted,
    DispatchFailed,
    Event,
    ForwardRefused,
    RequestArrived,
    RequestFinished,
    Tick,
)
from heliostat_routing.views import PoolView

OVERDUE_SECONDS = 0.5
"""How long after its deadline a held request waits for the core's word before it falls open."""

SHORTEST_SLEEP_SECONDS = 0.0005
"""A core that asks to be woken at once, again and again, must not starve the loop."""

_log = structlog.get_logger(__name__)


class Core(Protocol):
    """The decisions: see `heliostat_routing`."""

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        """Take one event and return what to do."""
        ...

    def views(self, now: float) -> tuple[PoolView, ...]:
        """Describe every pool as the core sees it at this instant."""
        ...


class Observer(Protocol):
    """Watches what the driver does, for metrics."""

    def on_handled(self, event: Event, commands: Sequence[Command], seconds: float) -> None:
        """Count one event; `seconds` is how long the core took."""
        ...

    def on_core_failed(self) -> None:
        """Count one failure of the core."""
        ...


class Recorder(Protocol):
    """Follows each step (now, event, commands): to replay a run, or to tell other routers."""

    def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        """Append one step."""
        ...


@dataclass(frozen=True, slots=True)
class FallOpen:
    """The core failed on this request: let Envoy balance it."""

    ticket: int


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The router stops, or the request has ended, before the core has spoken."""

    ticket: int


Verdict = Dispatch | Forward | Reject | Evict | FallOpen | ShutDown
"""The last word on a request."""


class RouterDriver:
    """Feeds events to the core and hands its commands to whoever waits for them."""

    def __init__(
        self, core: Core, *, observer: Observer | None = None, recorders: Sequence[Recorder] = ()
    ) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._recorders = list(recorders)
        self._holds: dict[int, asyncio.Future[Verdict]] = {}
        self._open: dict[int, RequestArrived] = {}
        self._routes: dict[int, tuple[str, ...]] = {}
        self._regions: dict[int, str] = {}
        self._alarm: asyncio.TimerHandle | None = None
        # Tickets of a former router may still come in over the access log: start beyond them.
        self._last_ticket = time.time_ns() // 1000

    def add_recorder(self, recorder: Recorder) -> None:
        """Let one more follow what the core is told and answers."""
        self._recorders.append(recorder)

    @property
    def open_requests(self) -> int:
        """Requests that have arrived and not finished."""
        return len(self._open)

    @property
    def held_requests(self) -> int:
        """Requests that wait for the core's last word."""
        return len(self._holds)

    def open_pools(self) -> frozenset[str]:
        """Name the pools that have requests which have not finished."""
        return frozenset(arrival.pool for arrival in self._open.values())

    def open_regions(self) -> frozenset[str]:
        """Name the regions that requests were forwarded to which have not finished."""
        return frozenset(self._regions.values())

    def serving_endpoints(self) -> frozenset[str]:
        """Name the endpoints that serve a request now."""
        return frozenset(route[0] for route in self._routes.values())

    def inflight_by_endpoint(self) -> Counter[str]:
        """Count the requests that each endpoint serves now; those it does not serve are missing."""
        return Counter(route[0] for route in self._routes.values())

    def promised_endpoints(self) -> frozenset[str]:
        """Name the endpoints that serve a request, or may be asked to by a retry."""
        return frozenset(address for route in self._routes.values() for address in route)

    def next_ticket(self) -> int:
        """Give a number that no other request has, not even one of a router before this one."""
        self._last_ticket += 1
        return self._last_ticket

    def views(self) -> tuple[PoolView, ...]:
        """Describe every pool as it is now."""
        return self._core.views(self._loop.time())

    def arrive(self, arrival: RequestArrived) -> Verdict | Enqueue:
        """Ask for an endpoint; after `Enqueue`, await `verdict`. In the end always `finish`."""
        self._open[arrival.ticket] = arrival
        return self._ask(arrival.ticket, arrival)

    def give_back(self, ticket: int) -> Verdict | Enqueue | None:
        """Ask anew for a request that nobody has answered; None if there is no such request.

        After `Enqueue`, await `verdict`. `finish` is for the stream on which the request arrived.
        """
        region = self._regions.pop(ticket, None)
        if region is not None:
            return self._ask(ticket, ForwardRefused(ticket, region))
        endpoints = self._routes.pop(ticket, None)
        if endpoints is not None:
            return self._ask(ticket, DispatchFailed(ticket, endpoints))
        return None

    def arrival(self, ticket: int) -> RequestArrived | None:
        """Give an open request as it arrived."""
        return self._open.get(ticket)

    def _ask(
        self, ticket: int, event: RequestArrived | ForwardRefused | DispatchFailed
    ) -> Verdict | Enqueue:
        hold = self._holds[ticket] = self._loop.create_future()
        commands = self.submit(event)
        if not hold.done():
            for command in commands:
                if isinstance(command, Enqueue) and command.ticket == ticket:
                    return command
        del self._holds[ticket]
        return hold.result() if hold.done() else FallOpen(ticket)

    async def verdict(self, enqueued: Enqueue) -> Verdict:
        """Wait for the last word on a held request; it comes by the deadline or soon after.

        A request that has finished meanwhile gets none.
        """
        hold = self._holds.get(enqueued.ticket)
        if hold is None:
            return ShutDown(enqueued.ticket)
        try:
            async with asyncio.timeout_at(enqueued.deadline + OVERDUE_SECONDS):
                return await hold
        except TimeoutError:
            if hold.done() and not hold.cancelled():
                return hold.result()  # both were due when the loop had time again
            _log.error("held request is overdue", ticket=enqueued.ticket)
            self._count_failure()
            return FallOpen(enqueued.ticket)
        finally:
            self._holds.pop(enqueued.ticket, None)

    def finish(self, ticket: int) -> None:
        """Say that the request's stream is over; a second call does nothing."""
        if ticket in self._open:
            del self._open[ticket]
            self._routes.pop(ticket, None)
            self._regions.pop(ticket, None)
            hold = self._holds.pop(ticket, None)
            if hold is not None and not hold.done():
                hold.set_result(ShutDown(ticket))
            self.submit(RequestFinished(ticket))

    def submit(self, event: Event) -> Sequence[Command]:
        """Tell the core what happened, deliver what it commands and return it."""
        if isinstance(event, AttemptStarted) and event.ticket in self._routes:
            rest = (it for it in self._routes[event.ticket] if it != event.endpoint)
            self._routes[event.ticket] = (event.endpoint, *rest)
        now = self._loop.time()
        started = time.perf_counter()
        try:
            commands = self._core.handle(event, now)
        except Exception:
            _log.exception("the core failed", event_kind=type(event).__name__)
            self._count_failure()
            return ()
        elapsed_seconds = time.perf_counter() - started
        for command in commands:
            self._deliver(command)
        self._record(now, event, commands)
        if self._observer is not None:
            self._observer.on_handled(event, commands, elapsed_seconds)
        return commands

    def close(self) -> None:
        """Stop the clock and give up every held request."""
        for ticket, hold in self._holds.items():
            if not hold.done():
                hold.set_result(ShutDown(ticket))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _deliver(self, command: Command) -> None:
        if isinstance(command, WakeAt):
            if self._alarm is not None:
                self._alarm.cancel()
            at = max(command.at, self._loop.time() + SHORTEST_SLEEP_SECONDS)
            self._alarm = self._loop.call_at(at, self._tick)
        elif not isinstance(command, Enqueue):
            self._note_place(command)
            hold = self._holds.get(command.ticket)
            if hold is not None and not hold.done():
                hold.set_result(command)

    def _note_place(self, command: Dispatch | Forward | Reject | Evict) -> None:
        ticket = command.ticket
        if ticket not in self._open:
            return
        if isinstance(command, Dispatch):
            self._routes[ticket] = command.endpoints
        elif isinstance(command, Forward):
            self._regions[ticket] = command.region

    def _record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        """Let all that follow have the step; none of them may end a request."""
        for recorder in self._recorders:
            try:
                recorder.record(now, event, commands)
            except Exception:
                _log.exception("a step was not followed", event_kind=type(event).__name__)

    def _tick(self) -> None:
        self._alarm = None
        self.submit(Tick())

    def _count_failure(self) -> None:
        if self._observer is not None:
            self._observer.on_core_failed()

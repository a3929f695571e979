"""The other routers of this region: what they hold, and who takes an endpoint first.

The routers of one region share its endpoints. Each tells the others what it sends and what comes of
it, so that all keep one view; what a sibling has sent is booked as a flight of this router's own,
under a ticket that only this module makes. A freed endpoint is seen by all at about the same
instant. It is taken without a word: the router with the oldest claim takes it at once, one that
is ranked k-th waits k times `TURN_SECONDS` for those before it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from heliostat_routing.commands import Command, Dispatch
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    EndpointLearned,
    Event,
    PoolLearned,
    PrefixesKnown,
    RequestFinished,
    RequestMeasured,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
)
from heliostat_routing.pool import Pool

if TYPE_CHECKING:  # the books hold the siblings
    from heliostat_routing.books import Books

MOST_SIBLINGS = 256
"""Siblings that are listened to; of more, the later ones' words are passed over."""
MOST_FLIGHTS = 100_000
"""Open requests that are booked for all siblings at most."""
TURN_SECONDS = 0.01
"""How long one router leaves an endpoint to another: about twice the delay between them."""
CHUNK_KEYS = 256
"""Block keys in one event of a snapshot."""
MOST_KEYS = 200_000
"""Block keys in a snapshot, of all endpoints together."""

SiblingEvent = (
    SiblingSent | SiblingTold | SiblingQueues | PrefixesKnown | PoolLearned | EndpointLearned
)


@dataclass(slots=True)
class Claims:
    """The instants at which the oldest requests of one queue have arrived."""

    queued: int = 0
    any_since: float = inf
    """Of the one that takes any endpoint."""
    held_since: dict[str, float] = field(default_factory=dict)
    """By endpoint: of the one that is held for it."""

    def since(self, address: str) -> float:
        """When the oldest has arrived that this endpoint could serve."""
        return min(self.any_since, self.held_since.get(address, inf))


@dataclass(slots=True)
class Sibling:
    """What is known of one sibling, beside its flights."""

    number: int
    claims: dict[str, Claims] = field(default_factory=dict)
    """By pool: its queues that are not empty."""


class Siblings:
    """The siblings by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Sibling] = {}
        self.queueing: dict[str, list[Claims]] = {}
        """By pool: the queues of siblings that are not empty."""

    def meet(self, name: str) -> Sibling | None:
        """The sibling of this name, known or new; None if there are too many."""
        sibling = self.by_name.get(name)
        if sibling is None and len(self.by_name) < MOST_SIBLINGS:
            used = {other.number for other in self.by_name.values()}
            number = next(n for n in range(len(used) + 1) if n not in used)
            sibling = self.by_name[name] = Sibling(number)
        return sibling

    def tickets_of(self, name: str, tickets: Iterable[int]) -> list[int]:
        """Those of these tickets that stand for requests of this sibling."""
        sibling = self.by_name.get(name)
        if sibling is None:
            return []
        return [t for t in tickets if t < 0 and sibling_number(t) == sibling.number]

    def forget(self, name: str) -> None:
        """The sibling is gone, and its queues with it."""
        if self.by_name.pop(name, None) is not None:
            self._list_queues()

    def update_queues(self, event: SiblingQueues, now: float) -> None:
        """Take over what a sibling has queued."""
        sibling = self.meet(event.sibling)
        if sibling is not None:
            sibling.claims = {queue.pool: _claims(queue, now) for queue in event.queues}
            self._list_queues()

    def queued(self, pool: str) -> int:
        """Requests that siblings hold for this pool."""
        queueing = self.queueing.get(pool)
        return sum(claims.queued for claims in queueing) if queueing else 0

    def rank(self, pool: str, address: str, since: float) -> int:
        """How many siblings have an older claim to an endpoint than one of this instant."""
        return sum(claims.since(address) < since for claims in self.queueing.get(pool, ()))

    def _list_queues(self) -> None:
        self.queueing = {}
        for sibling in self.by_name.values():
            for pool, claims in sibling.claims.items():
                self.queueing.setdefault(pool, []).append(claims)


class Relay:
    """What one router tells its siblings: made of what its core was told and what it answered.

    `told` is to be called after each event that the core has handled, those that siblings told
    included: a sibling's word can free an endpoint for a request that waits here. Queues are told
    whole, so only once for all events that are told together: after each batch, `queues` is to be
    asked. Scrapes are relayed by whoever has scraped.
    """

    def __init__(self, name: str, books: "Books") -> None:
        self._name = name
        self._books = books
        self._queues: dict[str, Claims] | None = {}
        """As they were told last; None where siblings know them differently."""
        self._changes = 0
        """Changes of queues that have been looked at."""
        self.queues_due = False
        """Whether queues may be others than siblings know: a batch is to go, for them alone too."""

    def told(self, event: Event, commands: list[Command], now: float) -> list[SiblingEvent]:
        """What siblings must know after this event and these commands, in order."""
        out: list[SiblingEvent] = []
        match event:
            case AttemptStarted() | AttemptFailed() | RequestMeasured() | RequestFinished():
                out.append(SiblingTold(self._name, event))
            case DispatchFailed(ticket, endpoints):
                out += self._came_back(ticket, endpoints)
        for command in commands:
            if isinstance(command, Dispatch):
                out += self._sent(command.ticket, now)
        if self._queues is None:
            self.queues_due = True
        elif self._queues or self._books.ledger.queued:
            self.queues_due |= self._changes != self._books.queue_changes
        return out

    def queues(self, now: float) -> SiblingQueues | None:
        """The queues, where siblings know others: for the end of a batch."""
        if not self.queues_due:
            return None
        self.queues_due, self._changes = False, self._books.queue_changes
        queues = self._claims()
        if queues == self._queues:
            return None
        self._queues = queues
        return self._as_event(queues, now)

    def snapshot(self, now: float) -> Iterator[SiblingEvent]:
        """All that a sibling must know that has come late, or has missed something.

        It is to be told SiblingGone of this router before, so that what has ended meanwhile ends.
        """
        yield from (pool.learned for pool in self._books.pools.values())
        yield from (endpoint.learned for endpoint in self._books.fleet.by_address.values())
        flights = [f for t, f in self._books.flights.items() if t >= 0 and f.endpoint is not None]
        flights.sort(key=lambda flight: flight.dispatched_at)
        for flight in flights:
            yield from self._sent(flight.ticket, now)
        queues = self._claims()
        if queues != self._queues:
            self._queues = None
        yield self._as_event(queues, now)
        left = MOST_KEYS
        for endpoint in self._books.fleet.by_address.values():
            for keys, stamp in self._books.index.recent(endpoint.slot, left, CHUNK_KEYS):
                left -= len(keys)
                yield PrefixesKnown(endpoint.address, keys, max(0.0, now - stamp))

    def _claims(self) -> dict[str, Claims]:
        """The claims of all queues that are not empty."""
        pools = self._books.pools.values()
        return {pool.name: claims_of(pool, self._books) for pool in pools if len(pool.queue)}

    def _as_event(self, queues: dict[str, Claims], now: float) -> SiblingQueues:
        """Claims with their ages at this instant."""
        return SiblingQueues(
            self._name,
            tuple(
                SiblingQueue(
                    name,
                    claims.queued,
                    None if claims.any_since == inf else now - claims.any_since,
                    tuple((address, now - at) for address, at in claims.held_since.items()),
                )
                for name, claims in queues.items()
            ),
        )

    def _came_back(self, ticket: int, endpoints: tuple[str, ...]) -> Iterator[SiblingTold]:
        """To siblings a request that is nowhere has ended; it begins anew once it is sent again."""
        for endpoint in endpoints:
            yield SiblingTold(self._name, AttemptFailed(ticket, endpoint))
        flight = self._books.flights.get(ticket)
        if flight is None or flight.endpoint is None:
            yield SiblingTold(self._name, RequestFinished(ticket))

    def _sent(self, ticket: int, now: float) -> Iterator[SiblingSent]:
        flight = self._books.flights.get(ticket)
        if flight is not None and flight.endpoint is not None:
            age_seconds = now - flight.dispatched_at
            yield SiblingSent(self._name, flight.request, flight.endpoint, age_seconds)


def sibling_ticket(number: int, ticket: int) -> int:
    """The ticket under which a sibling's request is booked: negative, unlike any of one's own."""
    return -1 - (ticket * MOST_SIBLINGS + number)


def sibling_number(ticket: int) -> int:
    """Which sibling's request is booked under this ticket."""
    return (-1 - ticket) % MOST_SIBLINGS


def claims_of(pool: Pool, books: "Books") -> Claims:
    """The claims of one's own queue."""
    queue = pool.queue
    oldest = queue.oldest(1)
    return Claims(
        queued=len(queue),
        any_since=oldest[0].arrived_at if oldest else inf,
        held_since={books.fleet[s].address: f.arrived_at for s, f in queue.heads()},
    )


def _claims(queue: SiblingQueue, now: float) -> Claims:
    """A sibling's claims; ages that make no sense are none."""

    def since(age_seconds: float | None) -> float:
        return now - age_seconds if age_seconds is not None and 0 <= age_seconds < inf else inf

    held = {address: since(age_seconds) for address, age_seconds in queue.held}
    return Claims(max(0, queue.queued), since(queue.oldest_seconds), held)

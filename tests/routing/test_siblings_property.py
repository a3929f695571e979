"""Whatever siblings tell, in whatever order and however often, it ends when they are gone."""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from heliostat_routing.commands import Command, Dispatch, Enqueue, Evict, WakeAt
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    MetricsScraped,
    Outcome,
    PoolRemoved,
    PoolUpdated,
    PrefixesKnown,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    SiblingGone,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
    Tick,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings
from tests.routing.playbook import metrics, told_room, walked_room

ADDRESSES = ["e0", "e1", "e2"]
SIBLINGS = ["r1", "r2"]
TICKETS = st.integers(-1, 6)
NAMES, PLACES = st.sampled_from(SIBLINGS), st.sampled_from([*ADDRESSES, "nowhere"])
AGES = st.sampled_from([0.0, 0.004, 2.0, 100.0, -1.0, float("inf"), float("nan")])


class SharedRegion(RuleBasedStateMachine):
    """A router whose siblings say anything, while its own requests come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.now = 0.0
        self.wake_at: float | None = None
        self.own = 0
        self.placed: dict[int, str] = {}
        self.queued: set[int] = set()

    def tell(self, event: Event) -> list[Command]:
        """Hand over an event; commands are about this router's own requests alone."""
        commands = self.router.handle(event, self.now)
        for command in commands:
            match command:
                case WakeAt(at):
                    self.wake_at = at
                case Dispatch(ticket, endpoints):
                    assert 0 <= ticket < self.own
                    assert ticket not in self.placed
                    self.queued.discard(ticket)
                    self.placed[ticket] = endpoints[0]
                case Enqueue(ticket):
                    assert 0 <= ticket < self.own
                    self.queued.add(ticket)
                case Evict(ticket):
                    assert 0 <= ticket < self.own
                    self.queued.discard(ticket)
        return commands

    @initialize()
    def start(self) -> None:
        """Begin with two slow endpoints, so that requests wait."""
        self.flap([True, True, False])

    @rule(there=st.lists(st.booleans(), min_size=3, max_size=3))
    def flap(self, there: list[bool]) -> None:
        """Endpoints come and go."""
        up = tuple(EndpointSettings(a) for a, is_up in zip(ADDRESSES, there, strict=True) if is_up)
        self.tell(PoolUpdated("p", PoolSettings(prefill_tokens_per_second=500.0), up))

    @rule()
    def remove(self) -> None:
        """The pool goes."""
        self.tell(PoolRemoved("p"))

    @rule(group=st.integers(1, 3), blocks=st.integers(0, 6))
    def arrive(self, group: int, blocks: int) -> None:
        """An own request arrives, and is sent, queued or rejected."""
        ticket, self.own = self.own, self.own + 1
        self.tell(RequestArrived(ticket, "p", keys_of(group, blocks), blocks * 512 + 40))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """An own stream ends."""
        if self.placed or self.queued:
            ticket = data.draw(st.sampled_from([*self.placed, *self.queued]))
            self.placed.pop(ticket, None)
            self.queued.discard(ticket)
            self.tell(RequestFinished(ticket))

    @rule(
        name=NAMES,
        ticket=TICKETS,
        place=PLACES,
        group=st.integers(1, 3),
        blocks=st.integers(0, 6),
        age=AGES,
    )
    def sent(self, name: str, ticket: int, place: str, group: int, blocks: int, age: float) -> None:
        """A sibling sends a request, or says so again."""
        request = RequestArrived(ticket, "p", keys_of(group, blocks), blocks * 512 + 40)
        self.tell(SiblingSent(name, request, place, age))

    @rule(name=NAMES, ticket=TICKETS, place=PLACES, kind=st.integers(0, 3))
    def told(self, name: str, ticket: int, place: str, kind: int) -> None:
        """Something happens to a sibling's request, one that is known or one that is not."""
        events = (
            AttemptStarted(ticket, place),
            AttemptFailed(ticket, place),
            RequestMeasured(ticket, place, Outcome.SERVED, 0.1, 1.0, 600, 0, 50),
            RequestFinished(ticket),
        )
        self.tell(SiblingTold(name, events[kind]))

    @rule(name=NAMES, queued=st.integers(-1, 3), oldest=st.one_of(st.none(), AGES), held=AGES)
    def queue(self, name: str, queued: int, oldest: float | None, held: float) -> None:
        """A sibling says what waits there."""
        queues = (SiblingQueue("p", queued, oldest, (("e0", held),)),) if queued else ()
        self.tell(SiblingQueues(name, queues))

    @rule(place=PLACES, group=st.integers(1, 3), age=AGES)
    def know(self, place: str, group: int, age: float) -> None:
        """A sibling says what an endpoint holds."""
        self.tell(PrefixesKnown(place, keys_of(group, 6), age))

    @rule(place=st.sampled_from(ADDRESSES), running=st.integers(0, 4), waiting=st.integers(0, 1))
    def scrape(self, place: str, running: int, waiting: int) -> None:
        """An engine reports."""
        scraped = metrics(running_requests=running, waiting_requests=waiting)
        self.tell(MetricsScraped(place, scraped))

    @rule(name=NAMES)
    def gone(self, name: str) -> None:
        """A sibling goes, and nothing of it is left; what others have told stands."""
        sibling = self.router._books.siblings.by_name.get(name)
        self.tell(SiblingGone(name))
        if sibling is not None:
            router: Any = self.router
            for tickets in (router._books.flights, router._unmeasured, router._settled):
                assert not [t for t in tickets if t < 0 and (-1 - t) % 256 == sibling.number]
        assert name not in self.router._books.siblings.by_name

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.3, 40.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, with the wake-up calls that the router has asked for on the way."""
        until = self.now + seconds
        for _ in range(200):
            if self.wake_at is None or self.wake_at > until:
                break
            self.now, self.wake_at = max(self.now, self.wake_at), None
            self.tell(Tick())
        else:
            raise AssertionError("the router asks to be woken without end")
        self.now = until

    @invariant()
    def own_streams_are_counted_apart(self) -> None:
        """The ledger's total is this router's own open streams, here and queued."""
        ledger = self.router.ledger
        assert len(ledger) == len(self.placed) + len(self.queued)
        assert ledger.queued == len(self.queued)
        here = Counter(self.placed.values())
        for address in ADDRESSES:
            assert ledger.inflight(address) == here[address]

    @invariant()
    def capacities_are_of_this_instant(self) -> None:
        """What is told of each pool is what asking every endpoint would say."""
        walked = walked_room(self.router, self.now)
        told = told_room(self.router, self.now)
        assert told == {name: walked[name] for name in told}

    @invariant()
    def endpoints_have_what_all_have_sent(self) -> None:
        """An endpoint's and a pool's count is the own and the siblings' flights: never negative."""
        books = self.router._books
        flights = books.flights.values()
        for address, endpoint in books.fleet.by_address.items():
            assert endpoint.inflight == sum(f.endpoint == address for f in flights)
            assert endpoint.pending(self.now) >= 0
        foreign = [f for f in flights if f.foreign]
        assert len(books.siblings_ledger) == len(foreign)
        assert not books.siblings_ledger.queued
        for pool in books.pools.values():
            assert pool.inflight == sum(f.pool is pool and f.endpoint is not None for f in flights)
            assert pool.siblings_inflight == sum(f.pool is pool for f in foreign)

    def teardown(self) -> None:
        """With all siblings gone, only the own streams are left."""
        for name in SIBLINGS:
            self.tell(SiblingGone(name))
        assert all(ticket >= 0 for ticket in self.router._books.flights)
        assert not len(self.router._books.siblings_ledger)
        self.endpoints_have_what_all_have_sent()


def keys_of(group: int, blocks: int) -> tuple[int, ...]:
    """A prompt of so many blocks, of one of a few conversations."""
    return tuple(group * 100 + number for number in range(blocks))


SharedRegion.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True
)
TestSharedRegion = SharedRegion.TestCase

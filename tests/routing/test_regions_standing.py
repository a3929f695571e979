"""A region that does not do what its states promise: left alone, tried out, and believed again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

import pytest

from heliostat_routing.commands import Dispatch, Enqueue, Evict, Forward, Reject, WakeAt
from heliostat_routing.events import (
    Event,
    ForwardRefused,
    Outcome,
    PeerLost,
    PeerSettings,
    PeersUpdated,
    PoolUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    Tick,
)
from heliostat_routing.peers import MOST_FORWARDS
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings
from heliostat_routing.standing import LONGEST_SECONDS, MUTE_SECONDS, TRIALS
from heliostat_routing.transit import LOST_SECONDS
from heliostat_routing.views import PeerReason, PeerView
from tests.routing.playbook import target
from tests.routing.test_regions import IDLE, ROUND_TRIP_SECONDS, World, other, sent


def view(book: World) -> PeerView:
    """The only peer, as it is shown."""
    (shown,) = book.router.peer_views(book.now)
    return shown


def fail(book: World, ticket: int) -> float:
    """A request goes west once that is tried again, and comes back; return for how long it is
    left alone then."""
    book.state("west", after=view(book).backoff_seconds)
    book.forward(ticket, "west")
    book.tell(ForwardRefused(ticket, "west"), after=ROUND_TRIP_SECONDS)
    return view(book).backoff_seconds


def busy_world() -> World:
    """A region whose endpoints are busy for long, beside an idle one."""
    book = World(1, "west", prefill_tokens_per_second=1.0)
    book.busy()
    book.state("west")
    return book


# Backoff


def test_each_failure_in_a_row_doubles_the_time_for_which_a_region_is_left_alone() -> None:
    """One round trip at first, five seconds at most."""
    book = busy_world()
    waits = [fail(book, ticket) for ticket in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_requests_sent_before_the_first_came_back_are_one_failure() -> None:
    """Those that come back together tell nothing new."""
    book = busy_world()
    for ticket in range(4):
        book.forward(ticket, "west")
    for ticket in range(4):
        book.tell(ForwardRefused(ticket, "west"), after=0.01)
    assert view(book).backoff_seconds == pytest.approx(ROUND_TRIP_SECONDS)
    assert view(book).refused == 4


@pytest.mark.parametrize(
    ("outcome", "backoff_seconds"),
    [
        (Outcome.SERVED, 0.1),
        (Outcome.REFUSED, 0.4),
        (Outcome.CLIENT_ABORTED, 0.4),
        (Outcome.ENGINE_FAILED, 0.8),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
def test_only_a_served_request_makes_up_for_failures(
    outcome: Outcome, backoff_seconds: float, ended: bool
) -> None:
    """Measured before or after its stream's end; no state does, for a region may say anything.

    One that it has answered badly is a failure like one that comes back.
    """
    book = busy_world()
    fail(book, 1)
    fail(book, 2)
    book.state("west", after=0.5)
    book.forward(3, "west")
    if ended:
        book.tell(RequestFinished(3), after=1.0)
    book.tell(RequestMeasured(3, "10.1.1.1:8000", outcome, 0.1, 1.0, 100, 0, 10))
    assert fail(book, 4) == pytest.approx(backoff_seconds)


def test_a_region_that_has_failed_is_tried_out_by_a_few_at_a_time() -> None:
    """However free it says it is, until one of them is answered or they must have been accepted."""
    book = busy_world()
    fail(book, 1)
    book.state("west", replace(IDLE, free=1000), after=0.1)
    for ticket in range(10, 10 + TRIALS):
        book.forward(ticket, "west")
    assert sent(book.arrive(20, other(20))) == {}
    assert view(book).reason is PeerReason.ON_TRIAL
    assert len(sent(book.state("west", replace(IDLE, free=1000), after=0.31))) == 1
    book.tell(RequestMeasured(10, None, Outcome.SERVED))
    for ticket in range(30, 40):
        book.forward(ticket, "west")


def test_a_region_that_returns_more_than_its_share_is_left_alone_though_it_serves_some() -> None:
    """One answer in three is no reason to send it two for nothing."""
    book = busy_world()
    ticket, waits = 0, list[float]()
    while not waits or waits[-1] < LONGEST_SECONDS - 0.01:
        ticket += 1
        assert ticket < 50
        if ticket % 3:
            waits.append(fail(book, ticket))
        else:
            book.state("west", after=view(book).backoff_seconds)
            book.forward(ticket, "west")
            book.tell(RequestMeasured(ticket, None, Outcome.SERVED))
    assert max(waits[:-1]) <= 0.2 + 1e-9


# Answers that are none


def forwards(book: World, ticket: int, idle_seconds: float = 0.05) -> bool:
    """West says that it is idle, and a request arrives: return whether it goes there at once."""
    book.state("west", replace(IDLE, free=1000, room=1000), after=idle_seconds)
    went = sent(book.arrive(ticket, other(ticket))) == {ticket: "west"}
    if not went:
        book.tell(RequestFinished(ticket))
    return went


def answer(book: World, ticket: int, outcome: Outcome, ttft_seconds: float | None = 0.1) -> None:
    """A request that is in the other region ends."""
    book.tell(RequestFinished(ticket), after=0.01)
    book.tell(RequestMeasured(ticket, None, outcome, ttft_seconds))


def answered(each: tuple[Outcome, ...]) -> int:
    """West answers so in turn: how many requests of the 500 that come in 30 s it gets."""
    book = busy_world()
    went = 0
    for ticket in range(1000, 1500):
        if forwards(book, ticket):
            answer(book, ticket, each[went % len(each)])
            went += 1
    return went


def test_a_region_that_answers_badly_is_left_alone() -> None:
    """An error of its own is no better than a request that comes back."""
    assert answered((Outcome.ENGINE_FAILED,)) < 20
    assert answered((Outcome.SERVED, Outcome.ENGINE_FAILED)) < 60
    assert answered((Outcome.SERVED,) * 9 + (Outcome.ENGINE_FAILED,)) > 400


def test_a_region_that_finds_fault_with_more_than_its_share_is_left_alone() -> None:
    """A wrong request now and then says nothing of the region, most of them do."""
    assert answered((Outcome.REFUSED,)) < 30
    assert answered((Outcome.SERVED, Outcome.REFUSED)) < 60
    assert answered((Outcome.SERVED,) * 9 + (Outcome.REFUSED,)) == 500


@pytest.mark.parametrize(
    ("outcome", "ttft_seconds", "is_answer"),
    [
        (Outcome.SERVED, 0.1, True),
        (Outcome.REFUSED, 0.1, True),
        (Outcome.CLIENT_ABORTED, 0.1, True),
        (Outcome.CLIENT_ABORTED, None, False),
    ],
)
def test_a_region_that_answers_nothing_is_tried_out_by_a_few_until_it_does(
    outcome: Outcome, ttft_seconds: float | None, is_answer: bool
) -> None:
    """One whose client leaves before it says a word makes room for another, and no more."""
    book = busy_world()
    went = [ticket for ticket in range(1000, 1600) if forwards(book, ticket, 0.2)]
    assert len(went) == pytest.approx(MUTE_SECONDS / 0.2 + TRIALS, abs=2)
    assert view(book).reason is PeerReason.ON_TRIAL
    answer(book, went[-1], outcome, ttft_seconds)
    more = sum(forwards(book, ticket, 0.2) for ticket in range(2000, 2020))
    assert more == (20 if is_answer else 1)


def test_a_region_that_is_seldom_asked_is_not_mute() -> None:
    """However long ago its last answer was."""
    book = busy_world()
    for ticket in range(1000, 1010):
        book.tick(10 * MUTE_SECONDS)
        assert forwards(book, ticket)
        assert view(book).usable
        answer(book, ticket, Outcome.SERVED)


# How often one request


def test_a_request_that_goes_no_further_waits_where_no_endpoint_is() -> None:
    """With its forwards used up it is held for an endpoint that may come."""
    book = World(0, "west")
    book.state("west")
    book.forward(1, "west")
    for _ in range(MOST_FORWARDS - 1):
        assert isinstance(book.tell(ForwardRefused(1, "west"))[0], Enqueue)
        assert sent(book.state("west", after=5.0)) == {1: "west"}
    assert isinstance(book.tell(ForwardRefused(1, "west"))[0], Enqueue)
    assert sent(book.state("west", after=5.0)) == {}
    assert target(book.update(EndpointSettings("new"))) == "new"


# A region that is not reached


def test_a_region_that_is_lost_is_no_candidate_until_its_next_state() -> None:
    """However young the last one is; what is there stays until it comes back by itself."""
    book = busy_world()
    book.forward(1, "west")
    assert book.tell(PeerLost("west")) == []
    assert view(book).reason is PeerReason.UNREACHED
    assert sent(book.arrive(2, other(2), after=0.2)) == {}
    assert book.inflight("region/west") == 1
    assert isinstance(book.tell(ForwardRefused(1, "west"))[0], Enqueue)
    assert (view(book).lost, view(book).refused) == (1, 0)
    assert sent(book.state("west", after=0.2)) == {2: "west"}


def test_a_region_that_is_lost_again_and_again_is_left_alone_for_longer() -> None:
    """Being lost is a failure like another, once for each time."""
    book = busy_world()
    for expected in (0.1, 0.2, 0.4):
        book.tell(PeerLost("west"))
        book.tell(PeerLost("west"))
        assert view(book).backoff_seconds == pytest.approx(expected)
        book.state("west", after=1.0)


def test_a_stranger_that_is_lost_changes_nothing() -> None:
    """Nor one whose peer was removed meanwhile."""
    book = busy_world()
    book.tell(PeerLost("nowhere"))
    assert sent(book.arrive(1, other(1))) == {1: "west"}


def test_where_nothing_serves_requests_wait_for_a_lost_region_for_a_while() -> None:
    """It may be back in a moment; after some seconds the error comes at once."""
    book = World(0, "west")
    book.state("west")
    book.tell(PeerLost("west"))
    assert isinstance(book.arrive(1, after=0.1)[0], Enqueue)
    assert isinstance(book.arrive(2, after=LOST_SECONDS)[0], Reject)


def test_counts_before_and_after_a_loss_are_told_apart() -> None:
    """What the region counted while it was not heard is no receipt for what is sent since."""
    book = busy_world()
    book.forward(1, "west")
    book.forward(2, "west")
    book.tell(PeerLost("west"))
    assert view(book).in_transit == 0
    book.state("west", received=2, after=1.0)
    book.forward(3, "west")
    book.state("west", received=2, after=0.1)
    assert view(book).in_transit == 1
    book.state("west", received=3, after=0.1)
    assert view(book).in_transit == 0


def test_a_router_that_has_had_more_since_it_began_anew_than_before_has_had_them_all() -> None:
    """Its epoch tells that it has begun anew where its count does not fall."""
    book = busy_world()
    book.state("west", received=2, epoch=1)
    for ticket in range(3):
        book.forward(ticket, "west")
    book.state("west", received=3, epoch=2, after=0.1)
    assert view(book).in_transit == 0


# Shown


def test_a_peer_is_shown_with_why_nothing_goes_there() -> None:
    """From its first word on, through silence and failures."""
    book = World(1, "west", prefill_tokens_per_second=1.0)
    book.busy()
    assert view(book).reason is PeerReason.UNHEARD
    book.state("west", round_trip_seconds=0.05)
    book.forward(1, "west")
    assert view(book) == PeerView(
        region="west",
        usable=True,
        reason=None,
        round_trip_seconds=0.05,
        in_transit=1,
        forwarded=1,
        refused=0,
        lost=0,
        backoff_seconds=0.0,
        capacities=(("p", IDLE),),
    )
    book.tell(ForwardRefused(1, "west"), after=0.05)
    assert view(book).reason is PeerReason.LEFT_ALONE
    assert (view(book).in_transit, view(book).refused) == (0, 1)
    book.tick(1.0)
    assert view(book).reason is PeerReason.SILENT


# A region that lies


@dataclass
class Storm:
    """Requests at a steady rate, an endpoint that serves ten a second, and two regions.

    East is honest, far and large. West is near, says that it is idle, and does as it likes with
    what it gets: it serves those of which `serves` says so, and gives back the others at once.
    """

    rate: float
    serves: Callable[[int], bool]
    seconds: float = 20.0
    forwards: list[float] = field(default_factory=list)
    placed: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    arrived: int = 0

    def run(self) -> "Storm":
        """Let it rage, and a while longer, so that all is decided."""
        self._router, self._agenda, self._serial = Router(), list[tuple[float, int, Event]](), 0
        pool = PoolSettings(prefill_tokens_per_second=12_800.0, queue_limit=10**6)
        self._at(0.0, PoolUpdated("p", pool, (EndpointSettings("e0"),)))
        self._at(0.0, PeersUpdated((PeerSettings("west", 0.1), PeerSettings("east", 0.3))))
        idle = replace(IDLE, free=10**5, room=10**6)
        for number in range(round(10 * (self.seconds + 5))):
            for region in ("west", "east"):
                self._at(number / 10, RegionStateReceived(region, "w", (("p", idle),), 0))
        for ticket in range(round(self.rate * self.seconds)):
            self._at(ticket / self.rate, RequestArrived(ticket, "p", other(ticket), 5120))
            self.arrived += 1
        while self._agenda:
            now, _, event = heappop(self._agenda)
            for command in self._router.handle(event, now):
                self._do(command, now)
        return self

    def _at(self, at: float, event: Event) -> None:
        self._serial += 1
        heappush(self._agenda, (at, self._serial, event))

    def _do(self, command: object, now: float) -> None:
        match command:
            case WakeAt(at):
                self._at(max(at, now), Tick())
            case Dispatch(ticket, (address, *_)):
                self._end(ticket, address, now + 0.2)
            case Forward(ticket, "east"):
                self._end(ticket, "east", now + 1.0)
            case Forward(ticket, region):
                self.forwards.append(now)
                if self.serves(ticket):
                    self._end(ticket, region, now + 1.0)
                else:
                    self._at(now + 0.1, ForwardRefused(ticket, region))
            case Reject() | Evict():
                self.failed += 1

    def _end(self, ticket: int, where: str, at: float) -> None:
        self.placed[where] += 1
        measured = RequestMeasured(ticket, where, Outcome.SERVED, 0.1, 0.2, 1280, 0, 10)
        self._at(at, RequestFinished(ticket))
        self._at(at + 0.05, measured)

    def busiest_second(self, since: float) -> int:
        """The most requests that went west within one second, after this instant."""
        times = [at for at in self.forwards if at >= since]
        return max((sum(start <= at < start + 1 for at in times) for start in times), default=0)


@pytest.mark.parametrize("rate", [50.0, 400.0])
def test_a_region_that_lies_costs_a_few_requests_a_second_whatever_the_load(rate: float) -> None:
    """Beyond what is under way before its first refusal; all are served by others, once."""
    storm = Storm(rate, serves=lambda ticket: False).run()
    first_back = storm.forwards[0] + 0.1
    assert storm.forwards[-1] > 10.0
    assert storm.busiest_second(first_back) <= 4 * TRIALS
    assert storm.busiest_second(first_back + 5.0) <= TRIALS
    assert storm.failed == 0
    assert storm.placed["e0"] + storm.placed["east"] == storm.arrived


@pytest.mark.parametrize("rate", [50.0, 400.0])
def test_a_region_that_serves_some_and_returns_most_is_no_better_off(rate: float) -> None:
    """A served request now and then does not buy it a storm of returns."""
    storm = Storm(rate, serves=lambda ticket: ticket % 4 == 0).run()
    assert storm.busiest_second(6.0) <= 5 * TRIALS
    assert storm.failed == 0
    assert storm.placed.total() == storm.arrived


@pytest.mark.parametrize("rate", [50.0, 400.0])
def test_a_region_that_returns_a_few_is_used_all_the_same(rate: float) -> None:
    """One in twenty come back where predictions fail: that is no reason to leave it."""
    storm = Storm(rate, serves=lambda ticket: ticket % 20 != 0).run()
    assert storm.placed["west"] > 0.3 * storm.arrived
    assert storm.failed == 0
    assert storm.placed.total() == storm.arrived

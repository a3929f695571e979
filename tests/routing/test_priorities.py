"""Priorities of requests: who of those that wait goes first, and who does not wait at all."""

from heliostat_routing.commands import Dispatch, Enqueue, Evict, EvictReason, Reject, RejectReason
from heliostat_routing.events import MetricsScraped, RequestFinished
from tests.routing.playbook import Playbook, metrics, target, targets


def busy(**settings: object) -> Playbook:
    """One endpoint in which requests wait."""
    book = Playbook(1, **settings)
    book.scrape("e0", running_requests=9, waiting_requests=3)
    return book


def order_of_service(book: Playbook, tickets: int) -> list[int]:
    """Free the endpoint again and again; give the tickets in the order in which they leave."""
    served: list[int] = []
    for _ in range(20 * tickets):
        commands = book.tell(MetricsScraped("e0", metrics()), after=1.0)
        served += targets(commands)
        book.scrape("e0", running_requests=1, waiting_requests=1)
    return served


def test_a_higher_priority_goes_first() -> None:
    """Among equals the order is that of arrival."""
    book = busy()
    for ticket, priority in ((1, 0), (2, 5), (3, 0), (4, 9), (5, 5)):
        assert isinstance(book.arrive(ticket, priority=priority)[0], Enqueue)
    assert order_of_service(book, 5) == [4, 2, 5, 1, 3]


def test_the_oldest_of_a_low_priority_does_not_overtake() -> None:
    """Past the age bound it still waits behind what matters more."""
    book = busy(age_bound_seconds=1.0)
    book.arrive(1)
    book.arrive(2, after=1.5, priority=1)
    assert order_of_service(book, 2)[0] == 2


def test_a_sheddable_request_is_served_or_refused_but_never_queued() -> None:
    """With room it goes like any other; without, it is told so at once."""
    book = Playbook(1)
    assert isinstance(book.arrive(1, priority=-1)[0], Dispatch)
    (answer,) = busy().arrive(2, priority=-1)
    assert isinstance(answer, Reject)
    assert answer.reason is RejectReason.QUEUE_FULL


def test_a_full_queue_gives_up_its_last_for_one_of_a_higher_priority() -> None:
    """Never for an equal one, and of several the one that would have waited longest."""
    book = busy(queue_limit=2)
    book.arrive(1, priority=0)
    book.arrive(2, priority=0)
    assert isinstance(book.arrive(3)[0], Reject)
    evicted, enqueued = book.arrive(4, priority=1)
    assert isinstance(evicted, Evict)
    assert (evicted.ticket, evicted.reason) == (2, EvictReason.DISPLACED)
    assert isinstance(enqueued, Enqueue)
    assert isinstance(book.arrive(5, priority=0)[0], Reject)


def test_an_objective_of_its_own_replaces_the_pools() -> None:
    """A request that must begin at once is sent where none runs, though its prefix is elsewhere."""
    prompt, places = tuple(range(1, 61)), []
    for objective_seconds in (None, 0.05):
        book = Playbook(2, prefill_tokens_per_second=5000.0)
        book.arrive(1, prompt, subset=frozenset({"e0"}))
        book.tell(RequestFinished(1), after=5.0)
        book.arrive(2, tuple(range(100, 135)), subset=frozenset({"e0"}))
        places.append(target(book.arrive(3, prompt, ttft_objective_seconds=objective_seconds)))
    assert places == [None, "e1"]

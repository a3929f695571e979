"""A request that none of the endpoints named for it has answered is decided anew."""

from heliostat_routing.commands import Command, Dispatch, Enqueue, Evict, Forward, Reject
from heliostat_routing.dispatcher import MOST_RETURNS
from heliostat_routing.events import AttemptFailed, DispatchFailed, RequestFinished
from heliostat_routing.views import BreakerState
from tests.routing.playbook import Playbook, target
from tests.routing.test_regions import World, other


def come_back(book: Playbook, ticket: int, commands: list[Command]) -> list[Command]:
    (dispatch,) = [it for it in commands if isinstance(it, Dispatch)]
    return book.tell(DispatchFailed(ticket, dispatch.endpoints))


def test_it_goes_to_endpoints_that_have_not_failed_with_it() -> None:
    """The next dispatch names none of those again."""
    book = Playbook(4, fallbacks=1)
    first = book.arrive(1)
    second = come_back(book, 1, first)
    (before,) = [it for it in first if isinstance(it, Dispatch)]
    (after,) = [it for it in second if isinstance(it, Dispatch)]
    assert not set(before.endpoints) & set(after.endpoints)
    assert book.inflight(after.endpoints[0]) == 1
    assert [book.inflight(it) for it in before.endpoints] == [0, 0]


def test_it_leaves_where_all_endpoints_here_have_failed() -> None:
    """Another region is better than an endpoint that has just failed."""
    book = World(1, "west")
    book.state("west")
    (forward,) = come_back(book, 1, book.arrive(1, other(1)))
    assert isinstance(forward, Forward)
    assert book.inflight("e0") == 0


def test_an_endpoint_that_fails_with_one_request_again_and_again_is_left_alone() -> None:
    """Each return counts, so the breaker opens and the request waits rather than going round."""
    book = Playbook(1, queue_timeout_seconds=60.0)
    commands, dispatches = book.arrive(1), 0
    while any(isinstance(it, Dispatch) for it in commands):
        commands = come_back(book, 1, commands)
        dispatches += 1
    assert dispatches <= 2
    assert any(isinstance(it, Enqueue) for it in commands)


def test_with_nowhere_to_go_it_waits_until_its_deadline() -> None:
    """Endpoints may come back until then; each has its failures counted."""
    book = Playbook(1, queue_timeout_seconds=5.0)
    commands = book.arrive(1)
    for _ in range(MOST_RETURNS):
        if not any(isinstance(it, Dispatch) for it in commands):
            break
        commands = come_back(book, 1, commands)
    assert any(isinstance(it, Enqueue) for it in commands)
    assert any(isinstance(it, Evict | Dispatch) for it in book.tick(5.1))


def test_it_does_not_come_back_for_ever() -> None:
    """After a few returns it is turned away, whatever endpoints seem to be free."""
    book = Playbook(3 * (MOST_RETURNS + 2), fallbacks=0)
    commands, returns = book.arrive(1), 0
    while not any(isinstance(it, Reject) for it in commands):
        commands = come_back(book, 1, commands)
        returns += 1
    assert returns == MOST_RETURNS + 1
    assert book.router.ledger.queued == 0


def test_a_late_word_of_the_failures_changes_nothing() -> None:
    """The log tells of attempts after the request has come back: they are counted once."""
    book = Playbook(2, fallbacks=0)
    commands = come_back(book, 1, book.arrive(1))
    served_by = target(commands)
    assert served_by == "e1"
    book.tell(AttemptFailed(1, "e0"))
    assert book.inflight("e1") == 1
    book.tell(RequestFinished(1))
    assert book.inflight("e1") == 0
    assert book.tell(DispatchFailed(1, ("e1",))) == []


def test_an_early_word_of_the_failures_counts_no_more_than_the_return() -> None:
    """The log may tell of attempts before the request has come back: they are counted once."""
    early, late = Playbook(1), Playbook(1)
    for book in (early, late):
        book.arrive(1)
        if book is early:
            book.tell(AttemptFailed(1, "e0"))
        book.tell(DispatchFailed(1, ("e0",)))
        if book is late:
            book.tell(AttemptFailed(1, "e0"))
    endpoints = [book.router._books.fleet.by_address["e0"] for book in (early, late)]
    assert [it.breaker.state(0.0) for it in endpoints] == 2 * [BreakerState.CLOSED]
    assert len({it._dispatched for it in endpoints}) == 1

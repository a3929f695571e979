"""A gateway may name the endpoints that a request may go to: nothing else serves it."""

from heliostat_routing.commands import Dispatch, Enqueue, Reject, RejectReason
from heliostat_routing.events import RequestFinished
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName
from tests.routing.playbook import Playbook, target, targets


def test_every_policy_picks_from_the_subset_alone() -> None:
    """The pick and its fallbacks are all of the subset, by whichever rule they are chosen."""
    for policy in PolicyName:
        book = Playbook(8, policy=policy, pending_limit=9)
        for ticket in range(1, 7):
            (dispatch,) = book.arrive(ticket, subset=frozenset({"e3", "e5"}))
            assert isinstance(dispatch, Dispatch)
            assert set(dispatch.endpoints) == {"e3", "e5"}


def test_a_subset_without_an_eligible_endpoint_is_refused() -> None:
    """Empty, unknown, starting or of another pool's: the answer comes at once, no waiting."""
    starting = EndpointSettings("e1", phase=EndpointPhase.STARTING)
    book = Playbook([EndpointSettings("e0"), starting])
    for ticket, subset in enumerate((set(), {"10.9.9.9:1"}, {"e1"})):
        (answer,) = book.arrive(ticket, subset=frozenset(subset))
        assert answer == Reject(ticket, RejectReason.NO_ENDPOINTS, 1.0)
    assert target(book.arrive(9)) == "e0"


def test_a_queued_request_waits_for_its_subset() -> None:
    """An endpoint that frees outside of it goes to the next request; one within it to this one."""
    book = Playbook(2, prefill_tokens_per_second=1.0)
    for endpoint in ("e0", "e1"):
        book.scrape(endpoint, first_tokens=7)
    book.arrive(1, tuple(range(1, 9)))
    book.arrive(2, tuple(range(50, 58)))
    assert isinstance(book.arrive(3, subset=frozenset({"e1"}))[0], Enqueue)
    assert isinstance(book.arrive(4)[0], Enqueue)
    assert targets(book.scrape("e0", after=0.2, first_tokens=8)) == {4: "e0"}
    assert targets(book.scrape("e1", after=0.2, first_tokens=8)) == {3: "e1"}


def test_a_subset_follows_the_endpoints_that_come_and_go() -> None:
    """Its addresses count as soon as they are endpoints, and no more once they are not."""
    book = Playbook([EndpointSettings("e0")])
    subset = frozenset({"e1", "e2"})
    book.arrive(1, subset=subset)
    book.update(EndpointSettings("e0"), EndpointSettings("e1"))
    assert target(book.arrive(2, subset=subset)) == "e1"
    book.tell(RequestFinished(2))
    book.update(EndpointSettings("e2"), EndpointSettings("e3"))
    assert target(book.arrive(3, subset=subset)) == "e2"
    assert target(book.arrive(4, subset=frozenset({"e1"}))) is None

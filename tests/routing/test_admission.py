"""Selective pushing: who is available, who waits, and what lets a waiting request go."""

import pytest

from heliostat_routing.commands import (
    Dispatch,
    Enqueue,
    Evict,
    EvictReason,
    Reject,
    RejectReason,
    WakeAt,
)
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    Outcome,
    PoolRemoved,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    Tick,
)
from heliostat_routing.settings import EndpointPhase, EndpointSettings
from tests.routing.playbook import Playbook, target, targets

PROMPT = tuple(range(1, 11))
"""Ten blocks: 1,280 tokens at four bytes each."""
RATE = 1280.0
"""Prefills PROMPT in one second."""


def other(group: int) -> tuple[int, ...]:
    """A prompt of the same length that shares nothing with the others."""
    return tuple(group * 1000 + number for number in range(10))


def test_picks_of_one_instant_see_each_other() -> None:
    """Two requests of the same instant go to two endpoints, not both to the idlest."""
    book = Playbook(2, prefill_tokens_per_second=RATE)
    assert {target(book.arrive(1, other(1))), target(book.arrive(2, other(2)))} == {"e0", "e1"}


def test_a_request_that_would_wait_in_an_engine_waits_at_the_router() -> None:
    """With all endpoints prefilling, the next request is held and leaves when the clock says so."""
    book = Playbook(2, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.arrive(2, other(2), after=0.25)
    commands = book.router.handle(RequestArrived(3, "p", other(3), 5120), 0.5)
    assert isinstance(commands[0], Enqueue)
    assert commands[-1] == WakeAt(pytest.approx(1.001))
    assert book.router.handle(Tick(), 0.9) == []
    assert target(book.router.handle(Tick(), 1.0011)) == "e0"


def test_the_pending_limit_is_how_many_may_wait_in_an_engine() -> None:
    """With a limit of one, a second request is sent to a prefilling endpoint, a third is not."""
    book = Playbook(1, prefill_tokens_per_second=RATE, pending_limit=1)
    assert target(book.arrive(1, other(1))) == "e0"
    assert target(book.arrive(2, other(2))) == "e0"
    assert target(book.arrive(3, other(3))) is None
    assert target(book.tick(1.002)) == "e0"


def test_requests_waiting_in_the_engine_stop_the_pushing() -> None:
    """Waiting requests that the clock does not explain make an endpoint unavailable until one ends.

    A KV-bound engine admits the next request only when another finishes.
    """
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.scrape("e0", after=2.0, running_requests=1, waiting_requests=1)
    assert target(book.arrive(2, other(2))) is None
    assert target(book.tell(RequestFinished(1), after=0.5)) == "e0"


def test_a_scrape_frees_an_endpoint() -> None:
    """The engine's own word that nothing waits lets the queue go on at once."""
    book = Playbook(1)
    book.scrape("e0", running_requests=9, waiting_requests=3)
    assert target(book.arrive(1)) is None
    assert target(book.scrape("e0", after=0.2, running_requests=9)) == "e0"


def test_a_scrape_that_counts_the_first_token_frees_an_endpoint() -> None:
    """An engine faster than predicted is free once it has counted the first token."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.scrape("e0", first_tokens=7)
    book.arrive(1, other(1))
    assert target(book.arrive(2, other(2))) is None
    assert target(book.scrape("e0", after=0.2, running_requests=1, first_tokens=8)) == "e0"


def test_a_first_token_counted_late_frees_no_other() -> None:
    """A first token that the access log has told already is not taken for another request's."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.scrape("e0", first_tokens=0)
    book.arrive(1, other(1))
    book.tell(RequestFinished(1), after=0.1)
    book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.05))
    assert target(book.arrive(2, other(2))) == "e0"
    assert target(book.arrive(3, other(3))) is None
    assert target(book.scrape("e0", after=0.1, running_requests=1, first_tokens=1)) is None


def test_a_dispatch_is_unseen_until_counts_cover_it() -> None:
    """A scrape that does not count a dispatch does not make it vanish, however old it is."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    for endpoint in ("e0", "e1"):
        book.scrape(endpoint, finished_requests=5)
    where = target(book.arrive(1))
    assert where is not None
    book.scrape(where, after=30.0, finished_requests=5)
    assert target(book.arrive(2)) not in (None, where)


@pytest.mark.parametrize("outcome", [Outcome.CLIENT_ABORTED, Outcome.REFUSED])
def test_what_the_engine_never_counts_does_not_stay_unseen(outcome: Outcome) -> None:
    """Aborted and refused requests, which no engine counter shows, do not weigh on the endpoint."""
    book = Playbook(1, prefill_tokens_per_second=1e6)
    book.scrape("e0")
    book.arrive(0, after=1.0)
    for ticket in range(1, 6):
        book.arrive(ticket, after=0.1)
        book.tell(RequestFinished(ticket), after=0.1)
        book.tell(RequestMeasured(ticket, "e0", outcome))
    book.scrape("e0", after=0.1, running_requests=1)
    book.arrive(9, after=0.1)
    endpoint = book.router._books.fleet.by_address["e0"]
    assert (endpoint.inflight, endpoint.load) == (2, 2)


def test_the_queue_is_bounded() -> None:
    """One request more than the limit is rejected with a time after which to retry."""
    book = Playbook(1, prefill_tokens_per_second=RATE, queue_limit=1)
    book.arrive(1, other(1))
    assert isinstance(book.arrive(2, other(2))[0], Enqueue)
    (rejected,) = book.arrive(3, other(3))
    assert isinstance(rejected, Reject)
    assert rejected.reason is RejectReason.QUEUE_FULL
    assert rejected.retry_after_seconds >= 1


def test_a_deadline_evicts_a_queued_request() -> None:
    """A request that nothing takes is given up at its deadline, not before and not later."""
    book = Playbook(1, prefill_tokens_per_second=1.0, queue_timeout_seconds=5.0)
    book.arrive(1, other(1))
    book.arrive(2, other(2))
    assert book.tick(4.99) == []
    (evicted,) = book.tick(0.011)
    assert isinstance(evicted, Evict)
    assert evicted.reason is EvictReason.DEADLINE_PASSED


def test_arrivals_without_a_place_are_rejected() -> None:
    """An unknown pool and a pool without endpoints are told apart."""
    book = Playbook(0)
    assert book.arrive(1) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]
    unknown = book.tell(RequestArrived(2, "nowhere", (), 10))
    assert unknown == [Reject(2, RejectReason.UNKNOWN_POOL, 1.0)]


def test_nothing_ready_means_wait() -> None:
    """Requests wait while all endpoints drain and go to the first that comes."""
    draining = EndpointSettings("e0", EndpointPhase.DRAINING)
    book = Playbook([draining])
    assert isinstance(book.arrive(1)[0], Enqueue)
    assert target(book.update(draining, EndpointSettings("e1"))) == "e1"


def test_requests_wait_for_an_endpoint_that_is_starting() -> None:
    """A pool whose endpoints are not known to the proxy yet holds requests, and rejects none."""
    book = Playbook([EndpointSettings("e0", EndpointPhase.STARTING)])
    assert isinstance(book.arrive(1)[0], Enqueue)
    assert target(book.update(EndpointSettings("e0"))) == "e0"


def test_a_removed_pool_serves_what_it_queued() -> None:
    """Removing a pool turns new requests away and loses none that was accepted."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.arrive(2, other(2))
    book.tell(PoolRemoved("p"))
    assert book.arrive(3) == [Reject(3, RejectReason.UNKNOWN_POOL, 1.0)]
    assert target(book.tick(1.1)) == "e0"
    assert book.router.views(book.now) == ()
    book.tell(RequestFinished(1))
    book.tell(RequestFinished(2))
    assert len(book.router.ledger) == 0


def test_an_endpoint_that_leaves_keeps_what_it_has() -> None:
    """Requests in flight on a removed endpoint stay counted, also when it comes back."""
    book = Playbook(1)
    book.arrive(1)
    book.update(EndpointSettings("e1"))
    assert book.inflight("e0") == 1
    book.update(EndpointSettings("e0"))
    assert book.inflight("e0") == 1
    book.tell(RequestFinished(1))
    assert book.inflight("e0") == 0


def test_failing_fast_does_not_look_idle() -> None:
    """A request that ends before its prefill could have been done frees nothing by itself."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.tell(RequestFinished(1), after=0.01)
    assert target(book.arrive(2, other(2))) is None


def test_a_measured_success_frees_at_once() -> None:
    """The access log's word that tokens came takes the rest of the prediction back."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.arrive(2, other(2))
    book.tell(RequestFinished(1), after=0.1)
    assert target(book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.05))) == "e0"


def test_repeated_failures_open_the_breaker_and_a_probe_closes_it() -> None:
    """Two failures in a row keep requests away; after a pause one is let through to see."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    for ticket in (1, 2):
        book.arrive(ticket, after=0.1)
        book.tell(AttemptFailed(ticket, "e0"))
        book.tell(AttemptStarted(ticket, "e1"))
    assert [target(book.arrive(n, after=0.1)) for n in range(3, 8)] == ["e1"] * 5
    picked = [target(book.arrive(n, after=0.5)) for n in range(8, 12)]
    assert picked.count("e0") == 1, "exactly one request tries it out"
    probe = 8 + picked.index("e0")
    book.tell(RequestMeasured(probe, "e0", Outcome.SERVED, 0.01))
    assert "e0" in [target(book.arrive(n, after=0.1)) for n in range(12, 16)]


def test_a_failed_probe_doubles_the_pause() -> None:
    """An endpoint that fails its probe is left alone for twice as long."""
    book = Playbook(1, prefill_tokens_per_second=1e6, queue_timeout_seconds=100.0)
    for ticket in (1, 2):
        book.arrive(ticket, after=0.1)
        book.tell(AttemptFailed(ticket, "e0"))
        book.tell(RequestFinished(ticket))
    book.arrive(3)
    assert target(book.tick(1.001)) == "e0"
    book.tell(AttemptFailed(3, "e0"))
    book.arrive(4)
    assert target(book.tick(1.9)) is None
    assert target(book.tick(0.2)) == "e0"


def test_an_answer_without_output_is_a_failure() -> None:
    """Requests that an endpoint swallows open its breaker, whatever status it answered with."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    for ticket in range(1, 9):
        where = target(book.arrive(ticket, after=0.05))
        outcome = Outcome.ENGINE_FAILED if where == "e0" else Outcome.SERVED
        book.tell(RequestFinished(ticket))
        book.tell(RequestMeasured(ticket, where, outcome, 0.01))
    breakers = {e.address: e.breaker for e in book.router.views(book.now)[0].endpoints}
    assert breakers == {"e0": "open", "e1": "closed"}


@pytest.mark.parametrize("silent", [False, True])
def test_no_progress_is_not_idleness(silent: bool) -> None:
    """An engine with work in flight whose counters stand still, or that is silent, gets no more."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    book.scrape("e0")
    book.scrape("e1")
    stuck = target(book.arrive(1, after=0.1))
    assert stuck is not None
    for _ in range(14):
        if silent:
            book.tell(ScrapeFailed(stuck), after=1.0)
        else:
            book.scrape(stuck, after=1.0, running_requests=1)
    assert (
        stuck not in targets([c for n in range(2, 6) for c in book.arrive(n, after=0.1)]).values()
    )
    book.scrape(stuck, running_requests=1, generation_tokens=5)
    assert stuck in targets([c for n in range(6, 12) for c in book.arrive(n, after=0.1)]).values()


def test_the_ledger_follows_the_request_to_who_serves_it() -> None:
    """When the proxy retries elsewhere, the count moves there."""
    book = Playbook(2)
    (dispatch,) = book.arrive(1)
    assert isinstance(dispatch, Dispatch)
    first, second = dispatch.endpoints
    book.tell(AttemptFailed(1, first))
    book.tell(AttemptStarted(1, second))
    assert (book.inflight(first), book.inflight(second)) == (0, 1)


def kv_bound(**settings: object) -> Playbook:
    """One endpoint with room for 2,000 tokens, 900 of them in use by request 0."""
    book = Playbook(1, prefill_tokens_per_second=1e6, **settings)
    book.scrape("e0", kv_capacity_tokens=2000)
    book.arrive(0, other(0)[:6], after=0.1, max_output_tokens=100)
    book.scrape(
        "e0", after=0.1, running_requests=1, kv_cache_utilization=0.45, kv_capacity_tokens=2000
    )
    return book


def test_a_request_that_needs_more_kv_than_is_free_waits_for_it() -> None:
    """It is held although nothing waits in the engine, and goes when a finish releases the room."""
    book = kv_bound()
    (held,) = book.arrive(1, other(1), max_output_tokens=100)
    assert isinstance(held, Enqueue)
    assert target(book.arrive(2, other(2)[:2], max_output_tokens=50)) == "e0", "a small one fits"
    book.tell(RequestFinished(2))
    assert target(book.tell(RequestFinished(0), after=1.0)) == "e0"


def test_small_requests_do_not_starve_one_that_needs_much() -> None:
    """Past the age bound, room is kept for the large one: younger ones wait behind it."""
    book = kv_bound(age_bound_seconds=2.0)
    book.arrive(1, other(1), max_output_tokens=100)
    assert book.tick(2.0) == []
    (held,) = book.arrive(2, other(2)[:2], max_output_tokens=50)
    assert isinstance(held, Enqueue)
    assert held.explanation.rule == "behind-older"
    assert list(targets(book.tell(RequestFinished(0), after=1.0))) == [1]
    assert list(targets(book.tell(RequestFinished(1), after=1.0))) == [2]


def test_a_lora_adapter_limits_where_a_request_goes() -> None:
    """A request for an adapter goes to an endpoint that holds it."""
    holder = EndpointSettings("e1", adapters=frozenset({"lora"}))
    book = Playbook([EndpointSettings("e0", adapters=frozenset()), holder])
    for ticket in range(4):
        assert target(book.arrive(ticket, after=1.0, adapter="lora")) == "e1"

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
    PoolUpdated,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
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
    book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.05, output_tokens=9))
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


def test_one_large_request_does_not_stop_the_pool() -> None:
    """While one endpoint's room is kept for an aged request, the others go on serving."""
    book = Playbook(4, prefill_tokens_per_second=1e6, age_bound_seconds=2.0)
    for number in range(4):
        book.scrape(
            f"e{number}", running_requests=2, kv_cache_utilization=0.5, kv_capacity_tokens=40_000
        )
    assert isinstance(book.arrive(0, tuple(range(1, 261)), max_output_tokens=100)[0], Enqueue)
    sent = {}
    for ticket in range(1, 60):
        sent |= targets(book.arrive(ticket, other(ticket)[:1], after=0.1))
    assert len(sent) >= 58
    assert 0 in sent, "overdue, it goes where the engine will find room"


def test_what_fits_no_engine_waits_for_no_room() -> None:
    """A request beyond the whole KV cache is sent at once: the engine has to judge it."""
    book = kv_bound()
    assert target(book.arrive(1, tuple(range(1, 101)), max_output_tokens=100)) == "e0"


def test_requests_held_for_an_endpoint_that_leaves_go_elsewhere() -> None:
    """Nothing waits for an endpoint that is not there."""
    book = Playbook(2, prefill_tokens_per_second=RATE, age_bound_seconds=60.0)
    prompt = other(1) * 4
    home = target(book.arrive(1, prompt))
    assert home is not None
    book.tell(RequestFinished(1), after=5.0)
    assert target(book.arrive(2, (*prompt, *other(2)))) == home
    assert isinstance(book.arrive(3, (*prompt, *other(3)))[0], Enqueue)
    (rest,) = {"e0", "e1"} - {home}
    assert target(book.update(EndpointSettings(rest))) == rest


def test_a_pool_that_is_removed_and_comes_back_counts_its_own() -> None:
    """What the former pool had in flight is not taken off the new one."""
    book = Playbook(1)
    book.arrive(1)
    book.tell(PoolRemoved("p"))
    book.update(EndpointSettings("e0"))
    book.tell(RequestFinished(1))
    assert book.router.views(book.now)[0].inflight == 0


def test_requests_for_a_busy_adapter_do_not_block_the_others() -> None:
    """However many wait for the one endpoint with their adapter, the rest go where they can."""
    holder = EndpointSettings("e0", adapters=frozenset({"lora"}))
    plain = EndpointSettings("e1", adapters=frozenset())
    book = Playbook([holder, plain], prefill_tokens_per_second=RATE, age_bound_seconds=60.0)
    for ticket in range(2):
        book.arrive(ticket, other(ticket))
    for ticket in range(10, 30):
        assert target(book.arrive(ticket, other(ticket), adapter="lora")) is None
    assert target(book.arrive(40, other(40))) is None
    assert targets(book.tick(1.01)).get(40) == "e1"


def test_fallbacks_hold_the_adapter_too() -> None:
    """A retry does not end at an endpoint that cannot serve the request."""
    holders = [EndpointSettings(f"e{n}", adapters=frozenset({"lora"})) for n in range(2)]
    plain = [EndpointSettings(f"e{n}", adapters=frozenset()) for n in range(2, 5)]
    book = Playbook([*holders, *plain], prefill_tokens_per_second=RATE)
    for ticket in range(6):
        book.arrive(ticket, other(ticket), adapter="lora")
    seen = 0
    for _ in range(8):
        for command in book.tick(1.01):
            assert isinstance(command, Dispatch)
            assert set(command.endpoints) <= {"e0", "e1"}
            seen += 1
    assert seen == 4


def test_pools_that_share_an_endpoint_keep_their_own_adapters() -> None:
    """What one pool says of an endpoint's adapters does not hold for another pool."""
    book = Playbook([EndpointSettings("e0", adapters=frozenset({"lora"}))])
    bare = (EndpointSettings("e0", adapters=frozenset()),)
    book.tell(PoolUpdated("q", book.settings, bare))
    assert target(book.arrive(1, adapter="lora")) == "e0"
    commands = book.tell(RequestArrived(2, "q", (), 100, adapter="lora"), after=1.0)
    assert isinstance(commands[0], Enqueue)


def test_pools_that_share_an_endpoint_see_their_own_phase() -> None:
    """An endpoint that one pool drains is still ready in the other."""
    book = Playbook(1)
    draining = (EndpointSettings("e0", EndpointPhase.DRAINING),)
    book.tell(PoolUpdated("q", book.settings, draining))
    phases = {view.pool: view.endpoints[0].phase for view in book.router.views(book.now)}
    assert phases == {"p": EndpointPhase.READY, "q": EndpointPhase.DRAINING}
    assert target(book.arrive(1)) == "e0"

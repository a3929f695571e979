"""What a pool could take, in a few numbers: the wait that follows, and what is told of it."""

from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_routing.capacity import PoolCapacity, combine
from heliostat_routing.events import PoolRemoved, RequestArrived, RequestFinished
from tests.routing.playbook import Playbook

SOME = PoolCapacity(
    free=2,
    room=5,
    queued=0,
    start_seconds=0.1,
    finish_seconds=3.0,
    load=1.0,
    prefill_tokens_per_second=1000.0,
    kv_capacity_tokens=10_000,
)
CAPACITIES = st.builds(
    PoolCapacity,
    free=st.integers(0, 5),
    room=st.integers(5, 20),
    queued=st.integers(0, 50),
    start_seconds=st.floats(0, 10),
    finish_seconds=st.floats(0, 10),
    load=st.floats(0, 100),
    prefill_tokens_per_second=st.floats(1, 1e5),
    kv_capacity_tokens=st.integers(1, 10**7),
)


@pytest.mark.parametrize(
    ("ahead", "wait_seconds"),
    [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3), (5, 0.4 + 3.0), (6, 0.4 + 6.0)],
)
def test_the_wait_follows_from_who_is_ahead(ahead: int, wait_seconds: float) -> None:
    """Some start at once, then one a prefill while KV lasts, then one a finish."""
    assert SOME.wait_seconds(ahead) == pytest.approx(wait_seconds)


@given(CAPACITIES, st.integers(0, 100))
def test_more_ahead_is_never_a_shorter_wait(capacity: PoolCapacity, ahead: int) -> None:
    """Each request that stands before another makes it wait as long or longer."""
    assert capacity.wait_seconds(ahead) <= capacity.wait_seconds(ahead + 1)


@pytest.mark.parametrize("quantity", [-1, nan, inf])
@pytest.mark.parametrize("field", PoolCapacity.__dataclass_fields__)
def test_nonsense_is_not_believed(field: str, quantity: float) -> None:
    """A capacity with a negative, endless or undefined quantity serves nobody."""
    assert SOME.serves
    changed = {field: quantity}
    assert not replace(SOME, **changed).serves  # type: ignore[arg-type]


def test_a_pool_without_endpoints_serves_nobody() -> None:
    """What a region tells of a pool whose endpoints are gone is not taken for a short wait."""
    book = Playbook(0)
    assert not dict(book.router.capacities(0.0))["p"].serves


def test_a_look_at_the_capacity_counts_every_request_that_has_come() -> None:
    """What is told is of this instant, so that no request is counted in the echo alone."""
    book = Playbook(2, prefill_tokens_per_second=1280.0)
    assert dict(book.router.capacities(0.0))["p"].free == 2
    for ticket in range(5):
        book.tell(RequestArrived(ticket, "p", (), 5120, origin="west", hold_seconds=9.0))
        told = dict(book.router.capacities(0.0))["p"]
        assert told.free == max(0, 1 - ticket)
        assert told.queued == max(0, ticket - 1)
        assert book.router.received.get("west", 0) == ticket + 1


def test_a_removed_pool_is_not_told() -> None:
    """A pool that takes nothing new is offered to no peer, though its queue is still served."""
    book = Playbook(1, prefill_tokens_per_second=1280.0)
    book.arrive(1, tuple(range(1, 11)))
    book.arrive(2, tuple(range(101, 111)))
    book.tell(PoolRemoved("p"))
    assert book.router.capacities(0.0) == ()


@given(st.lists(CAPACITIES, min_size=1, max_size=4))
def test_routers_of_one_region_queue_apart_and_share_one_view(
    views: list[PoolCapacity],
) -> None:
    """Together they hold what each holds; of all else they say no more than the most careful."""
    together = combine(views)
    assert together.serves
    assert together.queued == sum(view.queued for view in views)
    for view in views:
        assert together.free <= view.free
        assert together.room <= view.room
        assert together.finish_seconds >= view.finish_seconds
        assert together.load >= view.load
    assert together.load == max(view.load for view in views)


def test_an_idle_engine_has_room_for_a_request_however_large() -> None:
    """Nothing is spared where nothing runs: one usual request starts at once."""
    book = Playbook(1, prefill_tokens_per_second=1e6)
    book.scrape("e0", kv_capacity_tokens=2000)
    for ticket in range(60):
        book.arrive(ticket, tuple(range(ticket * 100, ticket * 100 + 12)), after=1.0)
        book.tell(RequestFinished(ticket))
    book.scrape("e0", after=1.0, kv_capacity_tokens=2000, finished_requests=60)
    ((_, capacity),) = book.router.capacities(book.now)
    assert (capacity.free, capacity.room) == (1, 1)
    assert capacity.wait_seconds(0) == 0.0

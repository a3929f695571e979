"""Who runs, who waits, who is preempted, and what the cache keeps."""

import pytest

from heliostat_sim.engine import (
    BlockPool,
    Engine,
    EngineOverloadedError,
    FirstToken,
    Preempted,
    RequestTooLongError,
)

from .engine_model import TokenBlocks, events_until_idle, finished, profile, request


def test_blocks_are_evicted_least_recently_used_and_tails_before_heads() -> None:
    """The older prompt goes first, and of a prompt its end."""
    engine = Engine(profile())
    for number, prompt in enumerate([range(12), range(100, 112)]):
        engine.submit(request(number, prompt), float(number))
        finished(engine)
    older, newer = (TokenBlocks(p).between(0, 3) for p in (range(12), range(100, 112)))
    assert list(engine.pool.idle_hashes()) == [*reversed(older), *reversed(newer)]


def test_a_hit_makes_blocks_recently_used() -> None:
    """A prompt that is asked for again moves behind the others in the order of eviction."""
    engine = Engine(profile())
    for number, prompt in enumerate([range(12), range(100, 112), range(12)]):
        engine.submit(request(number, prompt), float(number))
        finished(engine)
    newest = TokenBlocks(range(12)).between(0, 2)
    assert list(engine.pool.idle_hashes())[-2:] == list(reversed(newest))


def test_generated_tokens_are_cached_for_the_next_turn() -> None:
    """A prompt that continues an earlier request's output hits that output too."""
    engine = Engine(profile())
    engine.submit(request(1, range(8), 9), 0.0)
    finished(engine)
    conversation = TokenBlocks(range(8)).tokens(17)
    engine.submit(request(2, [*conversation, 1, 2, 3]), 100.0)
    assert finished(engine)[2].cached_tokens == 16


def test_the_latest_admitted_is_preempted_and_still_completes() -> None:
    """When the pool runs out the newest request starts over, and both deliver every token."""
    engine = Engine(profile(kv_tokens=32))
    engine.submit(request(1, range(10), 20), 0.0)
    engine.submit(request(2, range(50, 60), 20), 0.0)
    events = list(events_until_idle(engine))
    assert {e.request_id for e in events if isinstance(e, Preempted)} == {2}
    assert [e.request_id for e in events if isinstance(e, FirstToken)] == [1, 2]
    assert engine.metrics().totals.preemptions >= 1
    assert engine.metrics().totals.generated_tokens == 40
    ends = [e for e in events if not isinstance(e, FirstToken | Preempted)]
    assert [(e.request_id, e.output_tokens) for e in ends] == [(1, 20), (2, 20)]


def test_a_preempted_request_recomputes_what_it_said_before() -> None:
    """The blocks cached after a preemption are those of the same tokens."""
    engine = Engine(profile(kv_tokens=32))
    engine.submit(request(1, range(10), 20), 0.0)
    engine.submit(request(2, range(50, 60), 20), 0.0)
    finished(engine)
    expected = TokenBlocks(range(50, 60)).between(0, 7)
    assert engine.pool.match(expected) == expected


def test_stored_tokens_are_the_prompts_new_full_blocks() -> None:
    """Neither output, nor what was cached before, nor a recomputation after a preemption counts."""
    engine = Engine(profile(kv_tokens=32))
    engine.submit(request(1, range(10), 20), 0.0)
    engine.submit(request(2, range(50, 60), 20), 0.0)
    ends = finished(engine)
    assert engine.metrics().totals.preemptions > 0
    assert [ends[number].stored_tokens for number in (1, 2)] == [8, 8]
    engine.submit(request(3, range(50, 63), 1), 9.0)
    end = finished(engine)[3]
    assert (end.cached_tokens, end.stored_tokens) == (8, 4)


def test_an_identical_prompt_shares_blocks_with_the_running_one() -> None:
    """Two requests with one prefix hold its blocks once."""
    engine = Engine(profile())
    engine.submit(request(1, range(17), 40), 0.0)
    engine.advance(0.5)
    engine.submit(request(2, range(17), 40), 0.5)
    engine.advance(1.0)
    assert sorted(engine.pool.holders().values()) == [2, 2, 2, 2]


def test_requests_start_in_the_order_of_arrival() -> None:
    """With one place in the batch the queue is first come, first served."""
    engine = Engine(profile(max_running_requests=1))
    for number in (3, 1, 2):
        engine.submit(request(number, range(number * 100, number * 100 + 8), 2), 0.0)
    assert list(finished(engine)) == [3, 1, 2]


def test_an_abort_frees_the_place_at_once_and_the_next_one_starts() -> None:
    """An aborted request holds no block and counts no more."""
    engine = Engine(profile(max_running_requests=1))
    engine.submit(request(1, range(20), 30), 0.0)
    engine.submit(request(2, range(50, 60), 1), 0.0)
    engine.advance(0.2)
    assert engine.abort(1, 0.2)
    assert engine.metrics().running_requests == 0
    assert list(finished(engine)) == [2]
    assert engine.metrics().totals.aborted_requests == 1
    assert not engine.abort(1, 9.0)


def test_a_full_engine_refuses() -> None:
    """Beyond the limit of unfinished requests a submission has no effect but the error."""
    engine = Engine(profile(max_unfinished_requests=1))
    engine.submit(request(1, range(8), 5), 0.0)
    with pytest.raises(EngineOverloadedError):
        engine.submit(request(2, range(8), 5), 0.0)
    assert list(finished(engine)) == [1]


def test_a_place_is_free_from_the_instant_at_which_a_request_ends() -> None:
    """Whether the engine is full does not depend on when it was advanced last."""
    engine = Engine(profile(max_unfinished_requests=1))
    engine.submit(request(1, range(8), 1), 0.0)
    end = engine.next_event_at()
    assert end is not None
    assert engine.is_full(end - 1e-6)
    assert not engine.is_full(end)
    engine.submit(request(2, range(8), 1), end)
    assert list(finished(engine)) == [1, 2]


def test_what_can_never_fit_is_refused() -> None:
    """A request larger than the whole cache is an error, not a wait for ever."""
    engine = Engine(profile(kv_tokens=16))
    engine.submit(request(1, range(12), 5), 0.0)
    with pytest.raises(RequestTooLongError):
        engine.submit(request(2, range(12), 6), 0.0)


def test_clearing_the_pool_forgets_only_what_no_request_holds() -> None:
    """Blocks of running requests survive a reset of the prefix cache."""
    pool = BlockPool(4)
    pool.take(2)
    assert pool.register([1, 2]) == [1, 2]
    pool.release([2])
    pool.clear_idle()
    assert pool.match([1]) == [1]
    assert pool.match([2]) == []
    assert pool.empty_blocks == 3


@pytest.mark.parametrize("steps", range(1, 10))
def test_an_abort_after_any_step_returns_every_block(steps: int) -> None:
    """Wherever in a block a request stands, none of its blocks stays behind."""
    engine = Engine(profile())
    engine.submit(request(1, range(6), 30), 0.0)
    for _ in range(steps):
        at = engine.next_step_at()
        assert at is not None
        engine.advance(at)
    engine.abort(1, at)
    assert engine.pool.anonymous_blocks == engine.pool.shared_blocks == 0


def test_pressure_evicts_the_oldest_prefix_first() -> None:
    """When a new prompt needs room the prefix unused for longest goes, the other stays."""
    engine = Engine(profile())
    for number, start in enumerate((0, 100, 200)):
        engine.submit(request(number, range(start, start + 28)), float(number))
        finished(engine)
    blocks = [TokenBlocks(range(start, start + 28)).between(0, 7) for start in (0, 100, 200)]
    assert [len(engine.pool.match(one)) for one in blocks] == [2, 7, 7]


def test_the_next_in_line_is_tried_when_the_one_before_it_gives_up() -> None:
    """A small request behind a large one that waits for blocks starts once that one aborts."""
    engine = Engine(profile())
    engine.submit(request(1, range(20), 30), 0.0)
    engine.submit(request(2, range(100, 160)), 0.1)
    engine.submit(request(3, range(200, 204)), 0.1)
    engine.advance(0.5)
    assert engine.metrics().waiting_requests == 2
    engine.abort(2, 0.5)
    engine.advance(0.7)
    assert engine.metrics().waiting_requests == 0

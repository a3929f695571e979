"""Properties that hold for the engine model over arbitrary workloads."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_sim.engine import Engine, EngineEvent, EngineRequest, Finished

from .engine_model import BLOCK_TOKENS, events_until_idle, profile, request

prompts = st.lists(st.integers(0, 1), min_size=1, max_size=40)
arrivals = st.lists(
    st.tuples(
        st.floats(0, 3, allow_nan=False, width=32),
        prompts,
        st.integers(1, 24),
        st.none() | st.floats(0, 6, allow_nan=False, width=32),
    ),
    min_size=1,
    max_size=12,
)
"""(arrives at, prompt, output tokens, aborted at or never)."""

Action = tuple[float, int, EngineRequest | None]


def actions_of(workload: list[tuple[float, list[int], int, float | None]]) -> list[Action]:
    """Return submissions and aborts in the order of time; an abort follows its submission."""
    actions: list[Action] = []
    for number, (at, prompt, output_tokens, aborted_at) in enumerate(workload):
        actions.append((at, number, request(number, prompt, output_tokens)))
        if aborted_at is not None:
            actions.append((at + aborted_at, number, None))
    return sorted(actions, key=lambda action: action[:2])


def apply(engine: Engine, action: Action) -> bool:
    """Submit or abort; False if an abort came too late."""
    at, number, submitted = action
    if submitted is None:
        return engine.abort(number, at)
    engine.submit(submitted, at)
    return True


def check_conservation(engine: Engine) -> None:
    """Every block is in one state, and exactly those that requests hold are counted as held."""
    pool = engine.pool
    held: Counter[int] = Counter()
    for sequence in engine._running.values():
        held.update(sequence.held_hashes)
    assert pool.holders() == dict(held)
    assert min(pool.empty_blocks, pool.anonymous_blocks, pool.idle_blocks) >= 0
    states = (pool.empty_blocks, pool.anonymous_blocks, pool.idle_blocks, pool.shared_blocks)
    assert sum(states) == pool.capacity_blocks
    assert not set(pool.idle_hashes()) & set(held)
    for sequence in engine._running.values():
        assert len(sequence.held_hashes) <= pool.capacity_blocks


@given(workload=arrivals, budget=st.integers(4, 64), places=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_every_request_finishes_or_is_aborted_and_blocks_are_conserved(
    workload: list[tuple[float, list[int], int, float | None]], budget: int, places: int
) -> None:
    """Whatever arrives and leaves, no block is lost and no request is forgotten."""
    engine = Engine(profile(max_step_tokens=budget + places, max_running_requests=places))
    ended: Counter[int] = Counter()
    for action in actions_of(workload):
        events = engine.advance(action[0])
        check_conservation(engine)
        ended.update(event.request_id for event in events if isinstance(event, Finished))
        aborted = apply(engine, action) and action[2] is None
        ended.update([action[1]] if aborted else [])
        check_conservation(engine)
    for event in events_until_idle(engine):
        check_conservation(engine)
        ended.update([event.request_id] if isinstance(event, Finished) else [])
    assert ended == Counter(range(len(workload)))
    assert engine.pool.anonymous_blocks == engine.pool.shared_blocks == 0


@given(workload=arrivals, interval_seconds=st.sampled_from([0.011, 0.07, 0.9]))
@settings(max_examples=60, deadline=None)
def test_one_leap_equals_many_small_advances(
    workload: list[tuple[float, list[int], int, float | None]], interval_seconds: float
) -> None:
    """How often a caller looks changes neither what happens nor when."""
    leaping, stepping = Engine(profile()), Engine(profile())
    seen: list[EngineEvent] = []
    now = 0.0
    for action in actions_of(workload):
        apply(leaping, action)
        while now + interval_seconds < action[0]:
            now += interval_seconds
            seen += stepping.advance(now)
        apply(stepping, action)
    while stepping.next_event_at() is not None:
        now += interval_seconds
        seen += stepping.advance(now)
    seen += stepping.advance(now)
    assert leaping.advance(1e9) == seen
    assert leaping.metrics() == stepping.metrics()
    assert list(leaping.pool.idle_hashes()) == list(stepping.pool.idle_hashes())


@given(prompt=st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_a_repeated_prompt_hits_all_its_full_blocks_but_the_last_token(prompt: list[int]) -> None:
    """The second time, everything but at least one token comes from the cache."""
    engine = Engine(profile())
    engine.submit(request(1, prompt), 0.0)
    list(events_until_idle(engine))
    engine.submit(request(2, prompt), 1e6)
    (_, end) = events_until_idle(engine)
    assert isinstance(end, Finished)
    assert end.cached_tokens == (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS

"""The admission clock: what it promises for an instant holds at that instant."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat_routing.admission_clock import AdmissionClock

SECONDS = st.floats(0, 1000, allow_subnormal=False)
WORK = st.lists(st.floats(1e-4, 5.0), min_size=1, max_size=8)


@given(SECONDS, WORK, st.integers(0, 2), st.sampled_from([0.0, 0.01, 0.07, 0.3]))
def test_an_endpoint_is_free_when_it_was_said_to_be(
    start: float, works: list[float], limit: int, step_seconds: float
) -> None:
    """At the instant that `frees_at` names no more are waiting than the limit, whatever the
    rounding."""
    clock = AdmissionClock()
    for ticket, work in enumerate(works):
        clock.push(ticket, start, work)
    frees_at = clock.frees_at(start, limit, step_seconds)
    assert clock.waiting(frees_at, step_seconds) <= limit


@given(SECONDS, WORK, st.floats(0.01, 10.0))
def test_a_clock_that_stood_still_keeps_its_promise_later(
    start: float, works: list[float], stopped_seconds: float
) -> None:
    """What a stop moves back is moved back by as long, and then holds."""
    clock = AdmissionClock()
    for ticket, work in enumerate(works):
        clock.push(ticket, start, work)
    clock.stop(start)
    clock.run(start + stopped_seconds)
    frees_at = clock.frees_at(start + stopped_seconds, 0)
    assert clock.waiting(frees_at, 0.0) == 0

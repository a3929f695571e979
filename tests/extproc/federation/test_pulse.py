"""When a router does what it does again and again."""

import pytest

from heliostat_extproc.federation.pulse import Pulse


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_has_one_period_or_a_multiple_of_it_comes_together() -> None:
    """Whenever each of them is asked, they wait for the same instants."""
    clock = Clock()
    pulse = Pulse(clock)
    for clock.now in (100.01, 100.05, 100.13, 107.77):
        for period in (0.1, 0.2):
            beats = (clock.now + pulse.pause_seconds(period) - 100.0) / period
            assert beats == pytest.approx(round(beats))
            assert 0 < pulse.pause_seconds(period) <= period


def test_an_instant_is_never_served_twice() -> None:
    """A timer that fires a little early waits for the next instant."""
    clock = Clock()
    pulse = Pulse(clock)
    clock.now = 100.0998
    assert pulse.pause_seconds(0.1) == pytest.approx(0.1002)
    clock.now = 100.1002
    assert pulse.pause_seconds(0.1) == pytest.approx(0.0998)

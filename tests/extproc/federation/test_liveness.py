"""Whether the other end of a link is heard, echo by echo."""

from itertools import pairwise

import pytest

from heliostat_extproc.federation.liveness import MOST_UNANSWERED, Liveness


def test_nothing_is_known_before_the_first_echo() -> None:
    """A link is neither silent nor heard before anything has come."""
    liveness = Liveness()
    liveness.ping(0.0)
    assert liveness.silent_seconds(100.0) is None
    assert liveness.round_trip_seconds is None


def test_silence_counts_from_the_ping_that_was_answered() -> None:
    """An echo that comes late says only that the way was there when its ping went."""
    liveness = Liveness()
    first, second = liveness.ping(0.0), liveness.ping(0.05)
    liveness.on_echo(first, 0.1)
    assert liveness.silent_seconds(0.1) == pytest.approx(0.0)
    liveness.on_echo(second, 3.0)
    silent = liveness.silent_seconds(3.0)
    assert silent is not None
    assert silent > 2.7


def test_an_echo_of_nothing_changes_nothing() -> None:
    """A peer can not make itself heard by numbers that were not sent, or twice by one."""
    liveness = Liveness()
    number = liveness.ping(0.0)
    assert not liveness.on_echo(number + 1, 0.1)
    assert liveness.on_echo(number, 0.1)
    assert not liveness.on_echo(number, 5.0)
    assert liveness.heard_at == 0.1


def test_the_next_number_cannot_be_told_from_those_before() -> None:
    """A peer that answers early what it expects to be asked does not look nearer than it is."""
    liveness = Liveness()
    numbers = [liveness.ping(0.0) for _ in range(32)]
    steps = {after - before for before, after in pairwise(numbers)}
    assert len(steps) == 31
    assert max(numbers) > 2**56
    asked = liveness.ping(1.0)
    assert not any(liveness.on_echo(numbers[-1] + step, 1.0) for step in (*steps, 1))
    assert liveness.on_echo(asked, 1.2)
    assert liveness.round_trip_seconds == pytest.approx(0.2)


def test_only_the_newest_echo_counts() -> None:
    """An echo that a newer one has overtaken is over."""
    liveness = Liveness()
    first, second = liveness.ping(0.0), liveness.ping(0.05)
    assert liveness.on_echo(second, 0.15)
    assert not liveness.on_echo(first, 0.2)


def test_the_round_trip_falls_at_once_and_rises_slowly() -> None:
    """One echo that was held up says little, one that was faster says all."""
    liveness = Liveness()
    liveness.on_echo(liveness.ping(0.0), 0.2)
    liveness.on_echo(liveness.ping(1.0), 1.1)
    assert liveness.round_trip_seconds == pytest.approx(0.1)
    liveness.on_echo(liveness.ping(2.0), 2.9)
    assert liveness.round_trip_seconds == pytest.approx(0.1, abs=0.02)
    for at in range(3, 400):
        liveness.on_echo(liveness.ping(float(at)), at + 0.9)
    assert liveness.round_trip_seconds == pytest.approx(0.9, abs=0.02)


def test_pings_without_echo_are_bounded() -> None:
    """A peer that never answers costs no memory."""
    liveness = Liveness()
    numbers = [liveness.ping(0.0) for _ in range(10 * MOST_UNANSWERED)]
    assert not liveness.on_echo(numbers[0], 1.0)
    assert liveness.on_echo(numbers[-1], 1.0)

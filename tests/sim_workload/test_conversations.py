import itertools
import random
import statistics

import pytest

from heliostat_sim.workload.conversations import (
    ConversationSettings,
    LengthDistribution,
    conversations,
)
from heliostat_sim.workload.session import Session, WorkloadError, with_poisson_arrivals


def take(count: int, settings: ConversationSettings | None = None, seed: int = 7) -> list[Session]:
    return list(itertools.islice(conversations(settings or ConversationSettings(), seed), count))


def test_same_seed_is_the_same_workload() -> None:
    """A seed fixes every session; another seed shares no text with it."""
    assert take(50) == take(50)
    keys = [{part.key for s in take(50, seed=seed) for part in s.system} for seed in (1, 2)]
    assert keys[0].isdisjoint(keys[1])


def test_users_of_a_group_share_their_system_prompt() -> None:
    """Sessions have as many system prompts as groups, and a user's own context after it."""
    sessions = take(400, ConversationSettings(groups=3, users=9))
    assert len({session.system[0] for session in sessions}) == 3
    profiles = {session.system[1]: session.system[0] for session in sessions}
    assert len(profiles) == 9
    assert all(profiles[session.system[1]] == session.system[0] for session in sessions)


def test_turns_follow_the_settings() -> None:
    """The mean number of turns and the share of single turns are those asked for."""
    rng = random.Random(3)
    turns = [ConversationSettings().draw_turns(rng) for _ in range(20_000)]
    assert statistics.mean(turns) == pytest.approx(2.54, rel=0.03)
    assert turns.count(1) / len(turns) == pytest.approx(0.59, abs=0.02)


def test_turns_can_be_fixed() -> None:
    """Without single turns and with a mean of two, every chat has two turns."""
    settings = ConversationSettings(mean_turns=2, single_turn_ratio=0)
    assert {len(session.turns) for session in take(50, settings)} == {2}


def test_a_prompt_holds_everything_before_it() -> None:
    """Each prompt is the one before, its answer and the new message."""
    session = next(s for s in take(100) if len(s.turns) >= 3)
    growth = session.prompt_tokens(2) - session.prompt_tokens(1)
    assert growth == session.turns[1].output_tokens + session.turns[2].user[0].tokens
    assert session.prompt_tokens(0) == 700 + session.turns[0].user[0].tokens


def test_context_is_bounded() -> None:
    """No later turn takes a conversation over the greatest context."""
    settings = ConversationSettings(mean_turns=30, single_turn_ratio=0, max_context_tokens=2000)
    for session in take(100, settings):
        for turn in range(1, len(session.turns)):
            total = session.prompt_tokens(turn) + session.turns[turn].output_tokens
            assert total <= 2000


def test_lengths_have_their_mean_and_bounds() -> None:
    """A lognormal length has the mean and deviation asked for, inside its bounds."""
    rng = random.Random(1)
    lengths = LengthDistribution(300, 200, 100_000)
    drawn = [lengths.draw_tokens(rng) for _ in range(20_000)]
    assert statistics.mean(drawn) == pytest.approx(300, rel=0.03)
    assert statistics.stdev(drawn) == pytest.approx(200, rel=0.1)
    capped = LengthDistribution(300, 2000, 500)
    assert {1 <= capped.draw_tokens(rng) <= 500 for _ in range(1000)} == {True}
    assert LengthDistribution(300, 0, 500).draw_tokens(rng) == 300


def test_first_turn_has_no_think_time() -> None:
    """A conversation begins at once and waits only between its turns."""
    sessions = take(100)
    assert {session.turns[0].think_seconds for session in sessions} == {0.0}
    thinks = [turn.think_seconds for session in sessions for turn in session.turns[1:]]
    assert statistics.mean(thinks) == pytest.approx(1.0, rel=0.3)


def test_poisson_arrivals_are_seeded_and_ascending() -> None:
    """A rate gives the same sessions times of that mean rate, the same in each pass."""
    timed = with_poisson_arrivals(conversations(ConversationSettings(), 5), 4.0)
    first, second = (list(itertools.islice(timed, 4000)) for _ in range(2))
    times = [session.at_seconds for session in first]
    assert timed.timed
    assert first == second
    assert times == sorted(times)
    assert times[-1] == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": 0}, "at least one group"),
        ({"groups": 5, "users": 4}, "a user for each group"),
        ({"mean_turns": 1.2}, "the mean is at least 1.41 turns, not 1.2"),
        ({"single_turn_ratio": 1.5}, "between 0 and 1"),
        ({"system_tokens": -1}, "cannot be negative"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    """Settings that no conversation can meet are refused with what is wrong."""
    with pytest.raises(WorkloadError, match=message):
        ConversationSettings(**wrong)  # type: ignore[arg-type]


def test_a_rate_must_be_positive() -> None:
    """A rate of zero is refused."""
    with pytest.raises(WorkloadError, match="must be positive, not 0"):
        with_poisson_arrivals(conversations(ConversationSettings(), 0), 0.0)

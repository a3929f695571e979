from random import Random

import pytest

from heliostat_sim.demand.chat import ARENA, WILDCHAT, chat_clients
from heliostat_sim.demand.similarity import (
    Prompt,
    Similarity,
    common_blocks,
    measured_similarity,
    prompts_of,
)

COMPARED = 1000
"""Prompts: half a million pairs."""
TOLERANCE = 0.02
"""Absolute: two points of a percentage."""


def similarity_of(kind: str) -> Similarity:
    settings = {"arena": ARENA, "wildchat": WILDCHAT}[kind]
    clients = {"us": 60, "asia": 60, "eu": 60}
    prompts = prompts_of(chat_clients(clients, settings, kind, 5, block_tokens=1), 5)
    return measured_similarity(Random(1).sample(prompts, COMPARED))


def test_arena_is_as_similar_as_published() -> None:
    """Arena: 20.5 % within a user, 8.3 % across users, within two points."""
    found = similarity_of("arena")
    assert found.same_user_ratio == pytest.approx(0.205, abs=TOLERANCE)
    assert found.across_users_ratio == pytest.approx(0.083, abs=TOLERANCE)


def test_wildchat_is_as_similar_as_published() -> None:
    """WildChat: 19.0 % within a user, 10.9 % within a region, 2.5 % across regions, within two
    points.
    """
    found = similarity_of("wildchat")
    assert found.same_user_ratio == pytest.approx(0.190, abs=TOLERANCE)
    assert found.same_region_ratio == pytest.approx(0.109, abs=TOLERANCE)
    assert found.across_regions_ratio == pytest.approx(0.025, abs=TOLERANCE / 2)


def test_similarity_is_the_common_prefix_over_the_shorter_prompt() -> None:
    """Pairs of one conversation do not count; the others count for who and where they are."""
    prompts = [
        Prompt("us", 1, 1, (1, 2, 3, 4)),
        Prompt("us", 1, 1, (1, 2, 3, 4, 5, 6)),
        Prompt("us", 1, 2, (1, 2, 9, 9, 9)),
        Prompt("us", 2, 3, (1, 8)),
        Prompt("eu", 3, 4, (7,)),
    ]
    found = measured_similarity(prompts)
    assert found.same_user_ratio == pytest.approx((2 / 4 + 2 / 5) / 2)
    assert found.same_region_ratio == pytest.approx(1 / 2)
    assert found.across_regions_ratio == 0
    assert found.across_users_ratio == pytest.approx(3 / 2 / 7)


def test_common_blocks_by_bisection() -> None:
    """The common prefix of two chains is found wherever it ends."""
    whole = tuple(range(20))
    for length in range(21):
        other = (*whole[:length], *range(100, 120))
        assert common_blocks(whole, other) == length

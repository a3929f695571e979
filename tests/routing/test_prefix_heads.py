"""The heads: what many prompts share is found, at any length, in bounded memory."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from heliostat_routing.prefix_heads import MOST_COUNTED, MOST_HEADS, PrefixHeads, head_depth


def chain(group: int, shared: int, length: int, own: int) -> tuple[int, ...]:
    """Keys of a prompt: the first `shared` blocks as its group's, the rest its own."""
    head = tuple(group * 10**6 + number for number in range(shared))
    return head + tuple(own * 10**9 + number for number in range(length - shared))


def test_what_many_prompts_share_is_their_head() -> None:
    """The deepest counted key of what is shared is told, not those before it."""
    heads = PrefixHeads()
    for own in range(1, 20):
        heads.note(chain(5, 10, 30, own))
    assert heads.hottest() == (chain(5, 10, 30, 1)[7],)


def test_a_prompt_that_was_asked_for_once_is_no_head() -> None:
    """Nobody else has its prefix."""
    heads = PrefixHeads()
    heads.note(chain(1, 10, 10, 1))
    assert heads.hottest() == ()


def test_the_hot_ones_survive_many_rare_ones() -> None:
    """Memory is bounded, and what is asked for all the time is never forgotten."""
    heads, random = PrefixHeads(), Random(1)
    hot = [chain(group, 8, 8, 0) for group in range(5)]
    for own in range(1, 5000):
        heads.note(chain(own + 100, 4, 16, own))
        if own % 4 == 0:
            heads.note(random.choice(hot))
    found = heads.hottest()
    assert len(found) <= MOST_HEADS
    assert {keys[7] for keys in hot} <= set(found)
    assert len(heads._counts) <= MOST_COUNTED + 16


def test_what_was_hot_once_is_forgotten() -> None:
    """Yesterday's prompt makes room for today's."""
    heads = PrefixHeads()
    for _ in range(1, 50):
        heads.note(chain(1, 8, 8, 0))
    for own in range(1, 20_000):
        heads.note(chain(2, 8, 16, own))
    assert chain(1, 8, 8, 0)[7] not in heads.hottest()


@given(st.integers(0, 70), st.integers(0, 70))
def test_the_depth_of_a_head_is_found_from_the_prompt(length: int, depth: int) -> None:
    """Depths of powers of two are found; no depth is deeper than the prompt."""
    keys = chain(1, length, length, 0)
    heads = frozenset(keys[depth - 1 : depth]) if depth else frozenset[int]()
    is_sampled = 0 < depth <= length and depth & (depth - 1) == 0
    assert head_depth(keys, heads) == (depth if is_sampled else 0)

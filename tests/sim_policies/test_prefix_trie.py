"""The prefix index against a slow model of the character tree it stands for."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat_sim.policies.prefix_trie import PrefixTrie, prompt_blocks

from .fake_port import Requests


def test_matches_the_deepest_prefix_and_all_who_hold_it() -> None:
    """The deepest match is found, with every target that has it."""
    trie = PrefixTrie()
    trie.add([1, 2, 3], "a")
    trie.add([1, 2, 3, 4], "b")
    trie.add([1, 2, 3, 4], "c")
    assert trie.deepest([1, 2, 3, 4, 5], ["a", "b", "c"]) == (4, ["b", "c"])
    assert trie.deepest([1, 2, 9], ["a", "b"]) == (2, ["a", "b"])
    assert trie.deepest([7], ["a", "b"]) == (0, [])


def test_evicts_least_recently_used_leaves_first() -> None:
    """What was used longest ago goes, and of one path its end before its beginning."""
    trie = PrefixTrie(max_blocks=4)
    trie.add([1, 2, 3], "a")
    trie.add([1, 8, 9], "a")
    trie.evict()
    assert trie.blocks("a") == 4
    assert trie.depth([1, 2, 3], "a") == 2
    assert trie.depth([1, 8, 9], "a") == 3


def test_forgets_targets_that_have_left() -> None:
    """A target that is not kept holds nothing."""
    trie = PrefixTrie()
    trie.add([1], "a")
    trie.keep_only(["b"])
    assert trie.depth([1], "a") == 0


def test_bounds_a_target_to_the_published_tree_size() -> None:
    """2^24 characters are 262,144 blocks of 16 tokens of 4 characters."""
    assert PrefixTrie().max_blocks == 262_144


def test_prompts_are_known_by_their_full_blocks() -> None:
    """A prompt of 40 tokens has two full blocks of 16."""
    assert len(prompt_blocks(Requests()((1, 40)))) == 2


_paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map("".join)


@given(st.lists(st.tuples(_paths, st.sampled_from("xy")), max_size=20), _paths)
def test_agrees_with_a_set_of_prefixes(sent: list[tuple[str, str]], query: str) -> None:
    """Bisection finds what a scan over all prefixes finds, also after eviction."""
    trie = PrefixTrie(max_blocks=5)
    model: dict[str, dict[str, int]] = {"x": {}, "y": {}}

    def chain(path: str) -> list[int]:
        return [hash(path[: n + 1]) for n in range(len(path))]

    for time, (path, target) in enumerate(sent):
        trie.add(chain(path), target)
        for n in range(len(path)):
            model[target][path[: n + 1]] = time
        trie.trim(target)
        while len(model[target]) > 5:
            leaf = min(model[target], key=lambda p: (model[target][p], -len(p)))
            del model[target][leaf]
    depths = {
        target: max((n for n in range(len(query) + 1) if query[:n] in held), default=0)
        for target, held in model.items()
    }
    best = max(depths.values())
    expected = [target for target in "xy" if best and depths[target] == best]
    assert trie.deepest(chain(query), "xy") == (best, expected)

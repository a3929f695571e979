"""The prefixes that are asked for most: what one region tells another of its caches.

Prompts are counted by their first blocks, at depths of powers of two, so that a prompt of any
length costs a few counts. Many prompts share a system prompt and few more than that: the deepest
key of what they share is their head. Counts are halved and rare keys forgotten whenever there are
too many, so memory is bounded and what was hot once does not stay so.
"""

from collections.abc import Iterator, Sequence

MOST_HEADS = 64
MOST_COUNTED = 1024
"""Keys that are counted at a time."""
KEPT = 256
"""Of those, the keys that stay when there are too many."""
LEAST_COUNT = 2
"""A prefix that was asked for once is nobody else's."""
COVERED_RATIO = 0.8
"""A key is no head if so much of its count goes on to one that is deeper."""


class PrefixHeads:
    """Counts how often prefixes are asked for."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._parents: dict[int, int] = {}
        self._hottest: tuple[int, ...] | None = ()

    def note(self, keys: Sequence[int]) -> None:
        """Count a prompt's prefixes."""
        counts, parent = self._counts, None
        for key in _sampled(keys):
            counts[key] = counts.get(key, 0) + 1
            if parent is not None:
                self._parents[key] = parent
            parent = key
        if len(counts) > MOST_COUNTED:
            self._forget_rare()
        self._hottest = None

    def hottest(self) -> tuple[int, ...]:
        """The heads, hottest first; those that are about as hot in an order that stays."""
        if self._hottest is None:
            self._hottest = self._find_hottest()
        return self._hottest

    def _find_hottest(self) -> tuple[int, ...]:
        counts = self._counts
        covered = {
            parent
            for key, parent in self._parents.items()
            if counts[key] >= COVERED_RATIO * counts.get(parent, 0)
        }
        heads = [k for k, n in counts.items() if n >= LEAST_COUNT and k not in covered]
        heads.sort(key=lambda key: (-counts[key].bit_length(), key))
        return tuple(heads[:MOST_HEADS])

    def _forget_rare(self) -> None:
        kept = sorted(self._counts.items(), key=lambda it: -it[1])[:KEPT]
        self._counts = {key: count // 2 for key, count in kept if count > 1}
        parents = self._parents
        self._parents = {
            key: parents[key]
            for key in self._counts
            if key in parents and parents[key] in self._counts
        }


def head_depth(keys: Sequence[int], heads: frozenset[int]) -> int:
    """How many leading blocks of a prompt are a head of these, as far as one can tell."""
    depth, found = 1, 0
    if heads:
        for key in _sampled(keys):
            if key in heads:
                found = depth
            depth *= 2
    return found


def _sampled(keys: Sequence[int]) -> Iterator[int]:
    """The keys at depths of powers of two."""
    depth, count = 1, len(keys)
    while depth <= count:
        yield keys[depth - 1]
        depth *= 2

"""Which target was sent which prefix: one index for all policies that follow their own dispatches.

Published routers keep a character radix tree whose nodes map targets to their last access. Here a
text is a chain of block hashes, each of which stands for all that precedes it, so the tree needs no
edges: per target, the blocks it was sent, in order of last access. An insert touches the whole
path, the deepest block first, so that a block is never evicted before those that build on it: the
least recently used leaves go first. A target that holds a block therefore holds all before it, and
bisection finds how deep it matches.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from heliostat_sim.workload.text import CHARACTERS_PER_TOKEN
from heliostat_sim.world.request import Request

TREE_CHARACTERS = 1 << 24
"""Per target, in SGLang's router and in SkyLB."""
EVICTION_INTERVAL_SECONDS = 60.0
"""Between evictions, in SGLang's router and in SkyLB."""


def prompt_blocks(request: Request) -> Sequence[int]:
    """The hashes of the prompt's full blocks."""
    return request.chain.between(0, request.prompt_tokens // request.chain.block_tokens)


class PrefixTrie:
    """Blocks by target, bounded per target whenever `evict` is called."""

    def __init__(self, max_blocks: int | None = None, block_tokens: int = 16) -> None:
        if max_blocks is None:
            max_blocks = TREE_CHARACTERS // (CHARACTERS_PER_TOKEN * block_tokens)
        self.max_blocks = max_blocks
        self._held: dict[str, dict[int, None]] = {}

    def add(self, blocks: Sequence[int], target: str) -> None:
        """Note that a text was sent to a target."""
        held = self._held.setdefault(target, {})
        pop = held.pop
        for block in reversed(blocks):
            pop(block, None)
            held[block] = None

    def depth(self, blocks: Sequence[int], target: str, at_least: int = 0) -> int:
        """How many leading blocks the target was sent; it is known to hold `at_least`."""
        held = self._held.get(target)
        if not held:
            return 0
        low, high = at_least, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in held:
                low = middle + 1
            else:
                high = middle
        return low

    def deepest(self, blocks: Sequence[int], targets: Iterable[str]) -> tuple[int, list[str]]:
        """The deepest match among these targets, and who has it. Nobody at depth 0."""
        best, holders = 0, list[str]()
        for target in targets:
            held = self._held.get(target)
            if not held or (best and blocks[best - 1] not in held):
                continue
            depth = self.depth(blocks, target, best)
            if depth > best:
                best, holders = depth, [target]
            elif depth:
                holders.append(target)
        return best, holders

    def blocks(self, target: str) -> int:
        """How many blocks a target holds: its tree's size."""
        return len(self._held.get(target, ()))

    def evict(self) -> None:
        """Bound every target: the least recently used leaves go."""
        for target in self._held:
            self.trim(target)

    def trim(self, target: str) -> None:
        """Bound one target."""
        held = self._held.get(target)
        if held is None:
            return
        excess = len(held) - self.max_blocks
        for block in list(islice(held, max(excess, 0))):
            del held[block]

    def keep_only(self, targets: Iterable[str]) -> None:
        """Forget all other targets."""
        kept = set(targets)
        for target in [target for target in self._held if target not in kept]:
            del self._held[target]

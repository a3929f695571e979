"""How SkyLB chooses among available targets: prefix trie (SkyLB) or ring hash (SkyLB-CH).

The same code serves both layers: targets are engines or regions. Rules and thresholds are those of
the paper (arXiv 2505.24095, 3.3) and of its public load balancer.
"""

from collections.abc import Iterable
from typing import Protocol

from heliostat_sim.policies.hash_ring import HashRing
from heliostat_sim.policies.outstanding import Outstanding
from heliostat_sim.policies.prefix_trie import PrefixTrie, prompt_blocks
from heliostat_sim.policies.sglang import CACHE_THRESHOLD_RATIO, least_if_imbalanced
from heliostat_sim.world.request import Request


class Selection(Protocol):
    """Chooses a target for a request."""

    load: Outstanding

    def select(self, request: Request, available: list[str]) -> str:
        """Choose among available targets; there is at least one."""

    def note(self, request: Request, target: str) -> None:
        """A request goes to a target."""

    def set_targets(self, targets: Iterable[str]) -> None:
        """These are all targets, available or not."""

    def evict(self) -> None:
        """Bound what is remembered."""


class PrefixSelection:
    """The longest match among available targets, if longer than half the prompt, else least load.

    Of several targets that share the longest match, the least loaded.
    """

    def __init__(self, *, rebalances: bool = False) -> None:
        self.load = Outstanding()
        self._trie = PrefixTrie()
        self._rebalances = rebalances
        """Blind pushing also has SGLang's balance rule, as in the public load balancer."""

    def select(self, request: Request, available: list[str]) -> str:
        """Choose by match, then by load."""
        if self._rebalances:
            relief = least_if_imbalanced(self.load, available)
            if relief is not None:
                return relief
        depth, holders = self._trie.deepest(prompt_blocks(request), available)
        if depth * request.chain.block_tokens > CACHE_THRESHOLD_RATIO * request.prompt_tokens:
            return self.load.least(holders)
        return self.load.least(available)

    def note(self, request: Request, target: str) -> None:
        """Remember the prompt and the load."""
        self.load.add(request, target)
        self._trie.add(prompt_blocks(request), target)

    def set_targets(self, targets: Iterable[str]) -> None:
        """Forget targets that have left."""
        self._trie.keep_only(targets)

    def evict(self) -> None:
        """Bound each target's part of the tree."""
        self._trie.evict()


class RingSelection:
    """The user's place on a ring, walking past targets that are not available."""

    def __init__(self) -> None:
        self.load = Outstanding()
        self._ring = HashRing()

    def select(self, request: Request, available: list[str]) -> str:
        """Choose the first available target from the user's place on."""
        target = self._ring.pick(str(request.user), available)
        return available[0] if target is None else target

    def note(self, request: Request, target: str) -> None:
        """Remember the load."""
        self.load.add(request, target)

    def set_targets(self, targets: Iterable[str]) -> None:
        """Build the ring."""
        self._ring.set_targets(targets)

    def evict(self) -> None:
        """A ring remembers nothing."""

"""The paged KV cache: one pool of blocks for running requests and for cached prefixes.

Blocks have no identity here, only a state, because which physical block holds what changes nothing
that can be observed. A block is empty, anonymous (held by one request, its content not findable:
partly filled, or a copy of a cached one), shared (findable by its hash, held by one or more
requests) or idle (findable, held by none, and evicted least recently used first).
"""

from collections import OrderedDict
from collections.abc import Iterable


class BlockPool:
    """Counts blocks by state; every block is in exactly one."""

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.empty_blocks = capacity_blocks
        self.anonymous_blocks = 0
        self.version = 0
        """Changes whenever blocks become free or findable: a failed admission may be retried."""
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def shared_blocks(self) -> int:
        """Findable blocks that requests hold."""
        return len(self._holders)

    @property
    def idle_blocks(self) -> int:
        """Findable blocks that no request holds."""
        return len(self._idle)

    @property
    def available_blocks(self) -> int:
        """Blocks that can be taken now: the empty ones and those that only cache."""
        return self.empty_blocks + len(self._idle)

    def idle_hashes(self) -> Iterable[int]:
        """Return the hashes of the idle blocks, the next to be evicted first."""
        return iter(self._idle)

    def holders(self) -> dict[int, int]:
        """Return a copy of how many requests hold each shared block."""
        return dict(self._holders)

    def match(self, block_hashes: Iterable[int]) -> list[int]:
        """Return the leading hashes that are findable."""
        holders, idle = self._holders, self._idle
        matched: list[int] = []
        for block_hash in block_hashes:
            if block_hash not in holders and block_hash not in idle:
                break
            matched.append(block_hash)
        return matched

    def count_idle(self, block_hashes: Iterable[int]) -> int:
        """Count the blocks that are held by none, so that taking blocks may evict them."""
        return sum(map(self._idle.__contains__, block_hashes))

    def take(self, blocks: int) -> None:
        """Hand out anonymous blocks, evicting idle ones when the empty run out.

        The caller has checked `available_blocks`.
        """
        evicted = blocks - self.empty_blocks
        if evicted > 0:
            evict = self._idle.popitem
            for _ in range(evicted):
                evict(last=False)
            self.empty_blocks = 0
        else:
            self.empty_blocks -= blocks
        self.anonymous_blocks += blocks

    def hold(self, block_hashes: Iterable[int]) -> None:
        """Add a holder to findable blocks."""
        holders, idle = self._holders, self._idle
        for block_hash in block_hashes:
            if block_hash in holders:
                holders[block_hash] += 1
            else:
                del idle[block_hash]
                holders[block_hash] = 1

    def register(self, block_hashes: Iterable[int]) -> list[int]:
        """Make a request's filled anonymous blocks findable.

        Returns those of which no other block is findable already; the others stay anonymous.
        """
        holders, idle = self._holders, self._idle
        new = [h for h in block_hashes if h not in holders and h not in idle]
        holders.update(dict.fromkeys(new, 1))
        self.anonymous_blocks -= len(new)
        self.version += 1
        return new

    def release(self, block_hashes: Iterable[int]) -> None:
        """Drop a holder of each; the last one leaves the block idle, most recently used."""
        holders, idle = self._holders, self._idle
        for block_hash in block_hashes:
            others = holders.pop(block_hash) - 1
            if others:
                holders[block_hash] = others
            else:
                idle[block_hash] = None
        self.version += 1

    def retire(self, block_hashes: Iterable[int]) -> int:
        """Turn anonymous blocks into idle ones unless they are findable already; count them."""
        holders, idle = self._holders, self._idle
        new = [h for h in block_hashes if h not in holders and h not in idle]
        idle.update(dict.fromkeys(new))
        self.anonymous_blocks -= len(new)
        self.version += 1
        return len(new)

    def free_anonymous(self, blocks: int) -> None:
        """Take back blocks whose content is of no further use."""
        self.anonymous_blocks -= blocks
        self.empty_blocks += blocks
        self.version += 1

    def clear_idle(self) -> None:
        """Forget every cached prefix that no request holds."""
        self.empty_blocks += len(self._idle)
        self._idle.clear()
        self.version += 1

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

    def __contains__(self, block_hash: int) -> bool:
        return block_hash in self._holders or block_hash in self._idle

    def is_idle(self, block_hash: int) -> bool:
        """Whether the block is cached and held by none, so that taking blocks may evict it."""
        return block_hash in self._idle

    def take(self, blocks: int) -> None:
        """Hand out anonymous blocks, evicting idle ones when the empty run out.

        The caller has checked `available_blocks`.
        """
        evicted = blocks - self.empty_blocks
        if evicted > 0:
            for _ in range(evicted):
                self._idle.popitem(last=False)
            self.empty_blocks = 0
        else:
            self.empty_blocks -= blocks
        self.anonymous_blocks += blocks

    def hold(self, block_hash: int) -> None:
        """Add a holder to a findable block."""
        holders = self._holders.get(block_hash)
        if holders is None:
            del self._idle[block_hash]
            self._holders[block_hash] = 1
        else:
            self._holders[block_hash] = holders + 1

    def register(self, block_hash: int) -> bool:
        """Make a request's filled anonymous block findable; False if another block is already."""
        if block_hash in self:
            return False
        self._holders[block_hash] = 1
        self.anonymous_blocks -= 1
        self.version += 1
        return True

    def release(self, block_hash: int) -> None:
        """Drop one holder; the last one leaves the block idle, most recently used."""
        holders = self._holders[block_hash] - 1
        if holders:
            self._holders[block_hash] = holders
        else:
            del self._holders[block_hash]
            self._idle[block_hash] = None
            self.version += 1

    def retire(self, block_hash: int) -> bool:
        """Turn an anonymous block into an idle one; False if the hash is findable already."""
        if block_hash in self:
            return False
        self._idle[block_hash] = None
        self.anonymous_blocks -= 1
        self.version += 1
        return True

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

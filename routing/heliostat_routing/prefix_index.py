"""Which endpoints hold which prompt prefixes, as far as the router can know.

Block keys are chained hashes, so a key stands for the whole prompt up to its block. Each endpoint's
entries are kept in the order in which its engine would evict them: least recently used first, and
within one prompt the tail before the head. An endpoint that holds a block therefore holds all
blocks before it, and the deepest match can be found by bisection.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile

Runs = tuple[tuple[int, float], ...]
"""Positions and former stamps: `(start, stamp)` holds from block `start` down to the next start."""


class PrefixIndex:
    """Block key -> set of endpoint slots, with one bounded LRU per slot.

    A stamp is the instant at which a block was last used; stamps never decrease.
    """

    __slots__ = ("_bits", "_holders", "_residents", "_serial")

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._residents: dict[int, dict[int, float]] = {}
        """By slot: block key -> stamp, least recently used first."""
        self._serial = 0
        self._bits: dict[int, int] = {}
        """By slot: its bit, shared by all blocks that it alone holds. It can be a kilobyte long."""

    def __len__(self) -> int:
        return len(self._holders)

    def resident_blocks(self, slot: int) -> int:
        """Blocks charged to this slot, generated output included."""
        return len(self._residents.get(slot, ()))

    def holders(self, key: int) -> int:
        """The slots that hold this block."""
        return self._holders.get(key, 0)

    def match(self, keys: Sequence[int], among: int, most: int) -> list[tuple[int, int]]:
        """The deepest matches among these slots: up to `most` pairs (depth in blocks, slots).

        Depths descend; each slot appears once, at the depth to which it matches exactly.
        """
        levels: list[tuple[int, int]] = []
        ceiling = len(keys)
        while among and ceiling and len(levels) < most:
            depth, mask = self._deepest(keys, among, ceiling)
            if not depth:
                break
            levels.append((depth, mask))
            among &= ~mask
            ceiling = depth - 1
        return levels

    def depth(self, keys: Sequence[int], slot: int) -> int:
        """How many leading blocks of the prompt this slot holds."""
        return self._deepest(keys, 1 << slot, len(keys))[0]

    def _deepest(self, keys: Sequence[int], among: int, ceiling: int) -> tuple[int, int]:
        holders = self._holders
        low, high, found = 0, ceiling, 0
        while low < high:
            middle = (low + high + 1) // 2
            mask = holders.get(keys[middle - 1], 0) & among
            if mask:
                low, found = middle, mask
            else:
                high = middle - 1
        return low, found

    def record(self, slot: int, keys: Sequence[int], stamp: float, capacity_blocks: int) -> Runs:
        """Note that the slot now holds this prompt; evict what no longer fits.

        Returns the former stamps of the blocks it held already, for `former_stamp`.
        """
        resident = self._residents.setdefault(slot, {})
        holders = self._holders
        bit = self._bit(slot)
        runs: list[tuple[int, float]] = []
        last = 0.0
        for position in range(len(keys) - 1, -1, -1):
            key = keys[position]
            former = resident.pop(key, None)
            resident[key] = stamp
            if former is None:
                holders[key] = holders[key] | bit if key in holders else bit
            elif not runs or former != last:
                runs.append((position, former))
                last = former
        self._shrink(slot, resident, capacity_blocks)
        return tuple(runs)

    def charge(self, slot: int, blocks: int, stamp: float, capacity_blocks: int) -> None:
        """Charge generated output: it takes room like any block, though no prompt can match it."""
        resident = self._residents.setdefault(slot, {})
        for _ in range(blocks):
            self._serial -= 1
            resident[self._serial] = stamp
        self._shrink(slot, resident, capacity_blocks)

    def retract(self, slot: int, keys: Sequence[int], depth: int, stamp: float) -> None:
        """Take back the blocks past `depth` that were recorded with this stamp: never computed."""
        resident = self._residents.get(slot)
        if resident is None:
            return
        retracted = [key for key in dict.fromkeys(keys[depth:]) if resident.get(key) == stamp]
        for key in retracted:
            del resident[key]
        self._unlink(retracted, 1 << slot)

    def evict_through(self, slot: int, stamp: float) -> int:
        """Raise the slot's eviction watermark: drop all blocks last used up to then."""
        resident = self._residents.get(slot, {})
        old = list(takewhile(lambda key: resident[key] <= stamp, resident))
        for key in old:
            del resident[key]
        self._unlink(old, 1 << slot)
        return len(old)

    def evict_oldest(self, slot: int, blocks: int) -> None:
        """Drop the slot's oldest blocks."""
        resident = self._residents.get(slot, {})
        self._shrink(slot, resident, max(0, len(resident) - blocks))

    def drop(self, slot: int) -> None:
        """Forget all that this slot held."""
        self._bits.pop(slot, None)
        self._unlink(self._residents.pop(slot, ()), 1 << slot)

    def recent(self, slot: int, most: int, chunk: int) -> Iterator[tuple[tuple[int, ...], float]]:
        """The blocks of prompts that were used last, the very last first, in chunks.

        With each comes the stamp of its oldest.
        """
        resident, holders = self._residents.get(slot, {}), self._holders
        prompts = islice((key for key in reversed(resident) if key in holders), most)
        while keys := tuple(islice(prompts, chunk)):
            yield keys, resident[keys[-1]]

    def restore(self, slot: int, keys: Sequence[int], stamp: float, capacity_blocks: int) -> None:
        """Note blocks that the slot has held since long; those known already are as they were.

        The keys are those used last first. They are older than all that is known.
        """
        resident = self._residents.get(slot, {})
        stamp = min(stamp, next(iter(resident.values()), stamp))
        missing = [key for key in keys if key not in resident]
        missing = missing[: max(0, capacity_blocks - len(resident))]
        bit = self._bit(slot)
        for key in missing:
            self._holders[key] = self._holders[key] | bit if key in self._holders else bit
        self._residents[slot] = dict.fromkeys(reversed(missing), stamp) | resident

    def _bit(self, slot: int) -> int:
        bit = self._bits.get(slot)
        if bit is None:
            bit = self._bits[slot] = 1 << slot
        return bit

    def _shrink(self, slot: int, resident: dict[int, float], most: int) -> None:
        excess = len(resident) - most
        if excess > 0:
            oldest = list(islice(resident, excess))
            for key in oldest:
                del resident[key]
            self._unlink(oldest, 1 << slot)

    def _unlink(self, keys: Iterable[int], bit: int) -> None:
        holders = self._holders
        for key in keys:
            mask = holders.get(key)
            if mask == bit:
                del holders[key]
            elif mask is not None:
                holders[key] = mask & ~bit


def former_stamp(runs: Runs, position: int) -> float | None:
    """The stamp that the block at this position had before it was recorded anew."""
    stamp = None
    for start, value in runs:
        if start < position:
            break
        stamp = value
    return stamp

"""Sets of endpoints as integers: bit i stands for the endpoint in slot i.

Intersections of such sets cost a few nanoseconds per machine word, which is what keeps a pick's
work independent of how many endpoints hold a prefix.
"""

from collections.abc import Iterator


def lowest_slot(mask: int) -> int:
    """The lowest slot of a non-empty mask."""
    return (mask & -mask).bit_length() - 1


def slot_from(mask: int, cursor: int) -> int:
    """The first slot at or after `cursor` in a non-empty mask, wrapping around."""
    upper = mask >> cursor
    return cursor + lowest_slot(upper) if upper else lowest_slot(mask)


def slots(mask: int) -> Iterator[int]:
    """All slots of a mask, ascending."""
    while mask:
        bit = mask & -mask
        yield bit.bit_length() - 1
        mask ^= bit

"""The index alone, against a plain model of what each slot holds."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_routing.prefix_index import PrefixIndex, former_stamp

CHAINS = [
    [1, 2, 3, 4, 5, 6],
    [1, 2, 3, 14, 15],
    [1, 22, 23],
    [31, 32, 33, 34],
]
ACTION = st.one_of(
    st.tuples(st.just("record"), st.integers(0, 3), st.integers(0, 3), st.integers(1, 6)),
    st.tuples(st.just("charge"), st.integers(0, 3), st.integers(1, 3), st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, 3), st.just(0), st.just(0)),
    st.tuples(st.just("watermark"), st.integers(0, 3), st.integers(0, 8), st.just(0)),
    st.tuples(st.just("retract"), st.integers(1, 5), st.just(0), st.just(0)),
)
CAPACITY = 8


def build(actions: list[tuple[str, int, int, int]]) -> PrefixIndex:
    """Play actions on a fresh index."""
    index = PrefixIndex()
    records: list[tuple[int, list[int], int, float]] = []
    for now, (kind, slot, a, b) in enumerate(actions, start=1):
        match kind:
            case "record":
                records.append((slot, CHAINS[a][:b], index.depth(CHAINS[a][:b], slot), float(now)))
                index.record(slot, CHAINS[a][:b], float(now), CAPACITY)
            case "charge":
                index.charge(slot, a, float(now), CAPACITY)
            case "drop":
                index.drop(slot)
            case "watermark":
                index.evict_through(slot, float(now - a))
            case "retract":
                if records:
                    index.retract(*records[-min(slot, len(records))])
    return index


@settings(deadline=None, max_examples=300)
@given(st.lists(ACTION, max_size=40))
def test_every_slot_stays_bounded_and_closed_under_prefixes(
    actions: list[tuple[str, int, int, int]],
) -> None:
    """A slot that holds a block holds all blocks before it, and never more than its capacity."""
    index = build(actions)
    for slot in range(4):
        assert index.resident_blocks(slot) <= CAPACITY
        for chain in CHAINS:
            held = [bool(index.holders(key) >> slot & 1) for key in chain]
            assert held == sorted(held, reverse=True)
            assert index.depth(chain, slot) == sum(held)


@settings(deadline=None, max_examples=300)
@given(st.lists(ACTION, max_size=40), st.integers(0, 3), st.integers(0, 15))
def test_match_finds_each_slot_at_its_depth(
    actions: list[tuple[str, int, int, int]], chain: int, among: int
) -> None:
    """Levels are exact: every slot asked for stands at the depth to which it really matches."""
    index = build(actions)
    levels = index.match(CHAINS[chain], among, most=10)
    depths = {slot: depth for depth, mask in levels for slot in range(4) if mask >> slot & 1}
    for slot in range(4):
        expected = index.depth(CHAINS[chain], slot) if among >> slot & 1 else 0
        assert depths.get(slot, 0) == expected
    assert [depth for depth, _ in levels] == sorted({d for d, _ in levels}, reverse=True)


def test_tails_are_evicted_before_heads() -> None:
    """What no longer fits is cut from the end of the least recently used prompt."""
    index = PrefixIndex()
    index.record(0, [1, 2, 3, 4], 1.0, 6)
    index.record(0, [11, 12, 13], 2.0, 6)
    assert index.depth([1, 2, 3, 4], 0) == 3
    assert index.depth([11, 12, 13], 0) == 3


def test_memory_is_returned_when_endpoints_go() -> None:
    """After the last holder is dropped nothing is left."""
    index = PrefixIndex()
    for slot in range(3):
        index.record(slot, list(range(1, 100)), 1.0, 1000)
    for slot in range(3):
        index.drop(slot)
    assert len(index) == 0


def test_former_stamps_tell_how_old_each_block_was() -> None:
    """Recording anew returns the stamps that the blocks had, run by run."""
    index = PrefixIndex()
    index.record(0, [1, 2, 3, 4, 5], 1.0, 100)
    index.record(0, [1, 2], 2.0, 100)
    runs = index.record(0, [1, 2, 3, 4, 5, 6], 3.0, 100)
    assert [former_stamp(runs, position) for position in range(6)] == [
        2.0,
        2.0,
        1.0,
        1.0,
        1.0,
        None,
    ]


def test_a_block_costs_as_much_among_many_endpoints_as_among_few() -> None:
    """What one endpoint alone holds takes under 200 bytes a block in the last of 10,000 slots."""
    index = PrefixIndex()
    tracemalloc.start()
    for block in range(1_000):
        index.record(9_999, [1 << 60 | block], float(block), 1_000)
    used_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert index.resident_blocks(9_999) == 1_000
    assert used_bytes < 200 * 1_000

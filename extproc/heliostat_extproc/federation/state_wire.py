"""Pools on the wire: to three digits, and back with nothing believed that makes no sense.

Small changes of big numbers decide nothing, so they are not told.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Literal, get_args

from heliostat_extproc.federation.protocol import (
    LONGEST_MICROSECONDS,
    MOST_ADAPTERS,
    MOST_COUNT,
    MOST_HEADS,
    MOST_ORIGINS,
    MOST_POOLS,
    is_name,
)
from heliostat_extproc.federation.slots import OwnState, PoolState
from heliostat_extproc.federation.state_pb2 import Adapters, Capacity, Pool
from heliostat_routing.capacity import PoolCapacity

_Number = Literal[
    "free",
    "room",
    "queued",
    "start_microseconds",
    "finish_microseconds",
    "load_thousandths",
    "prefill_tokens_per_second",
    "kv_capacity_tokens",
]
_THREE_DIGITS = 1000
_UNITS: tuple[int, ...] = tuple(
    10 ** max(0, len(str(1 << bits >> 1)) - 3)
    for bits in range(LONGEST_MICROSECONDS.bit_length() + 1)
)
"""What the third digit counts, by a number's bits; ten times as much from the next digit on."""
_MICRO = 1_000_000
_MILLI = 1000
_NEEDED: tuple[_Number, ...] = get_args(_Number)
_numbers = attrgetter(*_NEEDED)


class StateError(ValueError):
    """A part of what a peer says makes no sense, or is too much."""


_UNSAID = OwnState()


def as_told(state: OwnState, before: OwnState, said: OwnState = _UNSAID) -> OwnState:
    """What readers get of this state: rounded, and within the bounds that they hold it to.

    What is as it was before is the same object. `said` is the state that `before` was made of.
    """
    pools = dict(islice(_told_pools(state.pools, before.pools, said.pools), MOST_POOLS))
    received = {name: count for name, count in state.received.items() if count > 0}
    return OwnState(pools, state.heads[:MOST_HEADS], dict(islice(received.items(), MOST_ORIGINS)))


def _told_pools(
    pools: Mapping[str, PoolState], before: Mapping[str, PoolState], said: Mapping[str, PoolState]
) -> Iterator[tuple[str, PoolState]]:
    adapters_left = MOST_ADAPTERS
    for model, pool in pools.items():
        known, adapters = before.get(model), pool.capacity.adapters
        if known is not None and adapters is None and said.get(model) == pool:
            yield model, known
            continue
        if not (is_name(model) and pool.capacity.serves):
            continue
        if adapters is not None:
            adapters = frozenset(sorted(filter(is_name, adapters))[:adapters_left])
            adapters_left -= len(adapters)
        told = PoolState(_rounded_capacity(pool.capacity, adapters), pool.draining)
        yield model, known if known == told else told


def _rounded_capacity(capacity: PoolCapacity, adapters: frozenset[str] | None) -> PoolCapacity:
    return PoolCapacity(
        free=_rounded(capacity.free),
        room=_rounded(capacity.room),
        queued=_rounded(capacity.queued),
        start_seconds=_rounded(capacity.start_seconds * _MICRO, LONGEST_MICROSECONDS) / _MICRO,
        finish_seconds=_rounded(capacity.finish_seconds * _MICRO, LONGEST_MICROSECONDS) / _MICRO,
        load=_rounded(capacity.load * _MILLI) / _MILLI,
        prefill_tokens_per_second=max(1, _rounded(capacity.prefill_tokens_per_second)),
        kv_capacity_tokens=_rounded(capacity.kv_capacity_tokens),
        adapters=adapters,
    )


def _rounded(quantity: float, most: int = MOST_COUNT) -> int:
    number = round(quantity)
    if number < _THREE_DIGITS:
        return number
    number = min(number, most)
    unit = _UNITS[number.bit_length()]
    if number >= _THREE_DIGITS * unit:
        unit *= 10
    return min((number + unit // 2) // unit * unit, most)


def write_pool(message: Pool, model: str, pool: PoolState, *, with_adapters: bool) -> None:
    """Write a pool whose state is as told into an empty message."""
    # Field by field: a message that is made of keywords takes eight times as long.
    message.model, message.draining = model, pool.draining
    capacity, numbers = pool.capacity, message.capacity
    numbers.free = capacity.free
    numbers.room = capacity.room
    numbers.queued = capacity.queued
    numbers.start_microseconds = round(capacity.start_seconds * _MICRO)
    numbers.finish_microseconds = round(capacity.finish_seconds * _MICRO)
    numbers.load_thousandths = round(capacity.load * _MILLI)
    numbers.prefill_tokens_per_second = round(capacity.prefill_tokens_per_second)
    numbers.kv_capacity_tokens = capacity.kv_capacity_tokens
    if with_adapters:
        names = capacity.adapters
        message.adapters.any = names is None
        message.adapters.names.extend(sorted(names or ()))


def parse_pool(message: Pool, before: PoolState | None) -> PoolState:
    """Read a pool; StateError where it lacks something or makes no sense."""
    if not is_name(message.model):
        raise StateError("a model's name is none")
    if message.HasField("adapters"):
        adapters = _parse_adapters(message.adapters)
    elif before is not None:
        adapters = before.capacity.adapters
    else:
        raise StateError("a new pool says nothing of adapters")
    return PoolState(_parse_capacity(message.capacity, adapters), message.draining)


def _parse_adapters(message: Adapters) -> frozenset[str] | None:
    if message.any:
        return None
    if len(message.names) > MOST_ADAPTERS or not all(map(is_name, message.names)):
        raise StateError("the adapters are too many or have no names")
    return frozenset(message.names)


def _parse_capacity(message: Capacity, adapters: frozenset[str] | None) -> PoolCapacity:
    numbers = _numbers(message)
    if 0 in numbers and not all(map(message.HasField, _NEEDED)):  # what is missing reads as zero
        raise StateError("a capacity lacks a number")
    free, room, queued, start, finish, load, prefill, kv_capacity = numbers
    counted = max(free, room, queued, load, prefill, kv_capacity)
    if counted > MOST_COUNT or max(start, finish) > LONGEST_MICROSECONDS:
        raise StateError("a number is not sane")
    if not (prefill and kv_capacity):
        raise StateError("a pool cannot serve")
    return PoolCapacity(
        free=free,
        room=room,
        queued=queued,
        start_seconds=start / _MICRO,
        finish_seconds=finish / _MICRO,
        load=load / _MILLI,
        prefill_tokens_per_second=float(prefill),
        kv_capacity_tokens=kv_capacity,
        adapters=adapters,
    )

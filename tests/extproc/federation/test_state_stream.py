"""What a router says, what a watcher is told of it, and what the watcher makes of that."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from heliostat_extproc.federation.protocol import (
    MOST_ADAPTERS,
    MOST_COUNT,
    MOST_HEADS,
    MOST_POOLS,
    MOST_WRITERS,
)
from heliostat_extproc.federation.publication import Publication, WatcherRecord, slot_message
from heliostat_extproc.federation.reception import Reception, RegionView
from heliostat_extproc.federation.slots import OwnState, PoolState, Slot
from heliostat_extproc.federation.state_pb2 import Capacity, Pool, WatchResponse
from heliostat_extproc.federation.state_pb2 import Slot as SlotMessage
from heliostat_extproc.federation.state_wire import as_told, write_pool
from heliostat_routing.capacity import PoolCapacity

REGION = "europe"
ORIGIN = "us/gateway-1"
CAPACITY = PoolCapacity(3, 5, 7, 0.25, 0.5, 1.5, 8000.0, 100_000)
NAMES = st.sampled_from(["llama", "qwen", "org/model-7b", "mistral"])
ORIGINS = st.sampled_from([ORIGIN, "us/gateway-2", "asia/gateway-1"])
ADAPTERS = st.none() | st.frozensets(st.sampled_from(["sql", "chat", "law"]))
COUNTS = st.integers(0, MOST_COUNT)
CAPACITIES = st.builds(
    PoolCapacity,
    free=COUNTS,
    room=COUNTS,
    queued=COUNTS,
    start_seconds=st.floats(0, 1e5),
    finish_seconds=st.floats(0, 1e5),
    load=st.floats(0, 1e4),
    prefill_tokens_per_second=st.floats(1, 1e6),
    kv_capacity_tokens=st.integers(1, MOST_COUNT),
    adapters=ADAPTERS,
)
STATES = st.builds(
    OwnState,
    pools=st.dictionaries(NAMES, st.builds(PoolState, CAPACITIES, draining=st.booleans())),
    heads=st.lists(st.integers(0, 2**64 - 1), max_size=5).map(tuple),
    received=st.dictionaries(ORIGINS, st.integers(1, 10**6)),
)


def over_the_wire(record: WatcherRecord, publication: Publication) -> WatchResponse:
    """Take a watcher's difference, as it arrives."""
    difference = record.difference(publication)
    response = WatchResponse(slots=difference.slots, gone_writers=difference.gone_writers)
    return WatchResponse.FromString(response.SerializeToString())


def receive(reception: Reception, response: WatchResponse) -> None:
    reception.receive(response.slots, response.gone_writers)


def whole(writer: str, state: OwnState, *, version: tuple[int, int] = (1, 1)) -> SlotMessage:
    """Write a slot as the first one of a stream."""
    return slot_message(Slot(writer, *version, state), None, REGION)


def seen_by(origin: str, slots: Mapping[str, Slot]) -> dict[str, OwnState]:
    """What this router is meant to know of these slots."""
    return {
        writer: replace(
            slot.state,
            received={o: n for o, n in slot.state.received.items() if o == origin},
        )
        for writer, slot in slots.items()
    }


class Watching(RuleBasedStateMachine):
    """A router and its siblings say things; a watcher loses streams and opens others."""

    def __init__(self) -> None:
        super().__init__()
        self.routers = {
            name: Publication(REGION, name, epoch=1) for name in ("gateway-1", "gateway-2")
        }
        self.watched = "gateway-1"
        self.sent: dict[str, OwnState] = {}
        """What the stream has been sent of each writer's."""
        self.view = RegionView()
        self.open()

    def open(self) -> None:
        self.record, self.reception = WatcherRecord(ORIGIN), Reception(REGION)

    @rule(name=st.sampled_from(["gateway-1", "gateway-2"]), state=STATES)
    def say(self, name: str, state: OwnState) -> None:
        """A router changes."""
        self.routers[name].say(state)

    @rule(name=st.sampled_from(["gateway-1", "gateway-2"]))
    def hear_sibling(self, name: str) -> None:
        """A router hears the newest of the other one."""
        other = next(it for it in self.routers if it != name)
        self.routers[name].pass_on({other: self.routers[other].own})

    @rule(name=st.sampled_from(["gateway-1", "gateway-2"]))
    def lose_sibling(self, name: str) -> None:
        """A router hears the other one no more."""
        self.routers[name].pass_on({})

    @rule(name=st.sampled_from(["gateway-1", "gateway-2"]))
    def restart(self, name: str) -> None:
        """A router starts again, with a new epoch, and knows nothing."""
        epoch = self.routers[name].own.epoch + 1
        self.routers[name] = Publication(REGION, name, epoch)
        if name == self.watched:
            self.open()

    @rule(name=st.sampled_from(["gateway-1", "gateway-2"]))
    def reconnect(self, name: str) -> None:
        """The stream breaks; the next one leads to either router."""
        self.watched = name
        self.open()

    @rule()
    def take(self) -> None:
        """The watcher takes what it lacks."""
        publication = self.routers[self.watched]
        receive(self.reception, over_the_wire(self.record, publication))
        self.view.take(self.reception.slots)
        self.sent = seen_by(ORIGIN, publication.slots())
        assert {w: s.state for w, s in self.reception.slots.items()} == self.sent

    @precondition(lambda self: self.sent)
    @rule()
    def take_twice(self) -> None:
        """Where nothing has changed, nothing is sent."""
        self.take()
        assert self.record.difference(self.routers[self.watched]).is_empty

    @invariant()
    def nothing_is_refused(self) -> None:
        """An honest router's word is taken whole."""
        assert not self.reception.refused

    @invariant()
    def a_writers_slot_never_grows_older(self) -> None:
        """What a router that lags passes on does not undo what was known."""
        for writer, slot in self.view.slots.items():
            base = self.reception.slots.get(writer)
            assert base is None or slot.version >= base.version
            assert slot.version <= self.routers[writer].own.version


TestWatching = Watching.TestCase


@given(STATES)
def test_what_is_told_is_what_is_read(state: OwnState) -> None:
    """A pool reads as it was told, however odd its numbers."""
    told = as_told(state, OwnState())
    reception = Reception(REGION)
    reception.receive([SlotMessage.FromString(whole("a", told).SerializeToString())])
    assert reception.slots["a"].state == told


@given(CAPACITIES)
def test_three_digits_are_told(capacity: PoolCapacity) -> None:
    """A number that is told differs by less than one part in a hundred."""
    told = as_told(OwnState({"m": PoolState(capacity)}), OwnState()).pools["m"].capacity
    assert told.free == pytest.approx(capacity.free, rel=0.01)
    assert told.room == pytest.approx(capacity.room, rel=0.01)
    assert told.start_seconds == pytest.approx(capacity.start_seconds, rel=0.01, abs=1e-6)
    assert told.load == pytest.approx(capacity.load, rel=0.01, abs=1e-3)


def test_a_pool_that_says_nothing_new_is_not_sent_again() -> None:
    """Only what has changed goes over the wire: here one of two pools, and no adapters."""
    publication, record = Publication(REGION, "a", 1), WatcherRecord(ORIGIN)
    adapters = replace(CAPACITY, adapters=frozenset({"sql"}))
    publication.say(OwnState({"m": PoolState(adapters), "n": PoolState(CAPACITY)}))
    record.difference(publication)
    publication.say(OwnState({"m": PoolState(replace(adapters, free=9)), "n": PoolState(CAPACITY)}))
    (slot,) = record.difference(publication).slots
    (pool,) = slot.pools
    assert (pool.model, pool.capacity.free, pool.HasField("adapters")) == ("m", 9, False)


def test_others_requests_are_no_news_for_a_watcher() -> None:
    """A router of another region is told how many of its own requests have come, and no more."""
    publication, record = Publication(REGION, "a", 1), WatcherRecord(ORIGIN)
    publication.say(OwnState(received={ORIGIN: 1, "asia/x": 1}))
    record.difference(publication)
    publication.say(OwnState(received={ORIGIN: 1, "asia/x": 2}))
    assert record.difference(publication).is_empty


def test_a_sibling_is_told_of_this_router_alone() -> None:
    """Each sibling hears every other itself; the counts of all origins are for it to pass on."""
    publication, record = Publication(REGION, "a", 1), WatcherRecord(None)
    publication.say(OwnState(received={ORIGIN: 1, "asia/x": 4}))
    publication.pass_on({"b": Slot("b", 1, 1, OwnState())})
    (slot,) = record.difference(publication).slots
    assert slot.writer == "a"
    assert {it.origin: it.requests for it in slot.received} == {ORIGIN: 1, "asia/x": 4}


def test_a_large_state_comes_in_parts() -> None:
    """One message holds about as much as it may, the next ones hold the rest."""
    publication, record, reception = (
        Publication(REGION, "a", 1),
        WatcherRecord(ORIGIN),
        Reception(""),
    )
    reception = Reception(REGION)
    pools = {f"organisation/a-model-with-a-long-name-{n}": PoolState(CAPACITY) for n in range(900)}
    slots = {f"r{n}": Slot(f"r{n}", 1, 1, OwnState(pools)) for n in range(20)}
    publication.pass_on(slots)
    parts = 0
    while not (difference := record.difference(publication)).is_empty:
        reception.receive(difference.slots, difference.gone_writers)
        assert sum(slot.ByteSize() for slot in difference.slots) < 512 * 1024
        parts += 1
    assert parts > 3
    assert reception.slots.keys() == {"a", *slots}


# What a peer may say


def test_slots_of_another_region_are_refused() -> None:
    """A region speaks for itself."""
    reception = Reception("asia")
    reception.receive([whole("a", OwnState())])
    assert (reception.slots, reception.refused) == ({}, 1)


@pytest.mark.parametrize("version", [(1, 5), (1, 4), (0, 9)])
def test_a_slot_replaces_only_an_older_one(version: tuple[int, int]) -> None:
    """What is as old, or older, changes nothing."""
    reception = Reception(REGION)
    before = OwnState({"m": PoolState(CAPACITY)})
    reception.receive([whole("a", before, version=(1, 5))])
    reception.receive([whole("a", OwnState(), version=version)])
    assert (reception.slots["a"].state, reception.refused) == (before, 1)


def test_a_difference_without_a_base_is_refused() -> None:
    """What has not changed since an unknown state is not known."""
    reception = Reception(REGION)
    message = whole("a", OwnState({"m": PoolState(CAPACITY)}))
    message.whole = False
    reception.receive([message])
    assert (reception.slots, reception.refused) == ({}, 1)


@pytest.mark.parametrize("field", [it.name for it in Capacity.DESCRIPTOR.fields])
def test_a_missing_number_is_not_zero(field: str) -> None:
    """A pool that lacks one is not known at all."""
    message = whole("a", OwnState({"m": PoolState(CAPACITY)}))
    message.pools[0].capacity.ClearField(field)
    reception = Reception(REGION)
    reception.receive([message])
    assert (reception.slots["a"].state.pools, reception.refused) == ({}, 1)


@pytest.mark.parametrize("field", [it.name for it in Capacity.DESCRIPTOR.fields])
def test_a_number_that_is_not_sane_is_not_believed(field: str) -> None:
    """A pool that has one is not known at all, and is forgotten if it was."""
    reception = Reception(REGION)
    reception.receive([whole("a", OwnState({"m": PoolState(CAPACITY)}))])
    message = whole("a", OwnState({"m": PoolState(CAPACITY)}), version=(1, 2))
    setattr(message.pools[0].capacity, field, 2**63)
    reception.receive([message])
    assert (reception.slots["a"].state.pools, reception.refused) == ({}, 1)


@pytest.mark.parametrize("model", ["", "a\nb", "x" * 254])
def test_a_name_that_is_none_is_refused(model: str) -> None:
    """Names go into logs and tables."""
    message = whole("a", OwnState({"m": PoolState(CAPACITY)}))
    message.pools[0].model = model
    reception = Reception(REGION)
    reception.receive([message])
    assert (reception.slots["a"].state.pools, reception.refused) == ({}, 1)


def test_what_is_too_much_is_left_out() -> None:
    """However much a peer says, a bounded part of it is kept."""
    pool = Pool()
    write_pool(pool, "m", PoolState(CAPACITY), with_adapters=True)
    pools = [Pool.FromString(pool.SerializeToString()) for _ in range(MOST_POOLS + 10)]
    for number, it in enumerate(pools):
        it.model = f"m{number}"
    messages = [SlotMessage(writer=f"r{n}", whole=True) for n in range(MOST_WRITERS + 5)]
    messages[0].pools.extend(pools)
    messages[0].heads.keys.extend(range(MOST_HEADS + 1))
    messages[1].pools.add().CopyFrom(pool)
    messages[1].pools[0].adapters.any = False
    messages[1].pools[0].adapters.names.extend(f"x{n}" for n in range(MOST_ADAPTERS + 1))
    reception = Reception(REGION)
    reception.receive(messages)
    assert len(reception.slots) == MOST_WRITERS
    assert len(reception.slots["r0"].state.pools) == MOST_POOLS
    assert len(reception.slots["r0"].state.heads) == MOST_HEADS
    assert reception.slots["r1"].state.pools == {}
    assert reception.refused == 10 + 5 + 1


def adapters_of(count: int, number: int = 0) -> PoolState:
    """A pool with so many adapters of its own."""
    return PoolState(replace(CAPACITY, adapters=frozenset(f"{number}-{n}" for n in range(count))))


def test_adapters_are_counted_over_all_pools() -> None:
    """However a peer spreads them over its pools and messages, no more names are kept."""
    reception = Reception(REGION)
    share = MOST_ADAPTERS // 4
    state = OwnState({f"m{n}": adapters_of(share, n) for n in range(6)})
    reception.receive([whole("a", state)])
    assert (reception.refused, len(reception.slots["a"].state.pools)) == (2, 4)
    more = slot_message(Slot("a", 1, 2, OwnState({"x": adapters_of(1)})), None, REGION)
    more.whole = False
    reception.receive([more])
    assert (reception.refused, len(reception.slots["a"].state.pools)) == (3, 4)


def test_adapters_may_move_from_pool_to_pool() -> None:
    """What one pool gets and another gives up in one message is never too much."""
    most, less = adapters_of(MOST_ADAPTERS - 10), adapters_of(10, 1)
    publication, record, reception = (
        Publication(REGION, "a", 1),
        WatcherRecord(ORIGIN),
        Reception(REGION),
    )
    for first, second in ((less, most), (most, less), (less, most)):
        publication.say(OwnState({"m": first, "n": second}))
        receive(reception, over_the_wire(record, publication))
        state = reception.slots["a"].state
        assert (reception.refused, state) == (0, publication.own.state)


def test_models_of_no_use_are_left_out() -> None:
    """Of them nothing is kept but a bounded number of their names."""
    reception = Reception(REGION, use=lambda model: model == "m")
    pools = {f"x{n}": adapters_of(5, n) for n in range(MOST_POOLS - 1)}
    for writer in ("a", "b"):
        reception.receive([whole(writer, OwnState(pools | {"m": PoolState(CAPACITY)}))])
        pools = {f"y{n}": pool for n, pool in enumerate(pools.values())}
    assert [list(slot.state.pools) for slot in reception.slots.values()] == [["m"], ["m"]]
    assert (reception.refused, len(reception.left_out)) == (0, MOST_POOLS)


def test_keys_of_another_scheme_mean_nothing() -> None:
    """The prefixes of a peer that hashes otherwise are left out; its pools are not."""
    reception = Reception(REGION, heads=False)
    reception.receive([whole("a", OwnState({"m": PoolState(CAPACITY)}, heads=(1, 2)))])
    assert reception.slots["a"].state == OwnState({"m": PoolState(CAPACITY)})


@given(st.binary(max_size=200))
def test_no_bytes_break_a_reception(data: bytes) -> None:
    """Whatever comes is read or refused."""
    message = SlotMessage()
    try:
        message.MergeFromString(data)
    except Exception:
        return
    reception = Reception(REGION)
    reception.receive([message, message])
    assert len(reception.slots) <= 1

"""What the routers of one region relay: as messages, and in queues that are bounded."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.federation.relay import Relay, RelayQueue, scrape_owner
from heliostat_extproc.federation.relay_wire import RelayError, parse_relayed, relayed_message
from heliostat_extproc.federation.slots import RelayedEvent
from heliostat_extproc.federation.state_pb2 import Relayed
from heliostat_extproc.federation.state_pb2 import ScrapeFailed as ScrapeFailedMessage
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    EndpointLearned,
    EngineMetrics,
    MetricsScraped,
    Outcome,
    PoolLearned,
    PrefixesKnown,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
)
from heliostat_routing.learned import LineSamples, TokenSamples

SIBLING = "gateway-2"
TICKETS = st.integers(0, 2**63)
KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=5).map(tuple)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
COUNTS = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e6)
REQUESTS = st.builds(
    RequestArrived,
    ticket=TICKETS,
    pool=NAMES,
    block_keys=KEYS,
    prompt_bytes=COUNTS,
    max_output_tokens=st.none() | COUNTS,
    adapter=st.none() | NAMES,
    affinity_key=st.integers(0, 2**64 - 1),
    origin=st.none() | NAMES,
    hold_seconds=st.none() | SECONDS,
    residency=st.none() | st.frozensets(NAMES),
)
MEASURED = st.builds(
    RequestMeasured,
    ticket=TICKETS,
    endpoint=st.none() | NAMES,
    outcome=st.sampled_from(Outcome),
    ttft_seconds=st.none() | SECONDS,
    duration_seconds=st.none() | SECONDS,
    prompt_tokens=st.none() | COUNTS,
    cached_tokens=st.none() | COUNTS,
    output_tokens=st.none() | COUNTS,
    output_bytes=st.none() | COUNTS,
)
TOLD = st.one_of(
    st.builds(AttemptStarted, TICKETS, NAMES),
    st.builds(AttemptFailed, TICKETS, NAMES),
    st.builds(RequestFinished, TICKETS),
    MEASURED,
)
METRICS = st.builds(
    EngineMetrics,
    running_requests=COUNTS,
    waiting_requests=COUNTS,
    kv_cache_utilization=st.floats(0, 1),
    finished_requests=COUNTS,
    prompt_tokens=COUNTS,
    generation_tokens=COUNTS,
    prefix_query_tokens=st.none() | COUNTS,
    prefix_hit_tokens=st.none() | COUNTS,
    first_tokens=st.none() | COUNTS,
    kv_capacity_tokens=st.none() | COUNTS,
    started_milliseconds=st.none() | COUNTS,
)
HELD = st.lists(st.tuples(NAMES, SECONDS), max_size=3).map(tuple)
QUEUES = st.lists(
    st.builds(SiblingQueue, NAMES, COUNTS, st.none() | SECONDS, HELD), max_size=3
).map(tuple)
LINES = st.builds(LineSamples, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
TOKENS = st.builds(TokenSamples, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
EVENTS = st.one_of(
    st.builds(SiblingSent, st.just(SIBLING), REQUESTS, NAMES, SECONDS),
    st.builds(SiblingTold, st.just(SIBLING), TOLD),
    st.builds(SiblingQueues, st.just(SIBLING), QUEUES),
    st.builds(MetricsScraped, NAMES, METRICS),
    st.builds(ScrapeFailed, NAMES),
    st.builds(PrefixesKnown, NAMES, KEYS, SECONDS),
    st.builds(PoolLearned, NAMES, LINES, LINES, TOKENS, SECONDS, SECONDS),
    st.builds(EndpointLearned, NAMES, LINES, SECONDS),
)


@given(EVENTS)
def test_an_event_is_the_same_on_the_other_side(event: RelayedEvent) -> None:
    """Siblings' cores are told exactly what this one was."""
    message = Relayed.FromString(relayed_message(event).SerializeToString())
    assert parse_relayed(message, SIBLING) == event


@pytest.mark.parametrize(
    "message",
    [
        Relayed(scrape_failed=ScrapeFailedMessage(endpoint="")),
        relayed_message(PrefixesKnown("e", (1,), float("nan"))),
        relayed_message(SiblingSent(SIBLING, RequestArrived(1, "p", (), 1), "e", -1.0)),
        relayed_message(EndpointLearned("e", LineSamples(1.0, -1.0, 1.0, 1.0, 1.0), 0.0)),
    ],
)
def test_what_makes_no_sense_is_no_event(message: Relayed) -> None:
    """A sibling's fault does not reach the core."""
    with pytest.raises(RelayError):
        parse_relayed(message, SIBLING)


def test_an_event_of_an_unknown_kind_is_passed_over() -> None:
    """A newer sibling may tell more."""
    unknown = Relayed.FromString(b"\xaa\x06\x03new")
    assert parse_relayed(unknown, SIBLING) is None


@given(st.binary(max_size=100))
def test_no_bytes_break_the_reading(data: bytes) -> None:
    """Whatever comes is an event, is passed over, or is refused."""
    message = Relayed()
    try:
        message.MergeFromString(data)
    except Exception:
        return
    try:
        parse_relayed(message, SIBLING)
    except RelayError:
        return


# The queues


def failed(name: str) -> ScrapeFailed:
    return ScrapeFailed(name)


def names(batch: Iterable[Relayed]) -> list[str]:
    return [message.scrape_failed.endpoint for message in batch]


def test_a_queue_begins_with_everything() -> None:
    """A sibling that has just come is told all that is open, then what happens."""
    world = ["a", "b"]
    relay = Relay(lambda: [failed(name) for name in world], lambda: None)
    queue = relay.open()
    relay.put(failed("b"))
    assert queue.has_more
    anew, batch = queue.take()
    assert (anew, names(batch)) == (True, ["a", "b"])
    relay.put(failed("c"))
    anew, batch = queue.take()
    assert (anew, names(batch), queue.has_more) == (False, ["c"], False)


def test_a_queue_that_overflows_begins_anew() -> None:
    """A sibling that is too slow is told the newest whole, and costs bounded memory."""
    message = relayed_message(failed("x" * 100))
    queue = RelayQueue(lambda: [failed("all")], most_bytes=1000)
    queue.take()
    for _ in range(1000):
        queue.put(message, message.ByteSize())
    anew, batch = queue.take()
    assert (anew, names(batch), queue.overflows) == (True, ["all"], 1)


def test_a_large_snapshot_comes_in_batches() -> None:
    """No message is larger than the other side takes; what happens meanwhile comes behind."""
    events = [PrefixesKnown(f"e{n}", tuple(range(1000)), 0.0) for n in range(200)]
    queue = RelayQueue(lambda: events)
    anew, batch = queue.take()
    assert anew
    last = relayed_message(failed("last"))
    queue.put(last, last.ByteSize())
    batches = [batch]
    while queue.has_more:
        anew, batch = queue.take()
        assert not anew
        batches.append(batch)
    assert len(batches) > 3
    assert max(sum(it.ByteSize() for it in batch) for batch in batches) < 512 * 1024
    assert sum(len(batch) for batch in batches) == 201
    assert names(batches[-1])[-1] == "last"


def test_events_that_come_together_are_flushed_together() -> None:
    """The first of a batch asks for the flush, and the first after it for the next."""
    flushes: list[None] = []
    relay = Relay(list, lambda: flushes.append(None))
    relay.put(failed("nobody watches"))
    relay.open()
    relay.put(failed("a"))
    relay.put(failed("b"))
    assert len(flushes) == 1
    relay.on_flushed()
    relay.put(failed("c"))
    assert len(flushes) == 2


# Who scrapes


def test_routers_that_know_each_other_agree_who_scrapes() -> None:
    """The order in which a router knows the others does not matter, and each gets its share."""
    addresses = [f"10.0.{n // 250}.{n % 250}:8000" for n in range(3000)]
    routers = ["a", "b", "c"]
    owners = [scrape_owner(address, routers) for address in addresses]
    assert owners == [scrape_owner(address, reversed(routers)) for address in addresses]
    assert all(900 < owners.count(router) < 1100 for router in routers)


def test_only_a_lost_routers_endpoints_change_hands() -> None:
    """Whoever stays keeps what it has."""
    addresses = [f"10.0.0.{n}:8000" for n in range(200)]
    for address in addresses:
        before = scrape_owner(address, ["a", "b", "c"])
        if before != "b":
            assert scrape_owner(address, ["a", "c"]) == before

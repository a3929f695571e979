"""Which regions a request may go to, whatever it would gain there: rules, prices and adapters."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import Enqueue, Forward, Reject, RejectReason
from heliostat_routing.events import (
    Event,
    ForwardRefused,
    PeerLost,
    PeerSettings,
    PeersUpdated,
    PoolUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    Tick,
)
from heliostat_routing.residency import allows
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PoolSettings
from tests.routing.playbook import Playbook, target
from tests.routing.test_regions import FULL, IDLE, World, other, sent

EU = frozenset({"eu"})


def met(book: World, *peers: PeerSettings) -> World:
    """These are the peers, and all are idle."""
    book.tell(PeersUpdated(peers))
    for peer in peers:
        book.state(peer.region)
    return book


# Residency


@pytest.mark.parametrize(
    ("residency", "allowed"),
    [
        (None, True),
        (frozenset({"west"}), True),
        (frozenset({"east", "eu"}), True),
        (frozenset({"east"}), False),
        (frozenset(), False),
    ],
)
def test_a_rule_names_regions_and_groups(residency: frozenset[str] | None, allowed: bool) -> None:
    """A region may serve what names it or one of its groups; no rule names every region."""
    assert allows(residency, "west", EU) is allowed


@pytest.mark.parametrize("of_pool", [None, EU, frozenset({"asia"})])
@pytest.mark.parametrize("of_request", [None, EU, frozenset({"asia"})])
def test_both_rules_must_allow_a_region(
    of_pool: frozenset[str] | None, of_request: frozenset[str] | None
) -> None:
    """What the pool or the request forbids is no candidate, though nothing serves here."""
    book = met(World(0, residency=of_pool), PeerSettings("west", 0.1, EU))
    commands = book.arrive(1, other(1), residency=of_request)
    allowed = all(allows(rule, "west", EU) for rule in (of_pool, of_request))
    assert sent(commands) == ({1: "west"} if allowed else {})
    if not allowed:
        assert commands == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


def test_an_allowed_region_is_found_among_many_that_are_not() -> None:
    """However many nearer regions a request must not go to, it finds the one that it may go to."""
    near = [PeerSettings(f"near-{number}", 0.01) for number in range(20)]
    book = met(World(0), *near, PeerSettings("far", 0.3, EU))
    assert sent(book.arrive(1, other(1), residency=EU)) == {1: "far"}


def test_a_request_does_not_wait_for_a_region_that_it_may_not_go_to() -> None:
    """A region that is expected to speak is of no use to what it must not serve."""
    book = World(0, residency=EU)
    book.tell(PeersUpdated((PeerSettings("west", 0.1),)))
    assert book.arrive(1) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


# Sends and serves


def test_a_pool_that_does_not_send_keeps_its_requests() -> None:
    """Neither arrivals nor queued requests leave, and none waits for a region."""
    book = met(World(1, sends=False), PeerSettings("west", 0.1))
    book.busy()
    assert isinstance(book.arrive(1, other(1))[0], Enqueue)
    assert sent(book.state("west", after=0.1)) == {}
    book = met(World(0, sends=False), PeerSettings("west", 0.1))
    assert book.arrive(1) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


def test_a_pool_that_serves_no_peers_is_not_told_of() -> None:
    """It is in no state, serves its own, and gives back what a peer sends all the same."""
    book = Playbook(1, serves=False)
    assert book.router.capacities(0.0) == ()
    assert target(book.arrive(1)) == "e0"
    commands = book.arrive(2, origin="west", hold_seconds=5.0)
    assert commands == [Reject(2, RejectReason.NOT_SERVED_FOR_PEERS, 1.0)]
    assert book.router.received == {"west": 1}
    assert len(book.router.ledger) == 1


# Prices


def test_egress_is_paid_in_engine_seconds() -> None:
    """A GiB for the price of an engine hour costs an hour; the explanation has it as a term."""
    gib = PeerSettings("west", 0.1, price_per_gib=2.0)
    book = met(World(0, engine_price_per_hour=2.0), gib)
    (command,) = book.arrive(1, other(1), max_output_tokens=100)
    assert isinstance(command, Forward)
    candidate = command.explanation.candidates[0]
    assert candidate.egress_seconds == pytest.approx(3600 * (5120 + 100 * 250) / 2**30)
    assert candidate.cost_seconds == pytest.approx(0.101 + 1.0 + candidate.egress_seconds)


def test_the_cheaper_link_wins_and_a_dear_one_keeps_requests_at_home() -> None:
    """Of equal regions the one with cheaper traffic is chosen; what costs more than it gains, none.

    Staying costs 4 s here; 5 KB and an answer of 200 tokens at 100,000 a GiB cost 9,000 s.
    """
    book = World(1)
    book.busy()
    met(book, PeerSettings("dear", 0.1, price_per_gib=1e5))
    assert sent(book.arrive(1, other(1))) == {}
    met(
        book,
        PeerSettings("dear", 0.1, price_per_gib=20.0),
        PeerSettings("fair", 0.1, price_per_gib=1.0),
    )
    assert sent(book.arrive(2, other(2))) == {2: "fair"}


def test_where_nothing_serves_here_every_wait_is_long_enough() -> None:
    """A region without endpoints forwards, whatever the peers are for."""
    book = met(World(0), PeerSettings("west", 0.1, leave_above_seconds=1e9))
    assert sent(book.arrive(1)) == {1: "west"}


# Adapters


@pytest.mark.parametrize(
    ("adapters", "adapter", "goes"),
    [
        (None, "law", True),
        (frozenset({"law"}), "law", True),
        (frozenset({"med"}), "law", False),
        (frozenset(), "law", False),
        (frozenset(), None, True),
    ],
)
def test_a_request_for_an_adapter_goes_where_some_endpoint_takes_it(
    adapters: frozenset[str] | None, adapter: str | None, goes: bool
) -> None:
    """Others would only give it back."""
    book = World(0, "west")
    book.state("west", replace(IDLE, adapters=adapters))
    assert bool(sent(book.arrive(1, adapter=adapter))) is goes


def test_a_region_tells_which_adapters_its_ready_endpoints_take() -> None:
    """An endpoint that takes any makes it any; one that drains has no say."""
    some = EndpointSettings("e0", adapters=frozenset({"law"}))
    more = EndpointSettings("e1", adapters=frozenset({"med"}))
    book = Playbook((some, more))
    assert dict(book.router.capacities(0.0))["p"].adapters == {"law", "med"}
    book.update(some, replace(more, phase=EndpointPhase.DRAINING))
    assert dict(book.router.capacities(0.0))["p"].adapters == {"law"}
    book.update(some, EndpointSettings("e2"))
    assert dict(book.router.capacities(0.0))["p"].adapters is None


# Whatever happens

GROUPS = ["eu", "us"]
PLACES = ["west", "east", "south", "north", "up", "down"]
RULES = st.none() | st.frozensets(st.sampled_from([*GROUPS, *PLACES]), max_size=3)
POOL = st.builds(
    PoolSettings,
    sends=st.sampled_from([True, True, True, False]),
    residency=RULES,
    engine_price_per_hour=st.sampled_from([0.0, 2.0]),
    prefill_tokens_per_second=st.sampled_from([50.0, 5000.0]),
)
PEER = st.builds(
    PeerSettings,
    region=st.sampled_from(PLACES),
    round_trip_seconds=st.sampled_from([0.0, 0.1]),
    groups=st.frozensets(st.sampled_from(GROUPS)),
    price_per_gib=st.sampled_from([0.0, 1.0]),
    leave_above_seconds=st.sampled_from([0.0, 0.0, 1.0]),
)
CAPACITY: st.SearchStrategy[PoolCapacity] = st.sampled_from([IDLE, FULL])
STEPS = st.one_of(
    st.builds(
        PoolUpdated,
        st.just("p"),
        POOL,
        st.sampled_from([(), (EndpointSettings("e0"),)]),
    ),
    st.builds(PeersUpdated, st.lists(PEER, unique_by=lambda peer: peer.region).map(tuple)),
    st.builds(
        RegionStateReceived,
        st.sampled_from(PLACES),
        st.just("w"),
        CAPACITY.map(lambda capacity: (("p", capacity),)),
        st.integers(0, 9),
    ),
    st.builds(
        RequestArrived,
        st.just(0),
        st.just("p"),
        st.sampled_from([other(1), other(2), ()]),
        st.just(5120),
        origin=st.sampled_from([None, None, None, "west"]),
        residency=RULES,
    ),
    st.builds(ForwardRefused, st.integers(0, 30), st.sampled_from(PLACES)),
    st.builds(PeerLost, st.sampled_from(PLACES)),
    st.builds(RequestFinished, st.integers(0, 30)),
    st.just(Tick()),
)


MEETING = st.lists(PEER, min_size=1, unique_by=lambda peer: peer.region).map(tuple)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(POOL, MEETING, st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.7]), STEPS), max_size=40))
def test_no_request_ever_goes_where_a_rule_forbids(
    pool: PoolSettings, peers: tuple[PeerSettings, ...], steps: list[tuple[float, Event]]
) -> None:
    """Whatever the settings, states and losses, each forward is allowed by both rules."""
    router, now = Router(), 0.0
    groups: dict[str, frozenset[str]] = {}
    requests: dict[int, RequestArrived] = {}
    meeting: list[Event] = [PoolUpdated("p", pool, ()), PeersUpdated(peers)]
    meeting += [RegionStateReceived(peer.region, "w", (("p", IDLE),), 0) for peer in peers]
    for seconds, event in [*((0.0, event) for event in meeting), *steps]:
        now += seconds
        match event:
            case RequestArrived():
                event = replace(event, ticket=len(requests))
                requests[event.ticket] = event
            case PoolUpdated():
                pool = event.settings
            case PeersUpdated(peers):
                groups = {peer.region: peer.groups for peer in peers}
        for command in router.handle(event, now):
            if isinstance(command, Forward):
                request, region = requests[command.ticket], command.region
                assert pool.sends
                assert request.origin is None
                assert allows(pool.residency, region, groups[region])
                assert allows(request.residency, region, groups[region])

"""On which terms requests leave for other regions: residency, mode, price, patience, trust."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_routing.commands import Command, Dispatch, Forward, Reject, RejectReason
from heliostat_routing.events import (
    ForwardRefused,
    ForwardTurnedAway,
    Outcome,
    PeerLost,
    PeerSettings,
    PeersUpdated,
    RegionStateReceived,
    RequestFinished,
    RequestMeasured,
)
from heliostat_routing.peers import MOST_FORWARDS
from heliostat_routing.residency import allows
from heliostat_routing.standing import FIRST_BUDGET, TRIALS
from tests.routing.playbook import target
from tests.routing.test_regions import FULL, IDLE, ROUND_TRIP_SECONDS, World, other, sent

REGIONS = ("eu", "us", "asia")
GROUPS = {
    "eu": frozenset({"gdpr"}),
    "us": frozenset({"west", "gdpr"}),
    "asia": frozenset[str](),
}
names = st.sampled_from((*REGIONS, "gdpr", "west", "moon"))
rules = st.none() | st.frozensets(names, min_size=1, max_size=3)


def declare(book: World, *peers: PeerSettings) -> None:
    book.tell(PeersUpdated(peers))


def outcomes(commands: list[Command], ticket: int) -> list[Command]:
    return [it for it in commands if getattr(it, "ticket", None) == ticket]


@settings(max_examples=150)
@given(
    pool_rule=rules,
    sends=st.booleans(),
    asks=st.lists(st.tuples(rules, st.booleans(), st.sampled_from((*REGIONS, None))), max_size=12),
    said=st.lists(st.tuples(st.sampled_from(REGIONS), st.booleans()), min_size=1, max_size=6),
)
def test_no_request_ever_goes_where_a_rule_forbids(
    pool_rule: frozenset[str] | None,
    sends: bool,
    asks: list[tuple[frozenset[str] | None, bool, str | None]],
    said: list[tuple[str, bool]],
) -> None:
    """Pool's rule, request's rule, mode and one hop hold whatever regions promise and refuse."""
    book = World(1, residency=pool_rule, sends=sends)
    declare(book, *(PeerSettings(r, ROUND_TRIP_SECONDS, groups=GROUPS[r]) for r in REGIONS))
    rule_of: dict[int, frozenset[str] | None] = {}
    from_peer = set[int]()

    def check(commands: list[Command]) -> None:
        for ticket, region in sent(commands).items():
            assert sends
            assert ticket not in from_peer
            assert allows(pool_rule, region, GROUPS[region])
            assert allows(rule_of[ticket], region, GROUPS[region])
            refused.append((ticket, region))

    refused: list[tuple[int, str]] = []
    book.busy(1000)
    for ticket in range(1000, 1001):
        rule_of[ticket] = None
    for number, (rule, forwarded, refusing) in enumerate(asks):
        rule_of[number] = rule
        if forwarded:
            from_peer.add(number)
        for region, free in said:
            check(book.state(region, IDLE if free else FULL))
        origin = "eu/gw" if forwarded else None
        check(book.arrive(number, other(number), after=0.01, residency=rule, origin=origin))
        for ticket, region in list(refused):
            if region == refusing:
                refused.remove((ticket, region))
                check(book.tell(ForwardRefused(ticket, region), 0.1))


@pytest.mark.parametrize(("price", "leaves"), [(0.0, True), (1.0, True), (1e6, False)])
def test_a_way_that_costs_more_than_it_saves_is_not_taken(price: float, leaves: bool) -> None:
    """The price of the way is weighed against the time of an engine that it would buy."""
    book = World(1)
    declare(book, PeerSettings("west", ROUND_TRIP_SECONDS, price_per_gib=price))
    book.busy()
    book.state("west")
    assert (sent(book.arrive(1, other(1))) == {1: "west"}) is leaves


def test_the_price_is_in_the_explanation() -> None:
    """Whoever asks why a request left sees what the way cost."""
    book = World(1, engine_price_per_hour=3600.0)
    declare(book, PeerSettings("west", ROUND_TRIP_SECONDS, price_per_gib=1.0))
    book.busy()
    book.state("west")
    (forward,) = [it for it in book.arrive(1, other(1)) if isinstance(it, Forward)]
    candidate = forward.explanation.candidates[0]
    bytes_both_ways = candidate.egress_seconds * 2**30
    assert 5120 < bytes_both_ways < 1_000_000
    others = (
        candidate.network_seconds
        + candidate.wait_seconds
        + candidate.prefill_seconds
        + candidate.burden_seconds
    )
    assert candidate.cost_seconds == pytest.approx(others + candidate.egress_seconds)


@pytest.mark.parametrize(("above", "leaves"), [(0.5, True), (1.5, False)])
def test_a_peer_for_long_waits_only_gets_none_that_wait_less(above: float, leaves: bool) -> None:
    """The wait here is a second: a peer for waits above that is no candidate."""
    book = World(1)
    declare(book, PeerSettings("west", ROUND_TRIP_SECONDS, leave_above_seconds=above))
    book.busy()
    book.state("west")
    assert (sent(book.arrive(1, other(1))) == {1: "west"}) is leaves


def test_a_pool_that_serves_no_others_says_nothing_and_turns_them_away() -> None:
    """Mode Send: the pool is in no state, and what a peer sends all the same goes back."""
    book = World(1, serves=False)
    assert book.router.capacities(book.now) == ()
    (reject,) = outcomes(book.arrive(1, other(1), origin="eu/gw"), 1)
    assert isinstance(reject, Reject)
    assert reject.reason is RejectReason.NOT_SERVED_FOR_PEERS
    assert target(book.arrive(2, other(2))) == "e0"


def test_an_adapter_goes_only_where_it_is_served() -> None:
    """A region that does not have the request's adapter is no candidate."""
    book = World(1, "west", "east")
    book.busy()
    book.state("west", replace(IDLE, adapters=frozenset({"other"})))
    book.state("east", replace(IDLE, adapters=frozenset({"lora"})))
    assert sent(book.arrive(1, other(1), adapter="lora")) == {1: "east"}


def test_a_region_that_is_lost_gets_nothing_until_it_speaks() -> None:
    """From the loss on the region is no candidate; its next state makes it one."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.tell(PeerLost("west"))
    assert sent(book.arrive(1, other(1))) == {}
    commands = book.state("west", after=ROUND_TRIP_SECONDS + 0.01)
    assert sent(commands) == {1: "west"}


def test_a_region_that_lies_costs_a_bounded_number_of_tries() -> None:
    """It promises free slots and refuses all: few requests a second find that out, none is lost."""
    book = World(1, "liar", queue_limit=100_000, queue_timeout_seconds=1000.0)
    tickets, tries, under_way = count(1), 0, list[tuple[float, int]]()
    book.busy(10**6)
    ended = set[int]()

    def take(commands: list[Command]) -> None:
        nonlocal tries
        for ticket in sent(commands):
            tries += 1
            under_way.append((book.now + ROUND_TRIP_SECONDS, ticket))
        ended.update(it.ticket for it in commands if isinstance(it, Dispatch | Reject))

    seconds, step = 20.0, 0.01
    for _ in range(int(seconds / step)):
        take(book.state("liar", IDLE, after=step))
        take(book.arrive(next(tickets), other(1)))
        while under_way and under_way[0][0] <= book.now:
            take(book.tell(ForwardRefused(under_way.pop(0)[1], "liar")))
    assert FIRST_BUDGET / 2 < tries < 60
    (view,) = book.router.peer_views(book.now)
    assert view.forwarded == tries
    assert view.refused == tries - len(under_way)
    assert not any(isinstance(it, Reject) for it in ended)


def test_a_region_that_serves_again_is_trusted_again() -> None:
    """One request that it serves ends the backoff that its refusals had grown."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    ticket = 1
    for _ in range(3):
        book.arrive(ticket, other(ticket))
        book.tell(ForwardRefused(ticket, "west"), ROUND_TRIP_SECONDS)
        ticket += 1
        while not book.router.peer_views(book.now)[0].usable:
            book.state("west", after=0.05)
    book.forward(ticket, "west")
    book.tell(RequestFinished(ticket))
    book.tell(RequestMeasured(ticket, "region/west", Outcome.SERVED))
    book.state("west", replace(IDLE, free=100), received=1)
    for extra in range(2 * TRIALS):
        book.forward(ticket + 1 + extra, "west")


def test_a_request_is_sent_away_a_few_times_only() -> None:
    """However many regions refuse it, it comes home for good."""
    regions = [f"r{number}" for number in range(MOST_FORWARDS + 4)]
    book = World(1, *regions)
    book.busy()
    for region in regions:
        book.state(region)
    commands, tries = book.arrive(1, other(1)), 0
    while forwards := sent(commands):
        tries += 1
        for region in regions:
            book.state(region)
        commands = book.tell(ForwardRefused(1, forwards[1]), 0.01)
    assert tries == MOST_FORWARDS


def test_heads_choose_among_regions_that_cost_the_same() -> None:
    """A system prompt that is hot there may be cached there; no cost is built on that."""
    book = World(1, "east", "west", "south")
    book.busy()
    prompt = other(7)
    for region in ("east", "west", "south"):
        heads = (prompt[7],) if region == "west" else ()
        book.tell(RegionStateReceived(region, "w", (("p", IDLE),), 0, heads=heads))
    (forward,) = [it for it in book.arrive(1, prompt) if isinstance(it, Forward)]
    assert forward.region == "west"
    assert forward.explanation.candidates[0].cached_tokens == 0


def test_what_was_turned_away_at_the_door_is_counted_as_received() -> None:
    """The origin learns that its request is on its way no more, however it was answered."""
    book = World(1)
    book.arrive(1, other(1), origin="eu/gw")
    book.tell(ForwardTurnedAway("eu/gw"))
    assert dict(book.router.received) == {"eu/gw": 2}


def test_a_request_of_one_who_cannot_forward_stays() -> None:
    """However idle another region is."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    assert sent(book.arrive(1, other(1), may_leave=False)) == {}
    book.forward(2, "west")

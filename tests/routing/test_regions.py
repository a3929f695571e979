"""Other regions: who is sent there, what stands in for a state that is late, and who comes back."""

from dataclasses import replace

import pytest

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import (
    Command,
    Dispatch,
    Enqueue,
    Evict,
    EvictReason,
    Forward,
    Reject,
    RejectReason,
    WakeAt,
)
from heliostat_routing.dispatcher import OFFER_SECONDS
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    ForwardRefused,
    ForwardTurnedAway,
    Outcome,
    PeerSettings,
    PeersUpdated,
    PoolRemoved,
    PoolUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
)
from heliostat_routing.peer import STATE_LIMIT_SECONDS
from heliostat_routing.receipts import MOST_ROUTERS
from heliostat_routing.settings import EndpointSettings, PolicyName, PoolSettings
from heliostat_routing.transit import LOST_SECONDS
from tests.routing.playbook import Playbook, target, targets

RATE = 1280.0
"""Prefills the ten blocks of a prompt in one second."""
ROUND_TRIP_SECONDS = 0.1
NETWORK_SECONDS = PoolSettings().network_seconds
IDLE = PoolCapacity(
    free=4,
    room=1000,
    queued=0,
    start_seconds=0.5,
    finish_seconds=1.0,
    load=0.0,
    prefill_tokens_per_second=RATE,
    kv_capacity_tokens=1_000_000,
)
FULL = replace(IDLE, free=0, queued=10_000)


def other(group: int) -> tuple[int, ...]:
    """A prompt of ten blocks that shares nothing with the others."""
    return tuple(group * 1000 + number for number in range(10))


class World(Playbook):
    """A region's router, and what other regions say to it."""

    def __init__(self, endpoints: int, *regions: str, **settings: object) -> None:
        super().__init__(endpoints, **{"prefill_tokens_per_second": RATE, **settings})
        self.peers(*regions)

    def peers(self, *regions: str, round_trip_seconds: float = ROUND_TRIP_SECONDS) -> None:
        """These are the other regions."""
        self.tell(PeersUpdated(tuple(PeerSettings(r, round_trip_seconds) for r in regions)))

    def state(
        self,
        region: str,
        capacity: PoolCapacity | None = IDLE,
        received: int = 0,
        after: float = 0.0,
        writer: str = "w",
        **fields: float,
    ) -> list[Command]:
        """A router of a region tells what its pool could take; None: it has no such pool."""
        pools = () if capacity is None else (("p", capacity),)
        return self.tell(RegionStateReceived(region, writer, pools, received, **fields), after)

    def forward(self, ticket: int, region: str) -> None:
        """A request arrives and goes there."""
        assert sent(self.arrive(ticket, other(ticket))) == {ticket: region}

    def busy(self, first: int = 100) -> None:
        """Give every endpoint a second's prefill."""
        for slot in range(len(self.router.views(self.now)[0].endpoints)):
            assert target(self.arrive(first + slot, other(first + slot))) is not None


def sent(commands: list[Command]) -> dict[int, str]:
    """The region that each forwarded request goes to, by ticket."""
    return {c.ticket: c.region for c in commands if isinstance(c, Forward)}


# Which costs less


def test_an_idle_endpoint_here_is_cheaper_than_an_idle_region() -> None:
    """What is equal but for the round trip stays."""
    book = World(1, "west")
    book.state("west")
    assert target(book.arrive(1, other(1))) == "e0"


@pytest.mark.parametrize(("round_trip_seconds", "leaves"), [(2.5, True), (2.8, False)])
def test_a_request_leaves_where_all_in_all_that_takes_less(
    round_trip_seconds: float, leaves: bool
) -> None:
    """A wait and a burden here are weighed against the way to an idle region.

    Here it costs a second's wait, a second's prefill, and both for the request in flight: the
    prefill, and that the first token comes a second past the objective. That is 4 s; there it is
    the prefill and the way, which must be better by a tenth.
    """
    book = World(1, "west")
    book.peers("west", round_trip_seconds=round_trip_seconds)
    book.busy()
    book.state("west", round_trip_seconds=round_trip_seconds)
    commands = book.arrive(1, other(1))
    assert (sent(commands) == {1: "west"}) is leaves
    assert any(isinstance(c, Enqueue) for c in commands) is not leaves


def test_a_free_endpoint_here_has_no_precedence() -> None:
    """A region that holds the prompt serves the next turn, though an endpoint here is idle."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    assert sent(book.arrive(1, other(1))) == {1: "west"}
    book.tell(RequestFinished(100), after=1.2)
    book.state("west", received=1)
    assert dict(book.router.capacities(book.now))["p"].free == 1
    assert sent(book.arrive(2, other(1))) == {2: "west"}
    assert target(book.arrive(3, other(3))) == "e0"


def test_the_cheapest_region_wins() -> None:
    """Of two regions the one with the shorter way and wait is chosen, and explained."""
    book = World(1, "west", "east")
    book.busy()
    book.state("west", replace(IDLE, free=0))
    book.state("east")
    (command,) = book.arrive(1, other(1))
    assert isinstance(command, Forward)
    assert command.region == "east"
    assert command.explanation.winner == "region/east"
    winner = command.explanation.candidates[0]
    assert winner.cost_seconds == pytest.approx(ROUND_TRIP_SECONDS + NETWORK_SECONDS + 1.0)


def test_a_region_next_door_gets_nothing_that_is_served_as_well_here() -> None:
    """There the request would have a way from the gateway to an engine before it, too."""
    book = World(1)
    book.tell(PeersUpdated((PeerSettings("west", 0.0),)))
    book.state("west")
    (command,) = book.arrive(1, other(1))
    assert isinstance(command, Dispatch)


def test_a_region_that_has_lost_the_wait_advantage_gets_nothing() -> None:
    """With the region fuller than here, requests wait here."""
    book = World(1, "west")
    book.busy()
    book.state("west", FULL)
    assert sent(book.arrive(1, other(1))) == {}


@pytest.mark.parametrize("policy", [p for p in PolicyName if p is not PolicyName.HELIOSTAT])
def test_the_reference_policies_know_one_region(policy: PolicyName) -> None:
    """They neither forward nor hold requests for the sake of another region."""
    book = World(0, "west", policy=policy)
    book.state("west")
    assert book.arrive(1) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


# A region that cannot be judged


def test_a_region_without_a_state_is_no_candidate() -> None:
    """Missing is not zero: nothing is known of it, so nothing goes there."""
    book = World(1, "west")
    book.busy()
    assert sent(book.arrive(1, other(1))) == {}


def test_a_region_whose_state_is_too_old_is_no_candidate() -> None:
    """Its state counts for half a second and its way, and no longer."""
    book = World(1, "west")
    limit = STATE_LIMIT_SECONDS + ROUND_TRIP_SECONDS
    book.tick(10.0 - limit - 0.01)
    book.state("west")
    book.tick(limit + 0.005)
    book.busy()
    assert sent(book.arrive(1, other(1))) == {}
    assert sent(book.state("west", after=0.01)) == {1: "west"}


@pytest.mark.parametrize(
    "capacity",
    [
        None,
        replace(IDLE, kv_capacity_tokens=0),
        replace(IDLE, prefill_tokens_per_second=0.0),
        replace(IDLE, start_seconds=float("nan")),
    ],
)
def test_a_region_that_cannot_serve_the_pool_is_no_candidate(capacity: PoolCapacity | None) -> None:
    """No such pool, no endpoints, or numbers that make no sense: nothing goes there."""
    book = World(0, "west")
    book.state("west", capacity)
    assert book.arrive(1, other(1)) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


def test_a_region_that_is_no_peer_is_not_heard() -> None:
    """What a stranger says of itself changes nothing."""
    book = World(0, "west")
    book.state("nowhere")
    book.tick(LOST_SECONDS + 1)
    assert book.arrive(1) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


# No endpoint here


def test_a_region_without_endpoints_forwards() -> None:
    """Where nothing serves here another region does, however far and full it is."""
    book = World(0, "west")
    book.state("west", FULL)
    book.forward(1, "west")


def test_a_request_waits_for_a_region_that_is_late_with_its_state() -> None:
    """Without endpoints and with a state just too old, it is held until the next state comes."""
    book = World(0, "west")
    book.state("west")
    book.tick(STATE_LIMIT_SECONDS + ROUND_TRIP_SECONDS + 0.1)
    assert isinstance(book.arrive(1)[0], Enqueue)
    assert sent(book.state("west", after=0.5)) == {1: "west"}


def test_a_request_waits_for_the_first_word_of_a_new_region() -> None:
    """A router that has just started does not turn away what a peer will serve in a moment."""
    book = World(0, "west")
    assert isinstance(book.arrive(1)[0], Enqueue)
    assert sent(book.state("west", after=0.3)) == {1: "west"}


def test_a_request_does_not_wait_for_a_region_that_is_gone() -> None:
    """Without endpoints, and with peers silent for long, the error comes at once."""
    book = World(0, "west")
    book.state("west")
    book.tick(LOST_SECONDS + 0.1)
    assert book.arrive(1) == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


def test_what_waits_for_a_region_that_stays_silent_is_evicted() -> None:
    """At its deadline it gets an error that says that there is no endpoint."""
    book = World(0, "west", queue_timeout_seconds=3.0)
    book.arrive(1)
    (evict,) = book.tick(3.0)
    assert isinstance(evict, Evict)
    assert evict.reason is EvictReason.NO_ENDPOINTS
    assert len(book.router.ledger) == 0


# Reservations


def test_arrivals_of_one_instant_do_not_all_go_to_one_free_place() -> None:
    """A request on its way is its own reservation: the next one sees it before any state does."""
    book = World(1, "west")
    book.busy()
    book.state("west", replace(IDLE, free=1, start_seconds=5.0))
    assert [sent(book.arrive(ticket, other(ticket))) for ticket in range(5)] == [
        {0: "west"},
        {},
        {},
        {},
        {},
    ]


def test_regions_that_cost_the_same_take_turns() -> None:
    """Requests of one instant are spread over equal regions instead of filling the first."""
    book = World(0, "west", "east", "south")
    for region in ("west", "east", "south"):
        book.state(region)
    where = [sent(book.arrive(ticket, other(ticket)))[ticket] for ticket in range(12)]
    assert {region: where.count(region) for region in where} == dict.fromkeys(where, 4)
    assert len(set(where)) == 3


def test_two_ingresses_with_the_same_states_do_not_flood_one_region() -> None:
    """Each spreads what it sends, so that together they overdraw no region by more than a few."""
    counts = {"west": 0, "east": 0}
    for _ in range(2):
        book = World(0, "west", "east")
        book.state("west")
        book.state("east")
        for ticket in range(4):
            (region,) = sent(book.arrive(ticket, other(ticket))).values()
            counts[region] += 1
    assert counts == {"west": IDLE.free, "east": IDLE.free}


def one_place(*regions: str) -> World:
    """A router with a full second to wait here, and a place for one request in each region."""
    book = World(1, *regions, prefill_tokens_per_second=RATE / 100)
    book.busy()
    for region in regions:
        book.state(region, ONE_PLACE)
    return book


ONE_PLACE = replace(IDLE, free=1, start_seconds=500.0)


def test_a_state_that_has_not_counted_a_request_leaves_its_reservation() -> None:
    """A state that was on its way already says nothing of what was sent meanwhile."""
    book = one_place("west")
    book.forward(1, "west")
    book.state("west", ONE_PLACE, received=0, after=0.05)
    assert sent(book.arrive(2, other(2))) == {}


def test_the_echo_of_what_has_arrived_ends_the_reservation() -> None:
    """Once the region has counted the request its state is the truth, whatever became of it."""
    book = one_place("west")
    book.forward(1, "west")
    book.state("west", ONE_PLACE, received=1, after=0.05)
    book.forward(2, "west")


def test_a_request_that_ends_early_stays_reserved_until_it_is_counted() -> None:
    """A client that leaves frees nothing there that the region has told."""
    book = one_place("west")
    book.forward(1, "west")
    book.tell(RequestFinished(1))
    assert sent(book.arrive(2, other(2))) == {}


def test_a_request_that_never_arrives_is_reserved_for_a_while_only() -> None:
    """What was lost on the way is forgotten after some seconds."""
    book = one_place("west")
    book.forward(1, "west")
    for _ in range(5):
        book.state("west", ONE_PLACE, after=LOST_SECONDS / 5 - 0.01)
    assert sent(book.arrive(2, other(2))) == {}
    assert sent(book.state("west", ONE_PLACE, after=0.1)) == {2: "west"}


def test_a_router_that_begins_anew_counts_anew() -> None:
    """A count that falls is a new beginning: what it says has all arrived, no less and no more."""
    book = one_place("west")
    book.state("west", ONE_PLACE, received=1000)
    book.forward(1, "west")
    book.state("west", ONE_PLACE, received=0, after=0.1)
    assert sent(book.arrive(2, other(2))) == {}
    assert sent(book.state("west", ONE_PLACE, received=1, after=0.1)) == {2: "west"}
    assert sent(book.arrive(3, other(3))) == {}
    assert sent(book.state("west", ONE_PLACE, received=2, after=0.1)) == {3: "west"}


def test_a_falling_count_that_is_not_nought_ends_as_many_reservations() -> None:
    """A router that has restarted and has had two requests since has had those two."""
    book = World(0, "west")
    book.state("west", received=50)
    for ticket in range(3):
        book.forward(ticket, "west")
    peer = book.router._books.peers.by_region["west"]
    book.state("west", received=2)
    assert peer.in_transit("p", book.now) == 1
    book.state("west", received=7)
    assert peer.in_transit("p", book.now) == 0
    book.state("west", received=-5)
    assert peer.in_transit("p", book.now) == 0


def test_what_goes_to_one_pool_takes_no_place_in_another() -> None:
    """Reservations are of a pool: another model's requests do not stand before these."""
    book = World(0, "west")
    book.tell(PoolUpdated("q", PoolSettings(), ()))
    book.tell(RegionStateReceived("west", "w", (("p", ONE_PLACE), ("q", ONE_PLACE)), 0))
    book.tell(RequestArrived(1, "q", other(1), 5120))
    (command,) = book.arrive(2, other(2))
    assert isinstance(command, Forward)
    assert command.explanation.candidates[0].wait_seconds == 0.0


# Several routers of one region


def test_the_routers_of_a_region_count_apart() -> None:
    """Each one's echo ends the reservations of what it has had itself."""
    book = World(0, "west")
    for writer, received in (("a", 10), ("b", 20)):
        book.state("west", received=received, writer=writer)
    for ticket in range(3):
        book.forward(ticket, "west")
    peer = book.router._books.peers.by_region["west"]
    book.state("west", received=11, writer="a")
    assert peer.in_transit("p", book.now) == 2
    book.state("west", received=22, writer="b")
    assert peer.in_transit("p", book.now) == 0


def test_the_queues_of_a_regions_routers_add_up() -> None:
    """What one router holds stands before a request as what the other holds does."""
    book = World(0, "west")
    book.state("west", replace(IDLE, queued=3), writer="a")
    book.state("west", replace(IDLE, queued=4), writer="b")
    (command,) = book.arrive(1, other(1))
    assert isinstance(command, Forward)
    assert command.explanation.candidates[0].wait_seconds == IDLE.wait_seconds(7)


def test_a_router_that_falls_silent_counts_no_more() -> None:
    """The others speak for the region."""
    book = World(0, "west")
    book.state("west", FULL, writer="a")
    for _ in range(3):
        book.state("west", after=0.5, writer="b")
    (command,) = book.arrive(1, other(1))
    assert isinstance(command, Forward)
    assert command.explanation.candidates[0].wait_seconds == 0.0


# Forwarded by another region


def test_a_forwarded_request_goes_no_further() -> None:
    """It waits here, however idle a third region is."""
    book = World(1, "west", "east")
    book.busy()
    book.state("east")
    assert sent(book.arrive(1, other(1), origin="west", hold_seconds=5.0)) == {}
    assert sent(book.state("east", after=0.1)) == {}


def test_a_forwarded_request_is_given_back_when_its_hold_is_over() -> None:
    """It is held as long as its ingress allows, and no longer."""
    book = World(1, "west", prefill_tokens_per_second=RATE / 100)
    book.busy()
    (held,) = book.arrive(1, other(1), origin="west", hold_seconds=0.5)
    assert isinstance(held, Enqueue)
    assert held.deadline == pytest.approx(0.5)
    assert book.tick(0.49) == []
    (evict,) = book.tick(0.01)
    assert isinstance(evict, Evict)
    assert (evict.ticket, evict.reason) == (1, EvictReason.DEADLINE_PASSED)


def test_a_forwarded_request_that_may_not_be_held_is_given_back_at_once() -> None:
    """A hold of nothing is no promise to wait."""
    book = World(1, "west")
    book.busy()
    (evict,) = book.arrive(1, other(1), origin="west", hold_seconds=0.0)
    assert isinstance(evict, Evict)


def test_a_forwarded_request_is_held_no_longer_than_the_pool_holds() -> None:
    """A peer cannot ask for more patience than the operator gives."""
    book = World(1, "west", queue_timeout_seconds=2.0)
    book.busy()
    (held,) = book.arrive(1, other(1), origin="west", hold_seconds=1e9)
    assert isinstance(held, Enqueue)
    assert held.deadline == 2.0


def test_a_forwarded_request_is_turned_away_where_nothing_serves() -> None:
    """It is not held for a third region."""
    book = World(0, "west", "east")
    book.state("east")
    commands = book.arrive(1, origin="west", hold_seconds=5.0)
    assert commands == [Reject(1, RejectReason.NO_ENDPOINTS, 1.0)]


def test_every_forwarded_request_is_counted_as_received() -> None:
    """Served, held, turned away or for a pool that is not here: its reservation has ended."""
    book = World(1, "west", queue_limit=1)
    for ticket in range(4):
        book.arrive(ticket, other(ticket), origin="west", hold_seconds=5.0)
    book.tell(RequestArrived(4, "nowhere", (), 100, origin="west", hold_seconds=5.0))
    book.arrive(5)
    assert book.router.received.get("west", 0) == 5
    assert book.router.received.get("east", 0) == 0


def test_a_region_cannot_push_another_ones_counts_out() -> None:
    """However many routers it invents: it has so many counts, its latest, and comes last."""
    book = World(1)
    for router in ("us/a", *(f"eu/{number}" for number in range(1, 2001)), "us/b", "us/a"):
        book.tell(ForwardTurnedAway(router))
    received = book.router.received
    assert (received["us/a"], received["us/b"], received["eu/2000"]) == (2, 1, 1)
    assert len(received) == 2 + MOST_ROUTERS
    assert list(received)[:2] == ["us/b", "us/a"]


def test_a_queue_is_offered_to_other_regions_so_often_however_often_they_speak() -> None:
    """What a region says shortly after an offer is acted on once that is some time ago."""
    book = World(1, "west", prefill_tokens_per_second=1.0)
    book.busy()
    book.state("west", FULL)
    assert sent(book.arrive(1, other(1))) == {}
    assert sent(book.state("west", FULL)) == {}
    since = book.now
    for _ in range(4):
        commands = book.state("west", after=0.01)
        assert sent(commands) == {}
        assert [c.at for c in commands if isinstance(c, WakeAt)] in ([], [since + OFFER_SECONDS])
    assert sent(book.tick(since + OFFER_SECONDS - book.now)) == {1: "west"}
    assert sent(book.arrive(2, other(2))) == {2: "west"}


# Refused by another region


def test_a_refused_request_is_decided_anew_and_not_sent_there_again() -> None:
    """It goes to the next best region, then home; no region is asked twice."""
    book = World(1, "west", "east")
    book.busy()
    book.state("west")
    book.state("east", replace(IDLE, load=0.2))
    book.forward(1, "west")
    assert sent(book.tell(ForwardRefused(1, "west"))) == {1: "east"}
    assert isinstance(book.tell(ForwardRefused(1, "east"))[0], Enqueue)
    for region in ("west", "east"):
        assert sent(book.state(region, after=0.2)) == {}
    assert targets(book.tick(1.0)) == {1: "e0"}


def test_a_region_that_has_refused_is_left_alone_for_a_round_trip() -> None:
    """Its state was wrong; the next one may know better."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    book.tell(ForwardRefused(1, "west"))
    assert sent(book.arrive(2, other(2))) == {}
    assert sent(book.state("west", received=1, after=ROUND_TRIP_SECONDS)) == {2: "west"}


def test_a_refused_request_keeps_its_age() -> None:
    """It stands in the queue where it would had it never left, with the deadline of its arrival."""
    book = World(1, "west", prefill_tokens_per_second=RATE / 4)
    book.busy()
    book.state("west", replace(IDLE, free=1, start_seconds=50.0))
    book.forward(1, "west")
    book.arrive(2, other(2), after=0.1)
    (held,) = book.tell(ForwardRefused(1, "west"), after=0.1)
    assert isinstance(held, Enqueue)
    assert held.deadline == 60.0
    assert targets(book.tick(3.9)) == {1: "e0"}


def test_a_request_refused_after_its_deadline_is_evicted() -> None:
    """It is not queued for a time that has passed."""
    book = World(1, "west", queue_timeout_seconds=1.0, prefill_tokens_per_second=RATE / 100)
    book.busy()
    book.state("west")
    book.forward(1, "west")
    (evict,) = book.tell(ForwardRefused(1, "west"), after=2.0)
    assert isinstance(evict, Evict)
    assert len(book.router.ledger) == 1


def test_a_region_may_hold_a_request_no_longer_than_it_may_wait_at_all() -> None:
    """The hold is twice the wait that was predicted, within the request's own deadline."""
    book = World(0, "west", queue_timeout_seconds=20.0)
    book.state("west")
    holds = []
    for ticket in range(60):
        (command,) = book.arrive(ticket, other(ticket))
        assert isinstance(command, Forward)
        holds.append(command.hold_seconds)
    assert holds[:4] == [ROUND_TRIP_SECONDS] * 4
    assert holds[4] == 2 * IDLE.start_seconds
    assert holds[-1] == 20.0


def test_a_region_that_has_refused_is_not_believed_to_hold_the_prompt() -> None:
    """What it has not computed draws no later turn there."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    peers = book.router._books.peers
    slot = peers.by_region["west"].slot
    assert peers.index.depth(other(1), slot) == 10
    book.tell(ForwardRefused(1, "west"))
    assert peers.index.depth(other(1), slot) == 0


def test_a_request_refused_where_nothing_else_serves_waits_for_the_regions_next_word() -> None:
    """Without endpoints it has nowhere else to go: it is sent again after a round trip."""
    book = World(0, "west")
    book.state("west")
    book.forward(1, "west")
    (held,) = book.tell(ForwardRefused(1, "west"))
    assert isinstance(held, Enqueue)
    assert sent(book.state("west", received=1)) == {}
    assert sent(book.state("west", received=1, after=ROUND_TRIP_SECONDS)) == {1: "west"}


def test_a_request_refused_after_its_pool_was_removed_is_turned_away() -> None:
    """It is sent to no endpoint that has taken the place of the pool's."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    book.tell(RequestFinished(100))
    book.tell(PoolRemoved("p"))
    book.tell(PoolUpdated("q", PoolSettings(), (EndpointSettings("other"),)))
    commands = book.tell(ForwardRefused(1, "west"))
    assert commands == [Reject(1, RejectReason.UNKNOWN_POOL, 1.0)]


def test_a_request_refused_after_its_pool_came_back_is_served_by_the_new_one() -> None:
    """A pool that was removed and made again is the same to a request that was away."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    book.tell(RequestFinished(100))
    book.tell(PoolRemoved("p"))
    book.update(EndpointSettings("new"))
    assert target(book.tell(ForwardRefused(1, "west"))) == "new"
    assert book.router.views(book.now)[0].inflight == 1


@pytest.mark.parametrize("region", ["east", "nowhere"])
def test_a_refusal_by_a_region_that_does_not_have_it_changes_nothing(region: str) -> None:
    """Only the region that a request was sent to can give it back, and only once."""
    book = World(0, "west", "east")
    book.state("west")
    book.forward(1, "west")
    assert book.tell(ForwardRefused(1, region)) == []
    assert book.inflight("region/west") == 1
    book.tell(RequestFinished(1))
    assert book.tell(ForwardRefused(1, "west")) == []


# From the queue


def test_queued_requests_leave_when_a_region_frees() -> None:
    """The next state that has room takes as many as gain by it, and not more."""
    book = World(1, "west", prefill_tokens_per_second=RATE / 100)
    book.busy()
    book.state("west", FULL)
    for ticket in range(5):
        assert isinstance(book.arrive(ticket, other(ticket))[0], Enqueue)
    commands = book.state("west", replace(IDLE, free=3, start_seconds=1000.0), after=0.1)
    assert len(sent(commands)) == 3
    assert book.router.ledger.queued == 2


def test_those_leave_first_that_gain_most() -> None:
    """Behind a long queue the newest gain most; the oldest is nearly served."""
    book = World(1, "west")
    for ticket in range(1000, 1100):
        book.arrive(ticket, other(ticket))
        book.tell(RequestFinished(ticket), after=1.1)
    book.busy()
    for ticket in range(4):
        book.arrive(ticket, other(ticket))
    assert sent(book.state("west", replace(IDLE, free=1, start_seconds=50.0))) == {3: "west"}


def test_a_forwarded_request_is_queued_no_more() -> None:
    """What has left the queue is neither dispatched nor evicted afterwards."""
    book = World(1, "west", queue_timeout_seconds=2.0)
    book.busy()
    book.arrive(1, other(1))
    assert sent(book.state("west")) == {1: "west"}
    assert book.tick(1.1) == []
    assert book.tick(2.0) == []
    assert book.inflight("region/west") == 1


# In flight elsewhere


def test_a_region_that_is_removed_keeps_its_open_streams() -> None:
    """It takes nothing new; what is there still counts until it ends, and may come back."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    book.forward(2, "west")
    book.peers()
    assert book.inflight("region/west") == 2
    assert sent(book.arrive(3, other(3))) == {}
    book.tell(RequestFinished(1))
    assert isinstance(book.tell(ForwardRefused(2, "west"))[0], Enqueue)
    assert book.inflight("region/west") == 0
    assert len(book.router.ledger) == 3


def test_a_region_that_comes_back_is_heard_anew() -> None:
    """Nothing of what was known of it is used before its next state."""
    book = World(0, "west")
    book.state("west")
    book.forward(1, "west")
    book.peers("east")
    book.peers("east", "west")
    book.state("east", FULL)
    assert sent(book.arrive(2, other(1))) == {2: "east"}
    book.state("west", received=1)
    book.forward(3, "west")
    book.tell(RequestFinished(1))
    book.tell(RequestFinished(3))
    assert book.inflight("region/west") == 0


def test_an_assumed_round_trip_gives_way_to_a_measured_one() -> None:
    """The settings' figure may change until the stream has measured its own."""
    book = World(0, "west")
    peer = book.router._books.peers.by_region["west"]
    book.peers("west", round_trip_seconds=0.3)
    assert peer.round_trip_seconds == 0.3
    book.state("west", round_trip_seconds=0.2)
    book.peers("west", round_trip_seconds=0.4)
    assert peer.round_trip_seconds == 0.2


def test_what_is_told_of_a_forwarded_request_touches_no_endpoint() -> None:
    """Attempts and measures of a stream that another region serves teach nothing here."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    before = book.router.views(book.now)
    book.tell(AttemptStarted(1, "region/west"))
    book.tell(AttemptStarted(1, "e0"))
    book.tell(AttemptFailed(1, "region/west"))
    book.tell(RequestMeasured(1, "region/west", Outcome.SERVED, 0.1, 1.0, 600, 0, 50))
    assert book.router.views(book.now) == before
    assert (book.inflight("region/west"), book.inflight("e0")) == (1, 1)
    book.tell(RequestFinished(1))
    book.tell(RequestMeasured(1, None, Outcome.SERVED, 0.1, 1.0, 600, 0, 50))
    assert book.router.views(book.now) == before
    assert (book.inflight("region/west"), book.inflight("e0")) == (0, 1)


@pytest.mark.parametrize("end", ["forwarded", "queued", "dispatched"])
def test_a_request_ends_in_whatever_state_it_is(end: str) -> None:
    """Its stream is off the account, once, and a second word of its end changes nothing."""
    book = World(1, "west")
    book.busy()
    book.state("west")
    book.forward(1, "west")
    if end != "forwarded":
        book.tell(ForwardRefused(1, "west"))
    if end == "dispatched":
        assert isinstance(book.tick(1.1)[0], Dispatch)
    for _ in range(2):
        assert book.tell(RequestFinished(1)) == []
        assert len(book.router.ledger) == 1
        assert book.router.ledger.queued == 0
        assert book.inflight("region/west") == 0
    assert book.router.views(book.now)[0].inflight == 1


def test_of_many_regions_the_one_that_holds_the_prompt_is_looked_at() -> None:
    """However far down it stands for a usual request, also after other regions have left."""
    names = [f"r{number}" for number in range(12)]
    book = World(1, *names)
    for name in names[:-1]:
        book.state(name, FULL)
    book.state("r11")
    book.busy()
    prompt = tuple(range(1, 101))
    assert sent(book.arrive(1, prompt)) == {1: "r11"}
    book.peers(*names[5:])
    for name in names[5:-1]:
        book.state(name)
    book.state("r11", replace(IDLE, load=1.5), received=1)
    book.tick(0.01)
    assert sent(book.arrive(2, (*prompt, 101))) == {2: "r11"}


def test_a_forwarded_request_takes_any_endpoint_before_it_is_given_back() -> None:
    """Held for the busy holder of its prefix, it goes to an idle one when half the hold is over."""
    book = World(2)
    prompt = tuple(range(1, 41))
    home = target(book.arrive(1, prompt))
    book.tick(10.0)
    assert target(book.arrive(2, (*prompt, *other(9)))) == home
    held = book.tell(RequestArrived(3, "p", (*prompt, 99), 41 * 512, origin="r", hold_seconds=0.4))
    assert isinstance(held[0], Enqueue)
    assert target(book.tick(0.19)) is None
    assert target(book.tick(0.02)) not in (None, home)


def test_a_forwarded_request_does_not_overtake_older_ones_here() -> None:
    """That it is soon given back gives it no precedence when an endpoint frees."""
    book = World(1)
    book.busy()
    assert target(book.arrive(1, other(1))) is None
    held = book.tell(RequestArrived(2, "p", other(2), 5120, origin="r", hold_seconds=1.5))
    assert isinstance(held[0], Enqueue)
    assert targets(book.tick(0.76)) == {}
    assert targets(book.tick(0.25)) == {1: "e0"}


def test_what_is_left_of_the_objective_shrinks_while_a_request_waits() -> None:
    """Where the objective has passed already, every further second here counts for all."""
    young, old = World(1, "west"), World(1, "west")
    for book, waits in ((young, 0.0), (old, 3.0)):
        book.state("west", FULL)
        book.arrive(100, tuple(range(1, 51)))
        assert target(book.arrive(1, other(1), after=1.0)) is None
        book.state("west", FULL, after=waits)
    assert young.router.views(young.now)[0].queued == old.router.views(old.now)[0].queued == 1
    costs = []
    for book in (young, old):
        commands = book.state("west", after=OFFER_SECONDS)
        (leaving,) = [c for c in commands if isinstance(c, Forward)]
        here = next(c for c in leaving.explanation.candidates if c.endpoint == "e0")
        costs.append(here.burden_seconds - here.wait_seconds)
    assert costs[1] > costs[0] - 1.0

"""Whatever happens in whatever order, the ledger counts every open stream exactly once."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import Command, Dispatch, Enqueue, Evict, Forward, Reject, WakeAt
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    EngineMetrics,
    Event,
    ForwardRefused,
    MetricsScraped,
    Outcome,
    PeerSettings,
    PeersUpdated,
    PoolRemoved,
    PoolUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    Tick,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName, PoolSettings
from heliostat_routing.transit import LOST_SECONDS
from tests.routing.playbook import told_room, walked_room

ADDRESSES = [f"e{number}" for number in range(4)]
POOLS = ["a", "b"]
REGIONS = ["west", "east"]
ENDPOINTS = st.lists(
    st.builds(
        EndpointSettings,
        address=st.sampled_from(ADDRESSES),
        phase=st.sampled_from(EndpointPhase),
        adapters=st.sampled_from([None, frozenset(), frozenset({"lora"})]),
    ),
    max_size=4,
    unique_by=lambda endpoint: endpoint.address,
).map(tuple)
SETTINGS = st.builds(
    PoolSettings,
    policy=st.sampled_from([PolicyName.HELIOSTAT, PolicyName.HELIOSTAT, *PolicyName]),
    pending_limit=st.integers(0, 2),
    queue_limit=st.integers(0, 4),
    queue_timeout_seconds=st.sampled_from([0.5, 5.0]),
    age_bound_seconds=st.sampled_from([0.1, 2.0]),
    fallbacks=st.integers(0, 2),
    prefill_tokens_per_second=st.sampled_from([50.0, 5000.0]),
)
COUNT = st.integers(0, 20)
METRICS = st.builds(
    EngineMetrics,
    running_requests=st.integers(0, 5),
    waiting_requests=st.integers(0, 3),
    kv_cache_utilization=st.floats(0, 1),
    finished_requests=COUNT,
    prompt_tokens=COUNT,
    generation_tokens=COUNT,
    prefix_query_tokens=COUNT,
    prefix_hit_tokens=COUNT,
    first_tokens=st.one_of(st.none(), COUNT),
    kv_capacity_tokens=st.sampled_from([None, 256, 10_000]),
)
PEERS = st.lists(
    st.builds(
        PeerSettings,
        region=st.sampled_from(REGIONS),
        round_trip_seconds=st.sampled_from([0.0, 0.05, 2.0]),
    ),
    max_size=2,
    unique_by=lambda peer: peer.region,
).map(tuple)
CAPACITIES = st.one_of(
    st.builds(
        PoolCapacity,
        free=st.integers(0, 2),
        room=st.integers(2, 5),
        queued=st.integers(0, 3),
        start_seconds=st.sampled_from([0.0, 0.1, 5.0]),
        finish_seconds=st.sampled_from([0.0, 1.0]),
        load=st.floats(0, 5),
        prefill_tokens_per_second=st.sampled_from([50.0, 5000.0]),
        kv_capacity_tokens=st.sampled_from([256, 10_000]),
    ),
    st.builds(
        PoolCapacity,
        free=st.integers(-1, 10**9),
        room=st.integers(-1, 10**9),
        queued=st.integers(-1, 10**9),
        start_seconds=st.floats(),
        finish_seconds=st.floats(),
        load=st.floats(),
        prefill_tokens_per_second=st.floats(),
        kv_capacity_tokens=st.integers(-1, 10**12),
    ),
)
ROOMY = PoolCapacity(
    free=2,
    room=4,
    queued=0,
    start_seconds=0.1,
    finish_seconds=1.0,
    load=0.0,
    prefill_tokens_per_second=5000.0,
    kv_capacity_tokens=10_000,
)


class OpenStreams(RuleBasedStateMachine):
    """The world outside the router, keeping its own count of the streams that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.now = 0.0
        self.wake_at: float | None = None
        self.arrived = 0
        self.queued: set[int] = set()
        self.placed: dict[int, str] = {}
        self.away: dict[int, str] = {}
        self.peers: set[str] = set()
        self.from_others: set[int] = set()
        self.barred: set[tuple[int, str]] = set()
        self.forwards: list[tuple[float, str]] = []
        self.undecided: int | None = None
        self.ended: list[int] = []

    def tell(self, event: Event) -> list[Command]:
        """Hand over an event and do what the commands say."""
        commands = self.router.handle(event, self.now)
        for command in commands:
            match command:
                case Dispatch(ticket, endpoints, explanation):
                    assert ticket not in self.placed, "dispatched twice"
                    assert ticket not in self.away, "dispatched here and there"
                    assert len(set(endpoints)) == len(endpoints), "a fallback names one twice"
                    assert explanation.winner == endpoints[0]
                    self.queued.discard(ticket)
                    self.placed[ticket] = endpoints[0]
                case Forward(ticket, region, hold_seconds, explanation):
                    assert ticket not in {*self.placed, *self.away, *self.from_others}
                    assert region in self.peers
                    assert (ticket, region) not in self.barred, "asked again beside endpoints here"
                    assert hold_seconds >= 0.0
                    assert explanation.winner == f"region/{region}"
                    self.queued.discard(ticket)
                    self.away[ticket] = region
                    self.forwards.append((self.now, region))
                case Enqueue(ticket, deadline):
                    assert ticket not in self.queued
                    assert ticket not in self.away
                    assert ticket not in self.placed
                    assert deadline > self.now
                    self.queued.add(ticket)
                case Reject(ticket):
                    assert ticket not in {*self.queued, *self.placed, *self.away}
                case Evict(ticket):
                    assert ticket in self.queued or ticket == self.undecided
                    self.queued.discard(ticket)
                case WakeAt(at):
                    self.wake_at = at
        return commands

    @initialize(settings=SETTINGS)
    def start(self, settings: PoolSettings) -> None:
        """Start with two endpoints and a peer, so that most steps have something to do."""
        self.meet((PeerSettings("west", 0.05),))
        self.tell(PoolUpdated("a", settings, (EndpointSettings("e0"), EndpointSettings("e1"))))

    @rule(pool=st.sampled_from(POOLS), settings=SETTINGS, endpoints=ENDPOINTS)
    def flap(
        self, pool: str, settings: PoolSettings, endpoints: tuple[EndpointSettings, ...]
    ) -> None:
        """Endpoints come, go, drain and come back."""
        self.tell(PoolUpdated(pool, settings, endpoints))

    @rule(pool=st.sampled_from(POOLS))
    def remove(self, pool: str) -> None:
        """A pool goes."""
        self.tell(PoolRemoved(pool))

    @rule(
        pool=st.sampled_from([*POOLS, "a", "a", "nowhere"]),
        group=st.integers(1, 3),
        blocks=st.integers(0, 6),
        adapter=st.sampled_from([None, None, "lora"]),
        most=st.sampled_from([None, 1, 500]),
        origin=st.sampled_from([None, None, None, "west", "nowhere"]),
        hold_seconds=st.sampled_from([0.0, 0.2, 100.0]),
    )
    def arrive(
        self,
        pool: str,
        group: int,
        blocks: int,
        adapter: str | None,
        most: int | None,
        origin: str | None,
        hold_seconds: float,
    ) -> None:
        """A request arrives, here or from a peer; it is sent on, queued or rejected at once."""
        ticket, self.arrived = self.arrived, self.arrived + 1
        prompt = tuple(group * 100 + number for number in range(blocks))
        event = RequestArrived(
            ticket,
            pool,
            prompt,
            blocks * 512 + 40,
            most,
            adapter,
            group,
            origin,
            None if origin is None else hold_seconds,
        )
        if origin is not None:
            self.from_others.add(ticket)
        self.tell_of(ticket, event)

    @rule(peers=PEERS)
    def meet(self, peers: tuple[PeerSettings, ...]) -> None:
        """Regions come, go and come back."""
        self.peers = {peer.region for peer in peers}
        self.tell(PeersUpdated(peers))

    @rule(
        region=st.sampled_from([*REGIONS, "west", "nowhere"]),
        writer=st.sampled_from(["one", "one", "two"]),
        capacities=st.dictionaries(st.sampled_from(POOLS), CAPACITIES),
        received=st.integers(-1, 20),
        round_trip_seconds=st.sampled_from([None, None, 0.1]),
    )
    def hear(
        self,
        region: str,
        writer: str,
        capacities: dict[str, PoolCapacity],
        received: int,
        round_trip_seconds: float | None,
    ) -> None:
        """A router of another region says whatever it likes, in whatever order."""
        pools = tuple(capacities.items())
        self.tell(RegionStateReceived(region, writer, pools, received, round_trip_seconds))

    @rule(region=st.sampled_from(REGIONS), requests=st.integers(1, 5), received=st.integers(0, 5))
    def rush(self, region: str, requests: int, received: int) -> None:
        """A peer that has room says so just when many requests arrive."""
        capacities = dict.fromkeys(POOLS, ROOMY)
        self.meet(tuple(PeerSettings(name, 0.05) for name in sorted({*self.peers, region})))
        self.hear(region, "one", capacities, received, None)
        for number in range(requests):
            self.arrive("a", self.arrived + number, 6, None, None, None, 0.0)

    @rule(data=st.data(), region=st.sampled_from(REGIONS))
    def refuse(self, data: st.DataObject, region: str) -> None:
        """A region gives a request back: one that it has, or one that it has not."""
        tickets = [*self.away, *self.away, *self.queued, *self.placed, *self.ended[-3:], 10**6]
        ticket = data.draw(st.sampled_from(tickets))
        if ticket in self.away and data.draw(st.booleans()):
            region = self.away[ticket]
        if self.away.get(ticket) != region:
            self.tell(ForwardRefused(ticket, region))
            return
        del self.away[ticket]
        books = self.router._books
        if books.flights[ticket].pool.ready & books.fleet.serving:
            self.barred.add((ticket, region))
        self.tell_of(ticket, ForwardRefused(ticket, region))

    def tell_of(self, ticket: int, event: Event) -> None:
        """Hand over an event after which this request has to be decided."""
        self.undecided = ticket
        commands = self.tell(event)
        self.undecided = None
        answers = [c for c in commands if not isinstance(c, WakeAt) and c.ticket == ticket]
        assert answers, "a request that waits nowhere is answered"

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A stream ends: done, aborted, or given up while it was queued."""
        ticket = self.any_open(data)
        if ticket is not None:
            self.queued.discard(ticket)
            self.placed.pop(ticket, None)
            self.away.pop(ticket, None)
            self.ended.append(ticket)
            self.tell(RequestFinished(ticket))

    @rule(data=st.data(), address=st.sampled_from(ADDRESSES), failed=st.booleans())
    def attempt(self, data: st.DataObject, address: str, failed: bool) -> None:
        """The proxy tells of an attempt, possibly at an endpoint that it chose itself."""
        tickets = [*self.queued, *self.placed, *self.away, *self.ended[-3:], 10**6]
        ticket = data.draw(st.sampled_from(tickets))
        if failed:
            self.tell(AttemptFailed(ticket, address))
            return
        if ticket in self.placed and address in self.router._books.fleet.by_address:
            self.placed[ticket] = address
        self.tell(AttemptStarted(ticket, address))

    @rule(
        data=st.data(),
        outcome=st.sampled_from(Outcome),
        address=st.sampled_from([*ADDRESSES, None]),
        cached=st.integers(0, 600),
    )
    def measure(
        self, data: st.DataObject, outcome: Outcome, address: str | None, cached: int
    ) -> None:
        """The access log tells of a request, before or after its end, or of one unknown."""
        ticket = data.draw(st.sampled_from([*self.ended[-3:], *self.placed, *self.away, 10**6]))
        self.tell(RequestMeasured(ticket, address, outcome, 0.1, 1.0, 600, cached, 50))

    @rule(address=st.sampled_from(ADDRESSES), scraped=METRICS)
    def scrape(self, address: str, scraped: EngineMetrics) -> None:
        """An engine reports whatever it likes."""
        self.tell(MetricsScraped(address, scraped))

    @rule(address=st.sampled_from(ADDRESSES))
    def scrape_fails(self, address: str) -> None:
        """An engine does not report."""
        self.tell(ScrapeFailed(address))

    @rule(seconds=st.sampled_from([0.01, 0.3, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, with the wake-up calls that the router has asked for on the way."""
        until = self.now + seconds
        for _ in range(200):
            if self.wake_at is None or self.wake_at > until:
                break
            self.now, self.wake_at = max(self.now, self.wake_at), None
            self.tell(Tick())
        else:
            raise AssertionError("the router asks to be woken without end")
        self.now = until

    def any_open(self, data: st.DataObject) -> int | None:
        """Draw an open ticket, if there is one."""
        tickets = [*self.queued, *self.placed, *self.away]
        return data.draw(st.sampled_from(tickets)) if tickets else None

    @invariant()
    def total_is_open_streams(self) -> None:
        """The ledger's total is the number of open streams; queue, here and there told apart."""
        ledger = self.router.ledger
        assert len(ledger) == len(self.queued) + len(self.placed) + len(self.away)
        assert ledger.queued == len(self.queued)

    @invariant()
    def each_endpoint_has_its_own(self) -> None:
        """Each endpoint's count is the number of streams there: never less than none."""
        for address in ADDRESSES:
            expected = sum(where == address for where in self.placed.values())
            assert self.router.ledger.inflight(address) == expected

    @invariant()
    def each_region_has_its_own(self) -> None:
        """Each region's count is the number of streams there, whether it is a peer still or not."""
        for region in REGIONS:
            expected = sum(where == region for where in self.away.values())
            assert self.router.ledger.inflight(f"region/{region}") == expected

    @invariant()
    def reservations_end(self) -> None:
        """On its way to a region is at most what was sent there lately, and never below none."""
        by_region = self.router._books.peers.by_region
        assert set(by_region) == self.peers
        for region, peer in by_region.items():
            lately = [at for at, to in self.forwards if to == region]
            sent = sum(at >= self.now - LOST_SECONDS for at in lately)
            in_transit = [peer.in_transit(pool, self.now) for pool in POOLS]
            assert min(in_transit) >= 0
            assert sum(in_transit) <= sent

    @invariant()
    def capacities_are_of_this_instant(self) -> None:
        """What is told of each pool is what asking every endpoint would say."""
        walked = walked_room(self.router, self.now)
        told = told_room(self.router, self.now)
        assert told == {name: walked[name] for name in told}

    @invariant()
    def views_agree(self) -> None:
        """What the router shows is what the ledger says."""
        for view in self.router.views(self.now):
            flights = self.router._books.flights.values()
            pool = self.router._books.pools[view.pool]
            here = [flight for flight in flights if flight.pool is pool]
            assert view.inflight == sum(flight.endpoint is not None for flight in here)
            assert view.queued == sum(flight.queued for flight in here)
            for endpoint in view.endpoints:
                assert endpoint.inflight == self.router.ledger.inflight(endpoint.address)
                assert endpoint.pending >= 0

    @invariant()
    def nothing_late_is_queued(self) -> None:
        """With its wake-up calls answered, the router holds no request past its deadline."""
        if self.wake_at is None or self.wake_at > self.now:
            flights: dict[int, Any] = self.router._books.flights
            assert all(flights[ticket].deadline >= self.now for ticket in self.queued)


OpenStreams.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, derandomize=True
)
TestOpenStreams = OpenStreams.TestCase

"""The other regions: what each could take, what was sent there, and what its caches may hold.

A request that is on its way to a peer is its own reservation: until the peer's state has counted
it, it stands before any other in the peer's queue, so a state of any age is not spent twice. What a
peer's caches hold is known from what was forwarded to it. A state that is missing or too old is not
an idle region: its region is no candidate.
"""

from collections import deque
from typing import NamedTuple

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import PeerSettings, RegionStateReceived
from heliostat_routing.explanation import Candidate
from heliostat_routing.flight import Flight
from heliostat_routing.pool import Pool
from heliostat_routing.prefix_index import PrefixIndex

STATE_LIMIT_SECONDS = 1.0
"""A state older than this, beside its way, says nothing any more."""
LOST_SECONDS = 5.0
"""A forwarded request that the peer has not counted for so long has never come."""


class Remote(NamedTuple):
    """What serving a request in another region would cost, in seconds."""

    region: str
    cached_tokens: float
    uncached_tokens: float
    wait_seconds: float
    prefill_seconds: float
    network_seconds: float
    cost_seconds: float
    hold_seconds: float
    """How long the peer may hold it before it shall refuse."""

    @property
    def account(self) -> str:
        """The name under which the ledger and explanations have the region."""
        return region_account(self.region)

    def candidate(self) -> Candidate:
        """What the explanation tells of it."""
        return Candidate(
            endpoint=self.account,
            cached_tokens=self.cached_tokens,
            uncached_tokens=self.uncached_tokens,
            wait_seconds=self.wait_seconds,
            prefill_seconds=self.prefill_seconds,
            network_seconds=self.network_seconds,
            spread_seconds=0.0,
            cost_seconds=self.cost_seconds,
        )


def region_account(region: str) -> str:
    """The name of a region where endpoints have their addresses."""
    return f"region/{region}"


class Peer:
    """One other region, as its routers describe it."""

    def __init__(self, settings: PeerSettings, slot: int) -> None:
        self.settings = settings
        self.slot = slot
        self.round_trip_seconds = settings.round_trip_seconds
        self.capacities: dict[str, PoolCapacity] = {}
        self.heard_at: float | None = None
        self.refused_until = 0.0
        self._received: dict[str, int] = {}
        self._in_transit: deque[float] = deque()

    def on_state(self, event: RegionStateReceived, now: float) -> None:
        """Take over what one of the region's routers says."""
        self.heard_at = now
        self.capacities = dict(event.capacities)
        if event.round_trip_seconds is not None:
            self.round_trip_seconds = event.round_trip_seconds
        news = event.received - self._received.get(event.writer, 0)
        self._received[event.writer] = event.received
        for _ in range(min(news, len(self._in_transit))):
            self._in_transit.popleft()

    def on_forward(self, now: float) -> None:
        """Note a request that is sent there."""
        self._in_transit.append(now)

    def on_refusal(self, now: float) -> None:
        """Leave the region alone until its next state can know better."""
        self.refused_until = now + self.round_trip_seconds

    def in_transit(self, now: float) -> int:
        """Requests sent there that no state has counted yet."""
        while self._in_transit and self._in_transit[0] < now - LOST_SECONDS:
            self._in_transit.popleft()
        return len(self._in_transit)

    def usable(self, now: float) -> bool:
        """Whether its state is fresh enough to act on."""
        if self.heard_at is None or now < self.refused_until:
            return False
        return now - self.heard_at <= STATE_LIMIT_SECONDS + self.round_trip_seconds


class Peers:
    """All other regions, and the prefixes that were forwarded to them."""

    def __init__(self) -> None:
        self.by_region: dict[str, Peer] = {}
        self.index = PrefixIndex()

    def update(self, settings: tuple[PeerSettings, ...]) -> None:
        """Take over the whole truth about who the peers are."""
        regions = {peer.region for peer in settings}
        for region in [r for r in self.by_region if r not in regions]:
            self.index.drop(self.by_region.pop(region).slot)
        for peer in settings:
            known = self.by_region.get(peer.region)
            if known is not None:
                known.settings = peer
            else:
                used = {other.slot for other in self.by_region.values()}
                slot = next(n for n in range(len(used) + 1) if n not in used)
                self.by_region[peer.region] = Peer(peer, slot)

    def cheapest(self, flight: Flight, pool: Pool, now: float) -> Remote | None:
        """The region that would serve the request best; None if none can be judged."""
        if flight.request.origin is not None:
            return None
        best: Remote | None = None
        for peer in self.by_region.values():
            capacity = peer.capacities.get(pool.name)
            if capacity is None or not peer.usable(now) or peer.settings.region in flight.refused:
                continue
            remote = self._score(flight, pool, peer, capacity, now)
            if best is None or remote.cost_seconds < best.cost_seconds:
                best = remote
        return best

    def _score(
        self, flight: Flight, pool: Pool, peer: Peer, capacity: PoolCapacity, now: float
    ) -> Remote:
        depth = self.index.depth(flight.request.block_keys, peer.slot)
        cached = min(depth * pool.tokens.block_tokens, flight.prompt_tokens)
        uncached = flight.prompt_tokens - cached
        wait = capacity.wait_seconds(capacity.queued + peer.in_transit(now))
        relative_load = capacity.load / max(1.0, pool.mean_inflight)
        prefill = uncached / capacity.prefill_tokens_per_second * (1 + relative_load)
        network = peer.round_trip_seconds
        return Remote(
            region=peer.settings.region,
            cached_tokens=cached,
            uncached_tokens=uncached,
            wait_seconds=wait,
            prefill_seconds=prefill,
            network_seconds=network,
            cost_seconds=network + wait + prefill,
            hold_seconds=max(network, 2 * wait),
        )

    def send(self, flight: Flight, region: str, stamp: float, now: float) -> None:
        """Note that a request goes to a region, and that its caches will hold the prompt."""
        peer = self.by_region[region]
        peer.on_forward(now)
        capacity = peer.capacities[flight.pool.name]
        blocks = int(capacity.kv_capacity_tokens / flight.pool.tokens.block_tokens)
        self.index.record(peer.slot, flight.request.block_keys, stamp, blocks)

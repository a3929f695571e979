"""SkyLB (SkyWalker; arXiv 2505.24095), its ring hash sibling, and its single-layer variants.

One load balancer per region. Every 100 ms it learns which local engines are available (see
`availability`) and, of each peer, how many engines are available and how long its queue is. A peer
is available if it has an available engine and its queue is at most tau = 10 and no longer than the
own queue at the pick, the head counted in. Requests queue first come, first served, without bound.
A loop takes the queue's head: available local engines are the candidates, else available peers;
among them the selection decides (see `skylb_selection`). A peer places a forwarded request in its
own region: one hop at most. Two memories of what went where: one over engines, one over regions,
learned from own dispatches only, bounded to 2^24 characters a target every 60 s.

Where the source is silent, or this is kinder than the source:

- The loop takes one head every 10 ms, as the source does (100 requests a second and balancer). A
  request that finds the queue empty is tried at once; the source lets it wait for the next turn.
- A forwarded request that finds no available engine waits in the peer's queue, at its place. The
  source loses it until the client's time-out.
- Peers tell their state rather than being asked, so it is half a round trip younger. One that has
  not been heard from for a second is unavailable; the source keeps its last state.
- A request that an engine refused goes back to the head of the queue; the source fails it.
- A region without engines forwards; the source answers 503.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from heliostat_sim.policies.availability import Availability
from heliostat_sim.policies.prefix_trie import EVICTION_INTERVAL_SECONDS
from heliostat_sim.policies.pushing import MAX_REFUSALS
from heliostat_sim.policies.skylb_selection import Selection
from heliostat_sim.policies.timer import repeat
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Ending, Request

LOOP_INTERVAL_SECONDS = 0.01
STATUS_INTERVAL_SECONDS = 0.1
MAX_REMOTE_QUEUE_REQUESTS = 10
"""tau: the paper's queue bound for a peer to be available."""
SILENCE_SECONDS = 1.0
"""After so long without a word a peer is unavailable."""


@dataclass(frozen=True, slots=True)
class BalancerStatus:
    """What a balancer tells its peers."""

    available_engines: int
    queued_requests: int
    wire_bytes: int = 64


class SkyLb:
    """One region's load balancer. Without `over_regions` it never forwards."""

    def __init__(
        self,
        port: GatewayPort,
        over_engines: Selection,
        availability: Availability,
        over_regions: Selection | None = None,
    ) -> None:
        self.port = port
        self.queue: deque[Request] = deque()
        self._over_engines = over_engines
        self._over_regions = over_regions
        self._availability = availability
        self._looping = False
        self._heard: dict[str, tuple[float, BalancerStatus]] = {}
        """What each peer told last, and when."""
        self._refusals: Counter[int] = Counter()

    def start(self) -> None:
        """Begin to probe, to tell and to evict."""
        self._set_targets()
        self._availability.start()
        if self._over_regions is not None:
            repeat(self.port, STATUS_INTERVAL_SECONDS, self._tell)
        repeat(self.port, EVICTION_INTERVAL_SECONDS, self._evict)

    def on_request(self, request: Request) -> None:
        """Queue; try at once if nobody is before it."""
        self.queue.append(request)
        if len(self.queue) == 1:
            self._try_head()
        self._loop()

    def on_first_token(self, request: Request) -> None:
        """Of no interest."""

    def on_finished(self, request: Request) -> None:
        """Strike a request off the books."""
        self._release(request)
        self._refusals.pop(request.id, None)

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """Put it back at the head."""
        self._availability.on_failed(engine)
        self._release(request)
        self._refusals[request.id] += 1
        if self._refusals[request.id] > MAX_REFUSALS:
            del self._refusals[request.id]
            self.port.end(request, Ending.REJECTED)
            return
        self._put_back(request)

    def on_sent_back(self, request: Request, region: str) -> None:
        """Put it back at the head, and wait for the peer's next word."""
        self._heard.pop(region, None)
        self._release(request)
        self._put_back(request)

    def on_message(self, sender: str, message: Any) -> None:
        """Keep a peer's status until the next pick."""
        if isinstance(message, BalancerStatus):
            self._heard[sender] = (self.port.now, message)

    def on_engines_changed(self) -> None:
        """Forget engines that have left."""
        self._availability.on_engines_changed()
        self._set_targets()

    def _loop(self) -> None:
        """Take a turn every interval while requests wait."""
        if self._looping or not self.queue:
            return
        self._looping = True
        self.port.call_at(self.port.now + LOOP_INTERVAL_SECONDS, self._turn)

    def _turn(self) -> None:
        self._looping = False
        self._try_head()
        self._loop()

    def _try_head(self) -> None:
        """Place the oldest request if anybody is available for it."""
        while self.queue and self.queue[0].ending is not None:
            self.queue.popleft()
        if self.queue and self._place(self.queue[0]):
            self.queue.popleft()

    def _place(self, request: Request) -> bool:
        engines = {engine.address: engine for engine in self._availability.available()}
        if engines:
            address = self._over_engines.select(request, list(engines))
            self._over_engines.note(request, address)
            self.port.dispatch(request, engines[address])
            return True
        if request.forwarded or self._over_regions is None:
            return False
        peers = [peer for peer in self.port.peers if self._is_available(peer)]
        if not peers:
            return False
        region = self._over_regions.select(request, peers)
        self._over_regions.note(request, region)
        self.port.forward(request, region)
        return True

    def _is_available(self, peer: str) -> bool:
        """Whether a peer's last word makes it a candidate for the queue as it is now."""
        heard = self._heard.get(peer)
        if heard is None or self.port.now > heard[0] + SILENCE_SECONDS:
            return False
        status = heard[1]
        bound = min(MAX_REMOTE_QUEUE_REQUESTS, len(self.queue))
        return status.available_engines > 0 and status.queued_requests <= bound

    def _put_back(self, request: Request) -> None:
        self.queue.appendleft(request)
        self._loop()

    def _release(self, request: Request) -> None:
        self._over_engines.load.release(request)
        if self._over_regions is not None:
            self._over_regions.load.release(request)

    def _set_targets(self) -> None:
        self._over_engines.set_targets(engine.address for engine in self.port.engines)
        if self._over_regions is not None:
            self._over_regions.set_targets(self.port.peers)

    def _evict(self) -> None:
        self._over_engines.evict()
        if self._over_regions is not None:
            self._over_regions.evict()

    def _tell(self) -> None:
        status = BalancerStatus(len(self._availability.available()), len(self.queue))
        for peer in self.port.peers:
            self.port.tell(peer, status)

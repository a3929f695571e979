"""GORGO (arXiv 2602.11688): the least of network, prefill and queue, in seconds.

Source (the ms-normalised cost of the published policy):

    cost = RTT + prefill rate * uncached tokens + queue rate * queued tokens

Uncached tokens by a trie of own dispatches; queued tokens are the whole prompts of requests sent
and without a first token yet (the source's `load_release_at_ttft`), not discounted by cache hits.
Weights are 1, the source's defaults; its evolutionary tuner is left out.

Assumed: both rates are the engine's seconds per uncached prompt token, which the source calibrates
live. One balancer per region: the engines of its own region are scored one by one, another region
as a whole, with the queue of its least loaded engine as told every 100 ms plus what was forwarded
there since, and with the prefixes that this balancer itself has sent there. The peer then places
the request in its own region by the same rule. Tries are bounded by the engine's KV capacity, for a
region to 2^24 characters.
"""

from dataclasses import dataclass
from typing import Any

from heliostat_sim.policies.prefill_books import PrefillBooks
from heliostat_sim.policies.prefix_trie import PrefixTrie, prompt_blocks
from heliostat_sim.policies.pushing import PushingBalancer
from heliostat_sim.policies.timer import repeat
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request

STATUS_INTERVAL_SECONDS = 0.1
SILENCE_SECONDS = 1.0
"""After so long without a word a peer is left out."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What a region tells the others."""

    least_queue_seconds: float | None
    """The queue of its least loaded engine; None if it has none."""
    prefill_seconds_per_token: float
    wire_bytes: int = 64


@dataclass(slots=True)
class _Peer:
    status: QueueStatus
    heard_at: float
    forwarded_tokens: int = 0
    """Since its last word."""


class Gorgo(PushingBalancer):
    """Scores own engines and other regions alike."""

    def __init__(self, port: GatewayPort) -> None:
        super().__init__(port)
        self._engine_trie = PrefixTrie()
        self._region_trie = PrefixTrie()
        self._queued = PrefillBooks()
        self._peers: dict[str, _Peer] = {}

    def start(self) -> None:
        """Tell peers at intervals."""
        repeat(self.port, STATUS_INTERVAL_SECONDS, self._tell)

    def place(self, request: Request) -> None:
        """Take the cheapest of own engines and other regions."""
        engines = self.health.working()
        best = min((self._engine_cost(request, e) for e in engines), default=float("inf"))
        if not request.forwarded:
            remote = min(
                (
                    (self._region_cost(request, region, peer), region)
                    for region, peer in self._peers.items()
                    if self._is_usable(peer)
                ),
                default=(float("inf"), ""),
            )
            if remote[0] < best:
                self._forward(request, remote[1])
                return
        super().place(request)

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose the cheapest."""
        return min(engines, key=lambda engine: self._engine_cost(request, engine))

    def on_dispatched(self, request: Request, engine: EngineHost) -> None:
        """Remember prefix and queue."""
        self._engine_trie.max_blocks = engine.profile.kv_blocks
        self._engine_trie.add(prompt_blocks(request), engine.address)
        self._engine_trie.trim(engine.address)
        self._queued.add(request, engine.address, request.prompt_tokens)

    def on_first_token(self, request: Request) -> None:
        """It queues no longer."""
        self._queued.release(request)

    def on_finished(self, request: Request) -> None:
        """Strike a request off the books."""
        super().on_finished(request)
        self._queued.release(request)

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """Place it anew."""
        self._queued.release(request)
        super().on_failed(request, engine)

    def on_sent_back(self, request: Request, region: str) -> None:
        """Leave the peer out until its next word."""
        self._peers.pop(region, None)
        super().on_sent_back(request, region)

    def on_message(self, sender: str, message: Any) -> None:
        """Keep a peer's status."""
        if isinstance(message, QueueStatus):
            self._peers[sender] = _Peer(message, self.port.now)

    def on_engines_changed(self) -> None:
        """Forget engines that have left."""
        self._engine_trie.keep_only(engine.address for engine in self.port.engines)
        super().on_engines_changed()

    def _engine_cost(self, request: Request, engine: EngineHost) -> float:
        rate = engine.profile.prefill_seconds_per_token / engine.profile.speed_ratio
        return (
            self.port.round_trip_seconds(engine.region)
            + rate * _uncached_tokens(request, self._engine_trie, engine.address)
            + rate * self._queued.tokens(engine.address)
        )

    def _region_cost(self, request: Request, region: str, peer: _Peer) -> float:
        rate = peer.status.prefill_seconds_per_token
        return (
            self.port.round_trip_seconds(region)
            + rate * _uncached_tokens(request, self._region_trie, region)
            + (peer.status.least_queue_seconds or 0.0)
            + rate * peer.forwarded_tokens
        )

    def _is_usable(self, peer: _Peer) -> bool:
        heard = self.port.now - peer.heard_at <= SILENCE_SECONDS
        return heard and peer.status.least_queue_seconds is not None

    def _forward(self, request: Request, region: str) -> None:
        self._peers[region].forwarded_tokens += request.prompt_tokens
        self._region_trie.add(prompt_blocks(request), region)
        self._region_trie.trim(region)
        self.port.forward(request, region)

    def _tell(self) -> None:
        status = QueueStatus(None, 0.0)
        engines = self.health.working()
        if engines:
            profile = engines[0].profile
            rate = profile.prefill_seconds_per_token / profile.speed_ratio
            queue = min(self._queued.tokens(engine.address) for engine in engines)
            status = QueueStatus(rate * queue, rate)
        for peer in self.port.peers:
            self.port.tell(peer, status)


def _uncached_tokens(request: Request, trie: PrefixTrie, target: str) -> int:
    depth = trie.depth(prompt_blocks(request), target)
    return request.prompt_tokens - depth * request.chain.block_tokens

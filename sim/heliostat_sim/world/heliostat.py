"""The production router as a gateway's balancer: turns what happens into events, and back.

What the shell of the router process does with Envoy, the engines and the clock, this does with the
world; every decision is `heliostat_routing`'s own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Any
from zlib import crc32

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import (
    Command,
    Dispatch,
    Enqueue,
    Evict,
    Forward,
    Reject,
    WakeAt,
)
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    EngineMetrics,
    Event,
    ForwardRefused,
    MetricsScraped,
    Outcome,
    PeerLost,
    PeerSettings,
    PeersUpdated,
    PoolUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    SiblingGone,
    SiblingSent,
    Tick,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import BLOCK_BYTES, EndpointSettings, PoolSettings
from heliostat_routing.siblings import SiblingEvent
from heliostat_sim.world.balancer import GatewayPort, Sibling
from heliostat_sim.world.engine_host import EngineHost, Scrape
from heliostat_sim.world.request import Ending, Request
from heliostat_sim.world.settings import SignalSettings, WorldSettings

POOL = "pool"
BYTES_PER_TOKEN = 4
KEY_TOKENS = BLOCK_BYTES // BYTES_PER_TOKEN
Observer = Callable[[float, Event, list[Command]], None]


@dataclass(frozen=True, slots=True)
class RegionState:
    """What one router tells the routers of other regions."""

    writer: str
    capacities: tuple[tuple[str, PoolCapacity], ...]
    received: dict[str, int]
    """By the router that the requests came from."""
    heads: tuple[int, ...]
    """The prefixes that are asked for most."""
    epoch: int
    news: bool
    """Whether the heads are others than in the state before, and so are on the wire."""

    @property
    def wire_bytes(self) -> int:
        """About what it takes on the wire: varints and doubles, and one count for each ingress."""
        keys = len(self.heads) if self.news else 0
        return 24 + 64 * len(self.capacities) + 16 * len(self.received) + 8 * keys


RelayedEvent = SiblingEvent | MetricsScraped | ScrapeFailed


@dataclass(frozen=True, slots=True)
class Words:
    """What one router tells its siblings at once."""

    events: tuple[RelayedEvent, ...]

    @property
    def wire_bytes(self) -> int:
        """About what it takes on the wire: a header each, and the block keys."""
        keys = sum(len(e.request.block_keys) for e in self.events if isinstance(e, SiblingSent))
        return 32 * len(self.events) + 8 * keys


class HeliostatBalancer:
    """One router. `observe` sees each event and what the core answers: for recordings."""

    def __init__(
        self,
        port: GatewayPort,
        pool: PoolSettings,
        signals: SignalSettings,
        observe: Observer | None = None,
    ) -> None:
        self.router = Router()
        self._port = port
        self._pool = pool
        self._signals = signals
        self._observe = observe
        self._requests: dict[int, Request] = {}
        self._fallbacks: dict[int, tuple[str, ...]] = {}
        self._hosts: dict[str, EngineHost] = {}
        self._scrape_loops: dict[str, int] = {}
        """The number of each address's latest loop: earlier ones stop at their next turn."""
        self._scraping: dict[str, EngineHost] = {}
        """Who is scraped from here: each engine by one of the region's gateways."""
        self._relay = self.router.relay(port.name)
        self._siblings: frozenset[Sibling] = frozenset()
        self._heard_at: dict[str, float] = {}
        """When each peer was heard last that is not lost."""
        self._told_heads: tuple[int, ...] = ()
        self._to_tell: list[tuple[float, RelayedEvent]] = []
        self._told_at = -inf
        self._flushes = False
        """Whether words are about to be told."""
        self._wake_at: float | None = None

    # What happens

    def start(self) -> None:
        """Tell the core its endpoints, and begin to scrape them."""
        port = self._port
        if self._signals.relays:
            self._siblings = frozenset(port.siblings)
            port.follow_siblings(self._on_siblings_changed)
        self.on_engines_changed()
        if port.peers:
            peers = tuple(PeerSettings(p, port.round_trip_seconds(p)) for p in port.peers)
            self._tell(PeersUpdated(peers))
            port.call_at(port.now + self._state_seconds, self._publish)

    def on_engines_changed(self) -> None:
        """Discovery has changed."""
        self._hosts = {engine.address: engine for engine in self._port.engines}
        endpoints = tuple(EndpointSettings(address) for address in self._hosts)
        self._tell(PoolUpdated(POOL, self._pool, endpoints))
        self._share_scrapes()

    def _on_siblings_changed(self) -> None:
        """Gateways of this region have gone, or come and know nothing yet."""
        before, self._siblings = self._siblings, frozenset(self._port.siblings)
        for sibling in sorted(before - self._siblings):
            self._tell(SiblingGone(sibling.name))
        for sibling in sorted(self._siblings - before):
            words = Words(tuple(self._relay.snapshot(self._port.now)))
            self._port.tell_siblings(words, sibling.name)
        self._share_scrapes()

    def _share_scrapes(self) -> None:
        """Scrape the engines that fall to this gateway, and no others."""
        before = self._scraping
        self._scraping = {a: host for a, host in self._hosts.items() if self._scrapes(a)}
        for address, host in self._scraping.items():
            if before.get(address) is not host:
                loop = self._scrape_loops.get(address, 0) + 1
                self._scrape_loops[address] = loop
                self._scrape_after(host, loop, 0.0)

    def on_request(self, request: Request) -> None:
        """A request asks for an endpoint."""
        self._requests[request.id] = request
        chain = request.chain
        self._tell(
            RequestArrived(
                ticket=request.id,
                pool=POOL,
                block_keys=chain.keys(request.prompt_tokens, KEY_TOKENS // chain.block_tokens),
                prompt_bytes=request.prompt_tokens * BYTES_PER_TOKEN,
                max_output_tokens=request.max_output_tokens,
                affinity_key=request.user,
                origin=request.ingress.name if request.forwarded else None,
                hold_seconds=request.hold_seconds,
            )
        )

    def on_first_token(self, request: Request) -> None:
        """Response bodies pass by the router."""

    def on_finished(self, request: Request) -> None:
        """The stream is over: tell the core, and a little later what the access log says."""
        self._requests.pop(request.id, None)
        self._fallbacks.pop(request.id, None)
        self._tell(RequestFinished(request.id))
        now = self._port.now
        at = now + self._signals.access_log_seconds
        self._port.call_at(at, lambda: self._tell(self._measured(request, now)))

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """The proxy goes on to the next fallback, or gives up."""
        self._tell(AttemptFailed(request.id, engine.address))
        fallbacks = self._fallbacks.get(request.id, ())
        while fallbacks:
            address, fallbacks = fallbacks[0], fallbacks[1:]
            host = self._hosts.get(address)
            if host is not None:
                self._fallbacks[request.id] = fallbacks
                self._tell(AttemptStarted(request.id, address))
                self._port.dispatch(request, host)
                return
        self._requests.pop(request.id, None)
        self._tell(RequestFinished(request.id))
        self._port.end(request, Ending.BROKEN)

    def on_sent_back(self, request: Request, region: str) -> None:
        """A peer could not serve it."""
        request.hold_seconds = None
        self._tell(ForwardRefused(request.id, region))

    def on_message(self, sender: str, message: Any) -> None:
        """A peer tells its state, or a sibling what it has done and seen."""
        if isinstance(message, Words):
            for event in message.events:
                self._tell(event)
            return
        state: RegionState = message
        self._heard_at[sender] = self._port.now
        self._tell(
            RegionStateReceived(
                region=sender,
                writer=state.writer,
                capacities=state.capacities,
                received=state.received.get(self._port.name, 0),
                round_trip_seconds=self._port.round_trip_seconds(sender),
                heads=state.heads,
                epoch=state.epoch,
            )
        )

    def _publish(self) -> None:
        """Tell all peers what this region could take, and the core which of them are silent."""
        port, router = self._port, self.router
        heads = router.heads() if self._signals.heads else ()
        state = RegionState(
            writer=port.name,
            capacities=router.capacities(port.now),
            received=dict(router.received),
            heads=heads,
            epoch=port.life,
            news=heads != self._told_heads,
        )
        self._told_heads = heads
        for region in port.peers:
            port.tell(region, state)
        self._lose_silent()
        port.call_at(port.now + self._state_seconds, self._publish)

    @property
    def _state_seconds(self) -> float:
        """Between two states, as the budget of states allows."""
        signals = self._signals
        budget = len(self._port.peers) / signals.states_per_second
        return max(signals.state_interval_seconds, budget)

    def _lose_silent(self) -> None:
        """Tell the core of peers that have missed their states for too long."""
        port = self._port
        limit_seconds = max(self._signals.peer_lost_seconds, 2 * self._state_seconds)
        for region, heard_at in list(self._heard_at.items()):
            if port.now - heard_at > limit_seconds + port.round_trip_seconds(region):
                del self._heard_at[region]
                self._tell(PeerLost(region))

    # What the core is told, and what it answers

    def _tell(self, event: Event) -> None:
        now = self._port.now
        commands = self.router.handle(event, now)
        if self._observe is not None:
            self._observe(now, event, commands)
        if self._siblings:
            self._pass_on(self._relay.told(event, commands, now))
        for command in commands:
            match command:
                case Dispatch():
                    self._dispatch(command)
                case Forward(ticket, region, hold_seconds):
                    request = self._requests[ticket]
                    request.hold_seconds = hold_seconds
                    self._port.forward(request, region)
                case WakeAt(at):
                    self._wake_at = at
                    self._port.call_at(at, lambda at=at: self._tick(at))  # type: ignore[misc]
                case Reject(ticket):
                    self._refuse(self._requests.pop(ticket), Ending.REJECTED)
                case Evict(ticket):
                    self._refuse(self._requests.pop(ticket), Ending.EXPIRED)
                case Enqueue():
                    pass

    def _pass_on(self, events: Iterable[RelayedEvent]) -> None:
        """Tell siblings: at once after a pause, else with all that comes up in an interval."""
        now = self._port.now
        self._to_tell += ((now, event) for event in events)
        if not self._flushes and (self._to_tell or self._relay.queues_due):
            self._flushes = True
            self._port.call_at(self._told_at + self._signals.relay_interval_seconds, self._flush)

    def _flush(self) -> None:
        now = self._told_at = self._port.now
        words: list[RelayedEvent] = []
        for at, event in self._to_tell:
            if isinstance(event, SiblingSent):
                words.append(replace(event, age_seconds=event.age_seconds + now - at))
            else:
                words.append(event)
        queues = self._relay.queues(now)
        if queues is not None:
            words.append(queues)
        self._to_tell, self._flushes = [], False
        if words:
            self._port.tell_siblings(Words(tuple(words)))

    def _refuse(self, request: Request, ending: Ending) -> None:
        """Give a forwarded request back to its ingress; answer others with an error."""
        if request.forwarded:
            self._port.send_back(request)
        else:
            self._port.end(request, ending)

    def _dispatch(self, command: Dispatch) -> None:
        first, *fallbacks = command.endpoints
        self._fallbacks[command.ticket] = tuple(fallbacks)
        self._port.dispatch(self._requests[command.ticket], self._hosts[first])

    def _tick(self, at: float) -> None:
        if self._wake_at == at:
            self._wake_at = None
            self._tell(Tick())

    def _measured(self, request: Request, ended_at: float) -> RequestMeasured:
        """The access log entry of a request whose stream ended here at this instant."""
        served = request.ending is Ending.SERVED
        sent_at = request.dispatched_at
        token_at = request.upstream_token_at
        return RequestMeasured(
            ticket=request.id,
            endpoint=request.engine.address if request.engine is not None else None,
            outcome=Outcome.SERVED if served else Outcome.ENGINE_FAILED,
            ttft_seconds=token_at - sent_at if token_at and sent_at is not None else None,
            duration_seconds=ended_at - sent_at if sent_at is not None else None,
            prompt_tokens=request.prompt_tokens if served else None,
            cached_tokens=request.cached_tokens if served else None,
            output_tokens=request.output_tokens if served else None,
            output_bytes=request.output_tokens * BYTES_PER_TOKEN if served else None,
        )

    # Scrapes

    def _scrapes(self, address: str) -> bool:
        """Whether the engine falls to this gateway: to the one with the highest hash with it."""
        own = crc32(f"{self._port.name} {address}".encode())
        return all(own > crc32(f"{s.name} {address}".encode()) for s in self._siblings)

    def _scrape_after(self, host: EngineHost, loop: int, seconds: float) -> None:
        self._port.call_at(self._port.now + seconds, lambda: self._scrape(host, loop))

    def _goes_on(self, host: EngineHost, loop: int) -> bool:
        address = host.address
        return self._scraping.get(address) is host and self._scrape_loops[address] == loop

    def _scrape(self, host: EngineHost, loop: int) -> None:
        if self._goes_on(host, loop):
            self._port.probe(host, lambda metrics: self._on_scraped(host, loop, metrics))

    def _on_scraped(self, host: EngineHost, loop: int, metrics: Scrape | None) -> None:
        if not self._goes_on(host, loop):
            return
        event: MetricsScraped | ScrapeFailed = ScrapeFailed(host.address)
        if metrics is not None:
            event = MetricsScraped(host.address, scraped(metrics, host.profile.kv_tokens))
        self._tell(event)
        if self._siblings:
            self._pass_on((event,))
        busy = self.router.inflight(host.address) > 0 and metrics is not None
        signals = self._signals
        shortest = len(self._scraping) / signals.scrapes_per_second
        wait = signals.scrape_interval_seconds if busy else signals.idle_scrape_interval_seconds
        wait = max(wait, shortest)
        self._scrape_after(host, loop, wait * (0.9 + 0.2 * self._port.random.random()))


def scraped(metrics: Scrape, kv_capacity_tokens: int) -> EngineMetrics:
    """The engine model's metrics as the scraper reads them from vLLM's page."""
    totals = metrics.totals
    return EngineMetrics(
        running_requests=metrics.running_requests,
        waiting_requests=metrics.waiting_requests,
        kv_cache_utilization=metrics.kv_cache_utilization,
        finished_requests=metrics.finished_requests,
        prompt_tokens=totals.prompt_tokens,
        generation_tokens=totals.generated_tokens,
        prefix_query_tokens=totals.prefix_queried_tokens,
        prefix_hit_tokens=totals.prefix_hit_tokens,
        first_tokens=metrics.prefilled_requests,
        kv_capacity_tokens=kv_capacity_tokens,
    )


def pool_settings(settings: WorldSettings) -> PoolSettings:
    """The pool as its manifest would say it, the assumed prefill rate as wrong as is asked for."""
    ratio = settings.signals.assumed_prefill_ratio
    return PoolSettings(
        prefill_tokens_per_second=ratio / settings.profile.prefill_seconds_per_token,
        kv_capacity_tokens=settings.profile.kv_tokens,
        queue_timeout_seconds=settings.queue_timeout_seconds,
        queue_limit=settings.queue_limit,
        network_seconds=settings.within_seconds / 2,
    )

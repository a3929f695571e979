"""A gateway: the streams that pass through it, and the balancer that places them."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from heliostat_sim.world.balancer import Balancer, Sibling
from heliostat_sim.world.engine_host import EngineHost, Scrape
from heliostat_sim.world.request import Ending, Request

if TYPE_CHECKING:  # the world makes its gateways
    from heliostat_sim.world.world import World

BalancerFactory = Callable[["Gateway"], Balancer]


class Gateway:
    """One gateway of one region; what its balancer does goes through here (a GatewayPort)."""

    def __init__(self, world: "World", region: str, number: int, factory: BalancerFactory) -> None:
        self.world = world
        self.region = region
        self.name = f"{region}-{number}"
        self.alive = True
        self.life = 0
        """Counts restarts: what an earlier life asked for no longer happens."""
        self.open: dict[int, Request] = {}
        """Requests that this gateway places, from their coming to their end."""
        self.lent: dict[int, Request] = {}
        """Requests that came here and were forwarded."""
        self.known = True
        """Whether its siblings believe it to be up."""
        self._on_siblings_changed: Callable[[], None] | None = None
        self._factory = factory
        self._random = Random(f"gateway/{world.seed}/{self.name}")  # noqa: S311 - reproducible
        self.balancer = factory(self)

    # What the balancer reads

    @property
    def peers(self) -> tuple[str, ...]:
        """The other regions that have gateways and exchange states with this one."""
        return self.world.peers_of[self.region]

    @property
    def siblings(self) -> tuple[Sibling, ...]:
        """The other gateways of the region that are believed to be up."""
        others = (g for g in self.world.all_gateways_of(self.region) if g is not self)
        return tuple(Sibling(other.name, other.life) for other in others if other.known)

    @property
    def engines(self) -> tuple[EngineHost, ...]:
        """The engines that it may dispatch to."""
        if self.world.settings.single_gateway is not None:
            return self.world.known_engines()
        return self.world.known_engines(self.region)

    @property
    def all_engines(self) -> tuple[EngineHost, ...]:
        """The engines of all regions."""
        return self.world.known_engines()

    @property
    def random(self) -> Random:
        """Its own stream of random numbers."""
        return self._random

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.world.loop.now

    def round_trip_seconds(self, region: str) -> float:
        """The round trip to a region."""
        return self.world.network.round_trip_seconds(self.region, region)

    # What the balancer does

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        """Run the action at this instant, unless the gateway has restarted until then."""
        life = self.life
        self.world.loop.at(at, lambda: action() if life == self.life else None)

    def dispatch(self, request: Request, engine: EngineHost) -> None:
        """Send a request to an engine."""
        loop = self.world.loop
        request.engine = engine
        request.dispatched_at = loop.now
        way = self.world.network.way_seconds(self.region, engine.region)
        loop.after(way, lambda: self._arrive(request, engine))

    def _arrive(self, request: Request, engine: EngineHost) -> None:
        if request.gateway is not self or request.ending is not None:
            return
        if self.world.network.reaches(self.region, engine.region) and engine.submit(request):
            return
        wait = self._failure_seconds(engine.region)
        self._later(wait, request, lambda: self.balancer.on_failed(request, engine))

    def forward(self, request: Request, region: str) -> None:
        """Send a request to another region's gateway."""
        self.lent[request.id] = self.open.pop(request.id)
        request.forwarded = True
        way = self.world.network.way_seconds(self.region, region)
        self.world.loop.after(way, lambda: self._reach(request, region))

    def _reach(self, request: Request, region: str) -> None:
        if request.ending is not None or request.ingress is not self:
            return
        peer = self.world.pick_gateway(region)
        if peer is None or not self.world.network.reaches(self.region, region):
            wait = self._failure_seconds(region)
            self.world.loop.after(wait, lambda: self.take_back(request, region))
            return
        peer.receive(request)

    def _failure_seconds(self, region: str) -> float:
        """From the arrival of what fails in a region until it is known here.

        A refusal comes back; across a cut link only the time-out tells, from the sending on.
        """
        way = self.world.network.way_seconds(self.region, region)
        if self.world.network.reaches(self.region, region):
            return way
        return max(way, self.world.settings.connect_timeout_seconds - way)

    def receive(self, request: Request) -> None:
        """Take a request in, from its client or from a peer."""
        request.gateway = self
        self.open[request.id] = request
        self.balancer.on_request(request)

    def send_back(self, request: Request) -> None:
        """Refuse a forwarded request: its ingress places it anew."""
        del self.open[request.id]
        request.gateway = None
        ingress = request.ingress
        loop, network = self.world.loop, self.world.network
        way = network.way_seconds(self.region, ingress.region)

        def arrive() -> None:
            if network.reaches(self.region, ingress.region):
                ingress.take_back(request, self.region)
                return
            wait = max(0.0, self.world.settings.connect_timeout_seconds - way)
            loop.after(wait, lambda: ingress.take_back(request, self.region))

        loop.after(way, arrive)

    def take_back(self, request: Request, region: str) -> None:
        """Place a request anew that a peer has refused."""
        if self.lent.pop(request.id, None) is None:
            self.world.break_off(request)
            return
        request.forwarded = False
        request.gateway = self
        self.open[request.id] = request
        self.balancer.on_sent_back(request, region)

    def end(self, request: Request, ending: Ending) -> None:
        """Answer a request with an error."""
        del self.open[request.id]
        way = self.world.network.way_seconds(self.region, request.ingress.region)
        if request.ingress is not self:
            self.world.loop.after(way, lambda: request.ingress.close(request))
        way += self.world.network.way_seconds(request.ingress.region, request.region)
        self.world.finish(request, ending, self.now + way)

    def probe(self, engine: EngineHost, answer: Callable[[Scrape | None], None]) -> None:
        """Ask an engine for its metrics."""
        world, life = self.world, self.life
        signals = world.settings.signals
        way = world.network.way_seconds(self.region, engine.region)
        back = way + signals.scrape_delay_seconds
        lost = bool(signals.scrape_loss_ratio) and (
            self._random.random() < signals.scrape_loss_ratio
        )

        def reply(metrics: Scrape | None) -> None:
            if life == self.life:
                answer(metrics)

        def read() -> None:
            if not world.network.reaches(self.region, engine.region):
                world.loop.after(self._failure_seconds(engine.region), lambda: reply(None))
                return
            metrics = None if lost else engine.metrics()
            world.loop.after(back, lambda: reply(metrics))

        world.loop.after(way, read)

    def tell(self, region: str, message: Any) -> None:
        """Send a message to each balancer of another region."""
        world = self.world
        receivers = len(world.gateways_of(region))
        world.records.messages += receivers
        world.records.message_bytes += receivers * getattr(message, "wire_bytes", 0)
        way = world.network.way_seconds(self.region, region)
        sender = self.region

        def deliver() -> None:
            if not world.network.reaches(sender, region):
                return
            for peer in world.gateways_of(region):
                peer.balancer.on_message(sender, message)

        world.loop.after(way, deliver)

    def follow_siblings(self, on_changed: Callable[[], None]) -> None:
        """Be told whenever `siblings` has changed."""
        self._on_siblings_changed = on_changed

    def tell_siblings(self, message: Any, only: str | None = None) -> None:
        """Send a message to the balancers of the region's other gateways, or of one of them."""
        world = self.world
        others = [g for g in world.gateways_of(self.region) if g is not self]
        receivers = [g for g in others if only in (None, g.name)]
        world.records.relays += len(receivers)
        world.records.relay_bytes += len(receivers) * getattr(message, "wire_bytes", 0)
        lives = [(gateway, gateway.life) for gateway in receivers]

        def deliver() -> None:
            for gateway, life in lives:
                if gateway.alive and gateway.life == life:
                    gateway.balancer.on_message(self.name, message)

        world.loop.after(world.settings.signals.relay_seconds, deliver)

    # What happens to its streams

    def on_first_token(self, request: Request, at: float) -> None:
        """An engine has made the first token of a request that this gateway placed."""
        network = self.world.network
        upstream_at = at + network.way_seconds(self.region, request.engine.region)
        ingress = request.ingress.region
        request.upstream_token_at = upstream_at
        request.first_token_at = (
            upstream_at
            + (network.way_seconds(self.region, ingress) if request.ingress is not self else 0.0)
            + network.way_seconds(ingress, request.region)
        )
        life = self.life
        self.world.loop.at(upstream_at, lambda: self._pass_first_token(request, life))

    def _pass_first_token(self, request: Request, life: int) -> None:
        if life == self.life and request.ending is None:
            self.balancer.on_first_token(request)

    def on_finished(self, request: Request, at: float) -> None:
        """An engine has made the last token, or its streams were cut."""
        network = self.world.network
        here_at = at + network.way_seconds(self.region, request.engine.region)
        self.world.loop.at(here_at, lambda: self.close(request))
        ingress, client_at = request.ingress, here_at
        if ingress is not self:
            client_at += network.way_seconds(self.region, ingress.region)
            ingress_at = client_at
            self.world.loop.at(ingress_at, lambda: ingress.close(request))
        client_at += network.way_seconds(ingress.region, request.region)
        self.world.finish(request, request.ending or Ending.SERVED, client_at)

    def close(self, request: Request) -> None:
        """A stream is over that passed through here."""
        known = self.open.pop(request.id, None) or self.lent.pop(request.id, None)
        if known is not None and self.alive:
            self.balancer.on_finished(request)

    def _later(self, seconds: float, request: Request, action: Callable[[], None]) -> None:
        """Run an action about an open request, unless it or this life of the gateway is over."""
        life = self.life

        def act() -> None:
            if life == self.life and request.id in self.open:
                action()

        self.world.loop.after(seconds, act)

    # Faults

    def stop(self) -> list[Request]:
        """Die, or restart without memory; return the requests that only this router knew."""
        self.life += 1
        life, wait = self.life, self.world.settings.signals.sibling_lost_seconds
        self.world.loop.after(wait, lambda: self._be_known(up=False) if life == self.life else None)
        lost = [r for r in self.open.values() if r.engine is None or r.id not in r.engine.requests]
        self.open.clear()
        self.lent.clear()
        return lost

    def restart(self) -> None:
        """Begin anew with an empty memory."""
        self.alive = True
        self.life += 1
        self.balancer = self._factory(self)
        self.balancer.start()
        self._be_known(up=True)

    def _be_known(self, *, up: bool) -> None:
        """Let siblings believe that it is up, or that it is not."""
        self.known = up
        for gateway in self.world.gateways_of(self.region):
            if gateway is not self and gateway._on_siblings_changed is not None:
                gateway._on_siblings_changed()

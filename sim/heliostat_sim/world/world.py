"""The world: regions of engines and gateways, the clients that ask them, and what breaks."""

from collections.abc import Iterator
from itertools import count
from random import Random

from heliostat_sim.world.client import Client
from heliostat_sim.world.demand import Arrival, Demand
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.faults import schedule_faults
from heliostat_sim.world.gateway import BalancerFactory, Gateway
from heliostat_sim.world.loop import EventLoop
from heliostat_sim.world.network import Network
from heliostat_sim.world.records import Records, Sample
from heliostat_sim.world.request import Ending, Request
from heliostat_sim.world.settings import WorldSettings


class World:
    """Holds everything together; one instance is one run."""

    def __init__(
        self, settings: WorldSettings, demand: Demand, factory: BalancerFactory, seed: int
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.loop = EventLoop()
        self.records = Records()
        self.network = Network(settings.round_trips, settings.within_seconds)
        self._ids = count(1)
        self._random = Random(f"world/{seed}")  # noqa: S311 - reproducible, not secret
        self.open: dict[int, Request] = {}
        """Requests that clients wait for."""
        self.broken: dict[int, Request] = {}
        """Requests whose clients are about to send them again."""
        self.engines: dict[str, tuple[EngineHost, ...]] = {
            region.name: tuple(
                self._make_engine(region.name, number) for number in range(region.engines)
            )
            for region in settings.regions
        }
        self._known: dict[str, tuple[EngineHost, ...]] = {}
        self._all_known: tuple[EngineHost, ...] = ()
        self._list_engines()
        single = settings.single_gateway
        placed = [r for r in settings.regions if single is None or r.name == single]
        self.gateway_regions = tuple(region.name for region in placed)
        self.peers_of = self._find_peers()
        """By region: those that it exchanges states with."""
        self._gateways: dict[str, tuple[Gateway, ...]] = {}
        for region in placed:
            self._gateways[region.name] = tuple(
                Gateway(self, region.name, number, factory) for number in range(region.gateways)
            )
        self._arrivals = demand.arrivals
        self._closed = demand.closed

    def _make_engine(self, region: str, number: int) -> EngineHost:
        return EngineHost(
            f"{region}-{number}",
            region,
            self.settings.profile,
            self.loop,
            lambda request, at: request.gateway.on_first_token(request, at),
            lambda request, at: request.gateway.on_finished(request, at),
        )

    def _find_peers(self) -> dict[str, tuple[str, ...]]:
        """Pairs of regions of which one has chosen the other."""
        regions, most = self.gateway_regions, self.settings.signals.most_peers
        if most is None or most >= len(regions):
            return {one: tuple(r for r in regions if r != one) for one in regions}
        chosen = {
            one: self.network.partners(one, [r for r in regions if r != one], most)
            for one in regions
        }
        return {
            one: tuple(r for r in regions if r != one and (r in chosen[one] or one in chosen[r]))
            for one in regions
        }

    def run(self) -> Records:
        """Run to the end and return what was written down."""
        for gateway in self.all_gateways():
            gateway.balancer.start()
        for closed in self._closed:
            client = Client(self, closed.region, closed.sessions, closed.stops_at)
            self.loop.at(closed.starts_at, client.start)
        self._next_arrival()
        schedule_faults(self)
        self.loop.at(0.0, self._sample)
        self.loop.run(self.settings.duration_seconds)
        self._sum_up()
        return self.records

    # What there is

    def known_engines(self, region: str | None = None) -> tuple[EngineHost, ...]:
        """The engines that discovery lists, of one region or of all."""
        return self._all_known if region is None else self._known.get(region, ())

    def list_engines(self) -> None:
        """Let discovery look anew, and tell the gateways."""
        self._list_engines()
        for gateway in self.all_gateways():
            gateway.balancer.on_engines_changed()

    def _list_engines(self) -> None:
        self._known = {
            region: tuple(engine for engine in engines if engine.alive)
            for region, engines in self.engines.items()
        }
        self._all_known = tuple(e for engines in self._known.values() for e in engines)

    def all_gateways(self) -> Iterator[Gateway]:
        """The gateways that are up."""
        for gateways in self._gateways.values():
            yield from (gateway for gateway in gateways if gateway.alive)

    def gateways_of(self, region: str) -> tuple[Gateway, ...]:
        """The gateways of a region that are up."""
        return tuple(gateway for gateway in self._gateways[region] if gateway.alive)

    def all_gateways_of(self, region: str) -> tuple[Gateway, ...]:
        """The gateways of a region, dead or alive."""
        return self._gateways.get(region, ())

    def pick_gateway(self, region: str) -> Gateway | None:
        """One of a region's gateways, at random."""
        gateways = self._gateways[region]
        if len(gateways) == 1:
            return gateways[0] if gateways[0].alive else None
        alive = self.gateways_of(region)
        return self._random.choice(alive) if alive else None

    # A request's way

    def next_id(self) -> int:
        """A number for a new request."""
        return next(self._ids)

    def send(self, request: Request) -> None:
        """Take a request from its client to the nearest gateway that is up."""
        self.open[request.id] = request
        gateway = self._nearest(request.region)
        if gateway is None:
            self.finish(request, Ending.BROKEN, self.loop.now)
            return
        request.ingress = gateway
        way = self.network.way_seconds(request.region, gateway.region)
        life = gateway.life

        def arrive() -> None:
            if gateway.life == life and gateway.alive:
                gateway.receive(request)
            else:
                self.finish(request, Ending.BROKEN, self.loop.now + way)

        self.loop.after(way, arrive)

    def _nearest(self, region: str) -> Gateway | None:
        if region in self._gateways:
            gateway = self.pick_gateway(region)
            if gateway is not None:
                return gateway
        by_distance = sorted(
            self.gateway_regions, key=lambda r: self.network.round_trip_seconds(region, r)
        )
        return next((g for r in by_distance if (g := self.pick_gateway(r)) is not None), None)

    def finish(self, request: Request, ending: Ending, at: float) -> None:
        """Let a request's client know its end at this instant."""
        if request.ending is not None:
            return
        request.ending = ending
        request.ended_at = at
        self.loop.at(at, lambda: self._tell_client(request))

    def _tell_client(self, request: Request) -> None:
        if self.open.pop(request.id, None) is not None:
            client, ask = request.source
            client.on_ended(request, ask)

    def break_off(self, request: Request) -> None:
        """Cut a request's stream, wherever it is: its client will notice after the way back."""
        if request.ending is not None:
            return
        if request.engine is not None:
            request.engine.abort(request)
        ingress = request.ingress
        way = self.network.way_seconds(ingress.region, request.region)
        self.finish(request, Ending.BROKEN, self.loop.now + way)
        for gateway in {id(g): g for g in (request.gateway, ingress) if g is not None}.values():
            gateway.close(request)

    # Time

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is not None and arrival.at <= self.settings.duration_seconds:
            self.loop.at(arrival.at, lambda: self._begin(arrival))

    def _begin(self, arrival: Arrival) -> None:
        Client(self, arrival.region, iter((arrival.session,))).start()
        self._next_arrival()

    def _sample(self) -> None:
        engines = [engine for group in self.engines.values() for engine in group]
        placed = sum(len(engine.requests) for engine in engines)
        self.records.samples.append(
            Sample(
                at=self.loop.now,
                outstanding=tuple(len(engine.requests) for engine in engines),
                queued=max(0, len(self.open) - placed),
            )
        )
        if self.loop.now:
            alive = sum(engine.alive for engine in engines)
            self.records.engine_seconds += alive * self.settings.sample_seconds
        if self.loop.now + self.settings.sample_seconds <= self.settings.duration_seconds:
            self.loop.after(self.settings.sample_seconds, self._sample)

    def _sum_up(self) -> None:
        for request in (*self.open.values(), *self.broken.values()):
            self.records.note_open(request)
        for group in self.engines.values():
            for engine in group:
                if engine.alive:
                    self.note_totals(engine)

    def note_totals(self, engine: EngineHost) -> None:
        """Add an engine's counters, at the end or before they are lost."""
        totals = engine.totals
        self.records.preemptions += totals.preemptions
        self.records.generated_tokens += totals.generated_tokens
        self.records.prefill_tokens += totals.prompt_tokens - totals.cached_prompt_tokens

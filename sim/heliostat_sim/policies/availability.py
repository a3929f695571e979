"""When SkyLB pushes to an engine: never mind (BP), below a cap (SP-O), or when none waits (SP-P).

- Blind pushing (BP): always.
- Selective pushing by outstanding requests (SP-O): while the gateway's own open requests there are
  fewer than a cap. The paper names none; 10 is the default of its public load balancer.
- Selective pushing by pending requests (SP-P), SkyLB's own: while no request waited in the engine
  at the last probe, every 100 ms. Nothing is counted at dispatch. Engines count as available before
  their first probe. A probe without an answer leaves the engine as it was, as in the source; one
  that refused a request is unavailable until a probe answers again.
"""

from typing import Protocol

from heliostat_sim.policies.engine_health import EngineHealth
from heliostat_sim.policies.outstanding import Outstanding
from heliostat_sim.policies.timer import repeat
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost, Scrape

PROBE_INTERVAL_SECONDS = 0.1
OUTSTANDING_CAP_REQUESTS = 10


class Availability(Protocol):
    """Says which engines may be sent a request now."""

    def start(self) -> None:
        """Begin to probe."""

    def available(self) -> list[EngineHost]:
        """The gateway's engines that may be sent a request."""

    def on_failed(self, engine: EngineHost) -> None:
        """An engine refused a request."""

    def on_engines_changed(self) -> None:
        """The gateway's engines are others."""


class BlindPushing:
    """Every engine that works."""

    def __init__(self, port: GatewayPort) -> None:
        self._health = EngineHealth(port, on_recovered=lambda: None)

    def start(self) -> None:
        """Nothing to probe."""

    def available(self) -> list[EngineHost]:
        """All that work."""
        return self._health.working()

    def on_failed(self, engine: EngineHost) -> None:
        """Leave it alone until it answers."""
        self._health.suspect(engine)

    def on_engines_changed(self) -> None:
        """Trust those that are new."""
        self._health.forget_gone()


class OutstandingPushing(BlindPushing):
    """Engines with fewer open requests than the cap."""

    def __init__(
        self,
        port: GatewayPort,
        load: Outstanding,
        cap_requests: int = OUTSTANDING_CAP_REQUESTS,
    ) -> None:
        super().__init__(port)
        self._load = load
        self._cap_requests = cap_requests

    def available(self) -> list[EngineHost]:
        """All that work and are below the cap."""
        load, cap = self._load, self._cap_requests
        return [engine for engine in super().available() if load.count(engine.address) < cap]


class PendingPushing:
    """Engines in which no request waited at the last probe."""

    def __init__(self, port: GatewayPort) -> None:
        self._port = port
        self._unavailable: set[str] = set()

    def start(self) -> None:
        """Probe every engine at intervals."""
        repeat(self._port, PROBE_INTERVAL_SECONDS, self._probe)

    def available(self) -> list[EngineHost]:
        """All that had none waiting."""
        unavailable = self._unavailable
        return [engine for engine in self._port.engines if engine.address not in unavailable]

    def on_failed(self, engine: EngineHost) -> None:
        """Wait for the next probe."""
        self._unavailable.add(engine.address)

    def on_engines_changed(self) -> None:
        """Trust those that are new."""
        self._unavailable &= {engine.address for engine in self._port.engines}

    def _probe(self) -> None:
        for engine in self._port.engines:
            self._probe_one(engine)

    def _probe_one(self, engine: EngineHost) -> None:
        def answer(scrape: Scrape | None) -> None:
            if scrape is None:
                return
            if scrape.waiting_requests:
                self._unavailable.add(engine.address)
            else:
                self._unavailable.discard(engine.address)

        self._port.probe(engine, answer)

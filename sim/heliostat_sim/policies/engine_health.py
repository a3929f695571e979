"""Which engines to leave alone: one that refused a request, until it answers a probe again.

The published policies leave this to a health check that they do not describe. A passive check with
active recovery is what common load balancers do.
"""

from collections.abc import Callable

from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost, Scrape

PROBE_INTERVAL_SECONDS = 1.0
"""Between probes of an engine that refused."""


class EngineHealth:
    """Engines under suspicion, probed until they answer."""

    def __init__(self, port: GatewayPort, on_recovered: Callable[[], None]) -> None:
        self._port = port
        self._on_recovered = on_recovered
        self._suspects: set[str] = set()

    def working(self) -> list[EngineHost]:
        """The gateway's engines that are not under suspicion."""
        suspects = self._suspects
        return [engine for engine in self._port.engines if engine.address not in suspects]

    def suspect(self, engine: EngineHost) -> None:
        """Leave an engine alone until it answers."""
        if engine.address not in self._suspects:
            self._suspects.add(engine.address)
            self._probe_later(engine)

    def forget_gone(self) -> None:
        """Drop what is known of engines that have left; one that comes back is trusted."""
        self._suspects &= {engine.address for engine in self._port.engines}

    def _probe_later(self, engine: EngineHost) -> None:
        def probe() -> None:
            if engine.address in self._suspects:
                self._port.probe(engine, lambda scrape: self._answer(engine, scrape))

        self._port.call_at(self._port.now + PROBE_INTERVAL_SECONDS, probe)

    def _answer(self, engine: EngineHost, scrape: Scrape | None) -> None:
        if engine.address not in self._suspects:
            return
        if scrape is None:
            self._probe_later(engine)
            return
        self._suspects.discard(engine.address)
        self._on_recovered()

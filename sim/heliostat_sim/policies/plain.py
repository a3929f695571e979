"""The load balancers that everybody has: round robin, least load and ring hash.

Round robin: the engines in turn. Least load: the engine with the fewest of the gateway's own open
requests; the first of equals, as in SkyServe's `least_load`, which the SkyLB paper compares with.
Ring hash: the request's user on a consistent hash ring of about 100 points an engine, past engines
that do not work, as in Envoy's ring hash and SkyServe's port of it.
"""

from heliostat_sim.policies.hash_ring import HashRing
from heliostat_sim.policies.pushing import PushingBalancer
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request


class RoundRobin(PushingBalancer):
    """The engines in turn."""

    def __init__(self, port: GatewayPort) -> None:
        super().__init__(port)
        self._turn = 0

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose the next."""
        engine = engines[self._turn % len(engines)]
        self._turn += 1
        return engine


class LeastLoad(PushingBalancer):
    """The engine with the fewest open requests."""

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose the least loaded."""
        return min(engines, key=lambda engine: self.open.count(engine.address))


class RingHash(PushingBalancer):
    """The user's place on a consistent hash ring."""

    def __init__(self, port: GatewayPort) -> None:
        super().__init__(port)
        self._ring = HashRing()

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose the first working engine from the user's place on."""
        self._ring.set_targets(engine.address for engine in self.port.engines)
        by_address = {engine.address: engine for engine in engines}
        address = self._ring.pick(str(request.user), by_address)
        return engines[0] if address is None else by_address[address]

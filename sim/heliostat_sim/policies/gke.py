"""A cloud's global load balancer with capacity: GKE's multi-cluster gateway.

Source: Google Cloud, "capacity-based load balancing" of multi-cluster Gateways. Each service has a
capacity per endpoint. Traffic goes to the closest region until that is at capacity, and what
overflows goes to the next closest with capacity left (a waterfall by region). Inside a region
endpoints take turns (the default locality policy, round robin). When every region is at capacity,
traffic stays in the closest.

Assumed: capacity in requests in flight per engine (the product takes a rate or a utilisation; the
SkyLB paper does not say what it set), 24 by default: about what fits into an L4's KV cache at 1,200
tokens a request. Regions report their load to each other every second; a balancer adds what it has
forwarded since. A request is forwarded to the peer's gateway, which places it in its own region.
"""

from dataclasses import dataclass
from typing import Any

from heliostat_sim.policies.outstanding import Outstanding
from heliostat_sim.policies.pushing import PushingBalancer
from heliostat_sim.policies.timer import repeat
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request

CAPACITY_REQUESTS = 24
"""Per engine."""
REPORT_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a region tells the others."""

    room_requests: int
    """Capacity left; negative when over it."""
    engines: int
    wire_bytes: int = 64


class GkeGateway(PushingBalancer):
    """The closest region with capacity left; round robin inside."""

    def __init__(self, port: GatewayPort, capacity_requests: int = CAPACITY_REQUESTS) -> None:
        super().__init__(port)
        self._capacity_requests = capacity_requests
        self._turn = 0
        self._forwarded = Outstanding()
        self._reports: dict[str, LoadReport] = {}
        self._since_report: dict[str, int] = {}

    def start(self) -> None:
        """Report at intervals."""
        repeat(self.port, REPORT_INTERVAL_SECONDS, self._report)

    def place(self, request: Request) -> None:
        """Pour into the closest region with room, this one first."""
        engines = self.health.working()
        region = None
        if not request.forwarded and self._room(engines) <= 0:
            region = self._overflow_region(has_engines=bool(engines))
        if region is None:
            super().place(request)
            return
        self._forwarded.add(request, region)
        self._since_report[region] = self._since_report.get(region, 0) + 1
        self.port.forward(request, region)

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose the next."""
        engine = engines[self._turn % len(engines)]
        self._turn += 1
        return engine

    def on_finished(self, request: Request) -> None:
        """Strike a request off the books."""
        super().on_finished(request)
        self._forwarded.release(request)

    def on_sent_back(self, request: Request, region: str) -> None:
        """Believe the peer to be without room until it reports."""
        self._reports.pop(region, None)
        self._forwarded.release(request)
        super().on_sent_back(request, region)

    def on_message(self, sender: str, message: Any) -> None:
        """Keep a peer's report."""
        if isinstance(message, LoadReport):
            self._reports[sender] = message
            self._since_report[sender] = 0

    def _room(self, engines: list[EngineHost]) -> int:
        return sum(self._capacity_requests - self.open.count(e.address) for e in engines)

    def _overflow_region(self, *, has_engines: bool) -> str | None:
        """The closest peer with room; any peer with engines where there are none here."""
        peers = sorted(self._reports, key=self.port.round_trip_seconds)
        for peer in peers:
            if self._reports[peer].room_requests > self._since_report[peer]:
                return peer
        if has_engines:
            return None
        return next((peer for peer in peers if self._reports[peer].engines), None)

    def _report(self) -> None:
        engines = self.health.working()
        report = LoadReport(self._room(engines), len(engines))
        for peer in self.port.peers:
            self.port.tell(peer, report)

"""What every gateway's policy sees of the world, and what the world asks of it.

A balancer knows what a real load balancer could know: the requests that come to it, what it sent,
which streams have ended, what its probes brought back, and what its peers tell it. Only a
clairvoyant may look into `EngineHost.engine` directly.
"""

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, Protocol

from heliostat_sim.world.engine_host import EngineHost, Scrape
from heliostat_sim.world.request import Ending, Request


class Sibling(NamedTuple):
    """Another gateway of a region; one that has restarted is another one."""

    name: str
    life: int


class Balancer(Protocol):
    """Decides for one gateway. All methods are called at the world's `now`."""

    def start(self) -> None:
        """Set up timers and probes; the port is complete."""

    def on_request(self, request: Request) -> None:
        """Place a request: dispatch, forward or reject it now, or keep it and do so later.

        `request.forwarded` says that a peer has forwarded it: it may not be forwarded again.
        """

    def on_first_token(self, request: Request) -> None:
        """The first token of a request that this gateway dispatched has passed through it."""

    def on_finished(self, request: Request) -> None:
        """The stream of a request that this gateway dispatched or forwarded is over.

        `request.ending` tells how, where it has ended for the client too.
        """

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """The engine refused or lost the request before its headers: place it anew."""

    def on_sent_back(self, request: Request, region: str) -> None:
        """A peer has refused a forwarded request, or cannot be reached: place it anew.

        `request.forwarded` is unset again.
        """

    def on_message(self, sender: str, message: Any) -> None:
        """What a peer's balancer has sent, after the way between the regions."""

    def on_engines_changed(self) -> None:
        """`port.engines` has changed: engines came, or left for good."""


class GatewayPort(Protocol):
    """What a balancer can do and read."""

    @property
    def name(self) -> str:
        """The gateway's own name."""

    @property
    def life(self) -> int:
        """How often it has died or begun anew."""

    @property
    def region(self) -> str:
        """The region that the gateway is in."""

    @property
    def peers(self) -> tuple[str, ...]:
        """The other regions that have gateways."""

    @property
    def siblings(self) -> tuple[Sibling, ...]:
        """The other gateways of the region that are believed to be up."""

    @property
    def engines(self) -> tuple[EngineHost, ...]:
        """The engines that the gateway may dispatch to: its region's, or all of them."""

    @property
    def all_engines(self) -> tuple[EngineHost, ...]:
        """The engines of all regions that are up: for clairvoyants."""

    @property
    def random(self) -> Random:
        """The gateway's own stream of random numbers."""

    @property
    def now(self) -> float:
        """Seconds since the start."""

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        """Run the action at this instant. It cannot be cancelled: check when it comes."""

    def round_trip_seconds(self, region: str) -> float:
        """The measured round trip to a region, this one included."""

    def dispatch(self, request: Request, engine: EngineHost) -> None:
        """Send a request to an engine."""

    def forward(self, request: Request, region: str) -> None:
        """Send a request to another region's gateway."""

    def end(self, request: Request, ending: Ending) -> None:
        """Answer a request with an error: rejected or expired."""

    def send_back(self, request: Request) -> None:
        """Refuse a forwarded request before its headers: its ingress places it anew."""

    def probe(self, engine: EngineHost, answer: Callable[[Scrape | None], None]) -> None:
        """Ask an engine for its metrics; the answer comes a round trip later, None for an error."""

    def tell(self, region: str, message: Any) -> None:
        """Send a message to the balancers of another region's gateways."""

    def follow_siblings(self, on_changed: Callable[[], None]) -> None:
        """Be told whenever `siblings` has changed."""

    def tell_siblings(self, message: Any, only: str | None = None) -> None:
        """Send a message to the balancers of the region's other gateways, or of one of them."""

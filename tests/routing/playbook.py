"""Events in, commands out: a few words to write routing scenarios with, on a virtual clock."""

from collections.abc import Iterable

from heliostat_routing.commands import Command, Dispatch, WakeAt
from heliostat_routing.events import (
    EngineMetrics,
    Event,
    MetricsScraped,
    PoolUpdated,
    RequestArrived,
    Tick,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import BLOCK_BYTES, EndpointSettings, PoolSettings


def keys(*segments: tuple[str, int]) -> tuple[int, ...]:
    """Block keys of a prompt made of named segments of so many blocks: chained, like real ones."""
    chained: list[int] = []
    parent = 0
    for name, blocks in segments:
        for number in range(blocks):
            parent = hash((parent, name, number)) & (2**63 - 1) or 1
            chained.append(parent)
    return tuple(chained)


def metrics(**changes: float | None) -> EngineMetrics:
    """A scrape of an idle engine, with changes."""
    idle = {
        "running_requests": 0,
        "waiting_requests": 0,
        "kv_cache_utilization": 0.0,
        "finished_requests": 0,
        "prompt_tokens": 0,
        "generation_tokens": 0,
        "prefix_query_tokens": 0,
        "prefix_hit_tokens": 0,
    }
    return EngineMetrics(**{**idle, **changes})  # type: ignore[arg-type]


Room = tuple[int, int, int, frozenset[str] | None]


def walked_room(router: Router, now: float) -> dict[str, Room]:
    """What each pool could take, found by asking each endpoint: free, room, KV, adapters."""
    books, found = router._books, {}
    for pool in books.pools.values():
        free = room = kv_capacity_tokens = 0
        serving = pool.ready & books.fleet.serving
        for endpoint in books.fleet.among(serving):
            kv_capacity_tokens += endpoint.kv_capacity_tokens
            unused = endpoint.kv_capacity_tokens - endpoint.kv_used_tokens()
            fits = int((unused - pool.spare_tokens(endpoint.load)) / pool.usual_kv_tokens)
            fits = max(fits, 0 if endpoint.load else 1)
            room += fits
            free += fits > 0 and endpoint.available(now)
        holders = pool._adapters.items()
        adapters = frozenset(name for name, held in holders if held & serving)
        known = None if pool._any_adapter & serving else adapters
        found[pool.name] = free, room, kv_capacity_tokens, known
    return found


def told_room(router: Router, now: float) -> dict[str, Room]:
    """The same, as it is told to peers."""
    return {
        name: (told.free, told.room, told.kv_capacity_tokens, told.adapters)
        for name, told in router.capacities(now)
    }


class Playbook:
    """A router with one pool `p` on a clock of its own."""

    def __init__(self, endpoints: int | Iterable[EndpointSettings] = 2, **settings: object) -> None:
        self.router = Router()
        self.now = 0.0
        self.settings = PoolSettings(**settings)  # type: ignore[arg-type]
        if isinstance(endpoints, int):
            endpoints = [EndpointSettings(f"e{number}") for number in range(endpoints)]
        self.update(*endpoints)

    def update(self, *endpoints: EndpointSettings) -> list[Command]:
        """Tell the router the pool's endpoints."""
        return self.tell(PoolUpdated("p", self.settings, endpoints))

    def tell(self, event: Event, after: float = 0.0) -> list[Command]:
        """Hand over an event `after` seconds; return the commands but for the wake-up calls."""
        self.now += after
        commands = self.router.handle(event, self.now)
        return [command for command in commands if not isinstance(command, WakeAt)]

    def arrive(
        self, ticket: int, prompt: tuple[int, ...] = (), after: float = 0.0, **fields: object
    ) -> list[Command]:
        """A request arrives whose prompt is these blocks."""
        size = len(prompt) * BLOCK_BYTES
        return self.tell(
            RequestArrived(ticket, "p", prompt, size or 100, **fields),  # type: ignore[arg-type]
            after,
        )

    def tick(self, after: float) -> list[Command]:
        """Let time pass."""
        return self.tell(Tick(), after)

    def scrape(self, endpoint: str, after: float = 0.0, **changes: float | None) -> list[Command]:
        """The engine reports."""
        return self.tell(MetricsScraped(endpoint, metrics(**changes)), after)

    def inflight(self, endpoint: str) -> int:
        """What the ledger says of an endpoint."""
        return self.router.ledger.inflight(endpoint)


def target(commands: list[Command]) -> str | None:
    """Where the only dispatched request goes first; None if none was dispatched."""
    dispatches = [command for command in commands if isinstance(command, Dispatch)]
    assert len(dispatches) <= 1, dispatches
    return dispatches[0].endpoints[0] if dispatches else None


def targets(commands: list[Command]) -> dict[int, str]:
    """Where each dispatched request goes first, by ticket."""
    return {c.ticket: c.endpoints[0] for c in commands if isinstance(c, Dispatch)}

"""One request from its arrival until it is measured."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_routing.events import RequestArrived
from heliostat_routing.prefix_index import Runs

if TYPE_CHECKING:  # a pool's queue holds flights
    from heliostat_routing.pool import Pool


@dataclass(slots=True, eq=False)
class Flight:
    """What the router remembers of a request; the prediction fields describe its last dispatch."""

    ticket: int
    """Of the request, where it has come here; negative, where a sibling has sent it."""
    request: RequestArrived
    pool: "Pool"
    arrived_at: float
    deadline: float
    aged_at: float
    """From then on it goes before younger ones, to any endpoint with room for it."""
    unheld_at: float
    """From then on it takes any endpoint, and is held for none."""
    overdue_at: float
    """From then on it goes to any endpoint, room or not: the engine will find some."""
    prompt_tokens: float
    kv_tokens: float = 0.0
    endpoint: str | None = None
    dispatched_at: float = 0.0
    wait_seconds: float = 0.0
    uncached_tokens: float = 0.0
    load: float = 0.0
    """Of its endpoint when it was sent there."""
    depth: int = 0
    runs: Runs = ()
    stamp: float = 0.0
    hit_tokens: float = 0.0
    finished_at: float | None = None
    measured: bool = False
    failed_at: dict[str, int] = field(default_factory=dict)
    """Endpoints whose failure with this request has been counted, and after how many returns."""
    region: str | None = None
    """The peer region that it has been forwarded to."""
    refused: set[str] = field(default_factory=set)
    """Peer regions that are not asked again: they have refused it."""
    forwards: int = 0
    """How often it has been forwarded."""
    returns: int = 0
    """How often it has come back from endpoints here, none of which has answered."""
    queued: bool = False
    held_for: int | None = None
    """While queued: the slot it is held for, None if it takes any."""
    held_seconds: float = 0.0
    """While held: the prefill that it will bring to that slot."""
    reserves: int | None = None
    """Once aged: the slot whose room is kept for it, so that small requests do not overtake it."""

    def objective_seconds(self, now: float) -> float:
        """What is left of its objective for the first token: its own, else its pool's."""
        objective_seconds = self.request.ttft_objective_seconds
        if objective_seconds is None:
            objective_seconds = self.pool.settings.ttft_objective_seconds
        return max(0.0, objective_seconds - (now - self.arrived_at))

    @property
    def foreign(self) -> bool:
        """Whether a sibling has sent it: this router keeps account of it, and decides nothing."""
        return self.ticket < 0

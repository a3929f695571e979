"""What a pool could take now, in a few numbers: what one region tells another of it.

The same formula predicts the wait in a region's own queue and in a peer's, so that staying and
leaving are compared in one unit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class PoolCapacity:
    """A pool of one region at one instant. Counts are requests of the pool's usual size."""

    free: int
    """Requests that would start at once."""
    room: int
    """Requests that the free KV would hold, those that start at once among them."""
    queued: int
    """Requests that the router holds."""
    start_seconds: float
    """Between two starts, while KV lasts: a usual prefill, shared by the endpoints."""
    finish_seconds: float
    """Between two finishes, which is how often KV is released once it is full."""
    load: float
    """Requests in flight per endpoint."""
    prefill_tokens_per_second: float
    kv_capacity_tokens: int
    """Of all endpoints together."""
    adapters: frozenset[str] | None = None
    """Those that some endpoint can serve; None: any."""

    @property
    def serves(self) -> bool:
        """Whether any endpoint serves. What makes no sense is not believed, so it is none."""
        sane = (
            0 <= self.free < inf
            and 0 <= self.room < inf
            and 0 <= self.queued < inf
            and 0 <= self.start_seconds < inf
            and 0 <= self.finish_seconds < inf
            and 0 <= self.load < inf
            and 0 < self.prefill_tokens_per_second < inf
            and 0 < self.kv_capacity_tokens < inf
        )
        return sane and (self.adapters is None or isinstance(self.adapters, frozenset))

    def takes(self, adapter: str | None) -> bool:
        """Whether a request for this LoRA adapter, or for none, can be served."""
        return adapter is None or self.adapters is None or adapter in self.adapters

    def wait_seconds(self, ahead: int) -> float:
        """Predicted time until a request starts that so many others precede."""
        if ahead < self.free:
            return 0.0
        within = min(ahead, self.room)
        wait = max(0, within - self.free + 1) * self.start_seconds
        return wait + max(0, ahead + 1 - self.room) * self.finish_seconds


def combine(capacities: Sequence[PoolCapacity]) -> PoolCapacity:
    """One pool as several routers see it, which share one view of it and queue apart."""
    if len(capacities) == 1:
        return capacities[0]
    return PoolCapacity(
        free=min(c.free for c in capacities),
        room=min(c.room for c in capacities),
        queued=sum(c.queued for c in capacities),
        start_seconds=max(c.start_seconds for c in capacities),
        finish_seconds=max(c.finish_seconds for c in capacities),
        load=max(c.load for c in capacities),
        prefill_tokens_per_second=min(c.prefill_tokens_per_second for c in capacities),
        kv_capacity_tokens=max(c.kv_capacity_tokens for c in capacities),
        adapters=_all_adapters(c.adapters for c in capacities),
    )


def _all_adapters(views: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """The adapters that any of the views has; None: any."""
    known = list(views)
    named = [adapters for adapters in known if adapters is not None]
    return frozenset().union(*named) if len(named) == len(known) else None

"""What a pool could take now, in a few numbers: what one region tells another of it.

The same formula predicts the wait in a region's own queue and in a peer's, so that staying and
leaving are compared in one unit.
"""

from dataclasses import dataclass


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

    def wait_seconds(self, ahead: int) -> float:
        """Predicted time until a request starts that so many others precede."""
        if ahead < self.free:
            return 0.0
        within = min(ahead, self.room)
        wait = max(0, within - self.free + 1) * self.start_seconds
        return wait + max(0, ahead + 1 - self.room) * self.finish_seconds

"""What the router believes, as read-only data for metrics, status pages and tests."""

from dataclasses import dataclass
from enum import StrEnum

from heliostat_routing.settings import EndpointPhase


class BreakerState(StrEnum):
    """Whether an endpoint's recent failures keep requests away from it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """One request at a time may try it out."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint as the router sees it now; None where the engine has not reported."""

    address: str
    phase: EndpointPhase
    available: bool
    breaker: BreakerState
    inflight: int
    pending: int
    running_requests: int | None
    waiting_requests: int | None
    kv_cache_utilization: float | None
    indexed_tokens: float
    prefill_tokens_per_second: float


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool as the router sees it now."""

    pool: str
    policy: str
    queued: int
    inflight: int
    bytes_per_token: float
    endpoints: tuple[EndpointView, ...]

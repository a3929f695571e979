"""What the router believes, as read-only data for metrics, status pages and tests."""

from dataclasses import dataclass
from enum import StrEnum

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.settings import EndpointPhase


class BreakerState(StrEnum):
    """Whether an endpoint's recent failures keep requests away from it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """One request at a time may try it out."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint as the router sees it now; None where the engine has not reported.

    `inflight` are this router's own requests, `siblings_inflight` those that it knows its siblings
    to have sent there.
    """

    address: str
    phase: EndpointPhase
    available: bool
    breaker: BreakerState
    inflight: int
    siblings_inflight: int
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


class PeerReason(StrEnum):
    """Why nothing is sent to another region for now."""

    UNHEARD = "unheard"
    """It has said nothing yet."""
    SILENT = "silent"
    """Its last state is too old."""
    UNREACHED = "unreached"
    """The stream to it has ended or is not answered."""
    LEFT_ALONE = "left-alone"
    """It has given requests back, or answered them badly."""
    ON_TRIAL = "on-trial"
    """So it has, or has answered none for long; a few that try it out are not answered yet."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """Another region as the router sees it now; the counts are totals since it became a peer."""

    region: str
    usable: bool
    reason: PeerReason | None
    round_trip_seconds: float
    in_transit: int
    """Requests sent there that none of its states has counted yet."""
    forwarded: int
    refused: int
    """Requests that it has given back."""
    lost: int
    """Requests that came back because it was not reached."""
    backoff_seconds: float
    """How long it is left alone from now on."""
    capacities: tuple[tuple[str, PoolCapacity], ...]
    """By pool."""

"""What the router asks for: every output of the core, as data."""

from dataclasses import dataclass
from enum import StrEnum

from heliostat_routing.explanation import Explanation


class RejectReason(StrEnum):
    """Why a request was turned away at the door."""

    UNKNOWN_POOL = "unknown-pool"
    NO_ENDPOINTS = "no-endpoints"
    QUEUE_FULL = "queue-full"
    NOT_SERVED_FOR_PEERS = "not-served-for-peers"
    """Another region has forwarded it, and the pool serves this region's requests alone."""


class EvictReason(StrEnum):
    """Why a request that was queued is given up."""

    DEADLINE_PASSED = "deadline-passed"
    NO_ENDPOINTS = "no-endpoints"
    DISPLACED = "displaced"
    """The queue is full, and one of a higher priority has come."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the request to the first endpoint; the others, in order, are for retries."""

    ticket: int
    endpoints: tuple[str, ...]
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the request to another region's gateway, which may hold it so long before it refuses."""

    ticket: int
    region: str
    hold_seconds: float
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Hold the request: a Dispatch or an Evict follows, at the deadline at the latest."""

    ticket: int
    deadline: float
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer the request with an error: it was never queued."""

    ticket: int
    reason: RejectReason
    retry_after_seconds: float


@dataclass(frozen=True, slots=True)
class Evict:
    """Answer the queued request with an error."""

    ticket: int
    reason: EvictReason
    retry_after_seconds: float


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this instant; it replaces the instant asked for before."""

    at: float


Command = Dispatch | Forward | Enqueue | Reject | Evict | WakeAt

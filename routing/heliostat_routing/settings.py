"""What an operator can set about routing: one place for every unit, default and reason."""

from dataclasses import dataclass
from enum import StrEnum

BLOCK_BYTES = 512
"""Prompt bytes that one block key covers. About 128 tokens of English: fine enough to lose little
at the end of a match, coarse enough that a 500 KB prompt is a thousand keys."""


class PolicyName(StrEnum):
    """The routing policies."""

    HELIOSTAT = "heliostat"
    ROUND_ROBIN = "round-robin"
    LEAST_INFLIGHT = "least-inflight"
    CONSISTENT_HASH = "consistent-hash"


class EndpointPhase(StrEnum):
    """What the discovery says of an endpoint."""

    STARTING = "starting"
    """Will be ready soon: requests may wait for it."""
    READY = "ready"
    DRAINING = "draining"
    """Finishes what it has; takes nothing new."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One model-server address (`ip:port`) and what it serves.

    `adapters` are the LoRA adapters it holds; None means that it takes any.
    """

    address: str
    phase: EndpointPhase = EndpointPhase.READY
    adapters: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How one pool is routed."""

    policy: PolicyName = PolicyName.HELIOSTAT
    pending_limit: int = 0
    """Predicted pending requests up to which an endpoint is available. 0 keeps engine queues empty,
    so that every waiting request can still go to whichever endpoint frees first."""
    queue_limit: int = 1000
    """Requests held at the router; one more is rejected."""
    queue_timeout_seconds: float = 60.0
    """How long a request may be held before it is evicted."""
    age_bound_seconds: float = 5.0
    """A request held longer takes the first endpoint that is available, best or not."""
    ttft_objective_seconds: float = 1.0
    """Time to first token that the pool's users are content with. What is predicted to take longer
    weighs as much as if every request in flight beside it waited for it."""
    prefill_tokens_per_second: float = 8000.0
    """The prefill rate assumed until the access log has measured the real one."""
    kv_capacity_tokens: int = 100_000
    """KV capacity assumed until the engine has reported its own."""
    network_seconds: float = 0.001
    """One-way time between gateway and engine."""
    fallbacks: int = 2
    """Endpoints named after the winner, for retries before the response headers."""
    sends: bool = True
    """Whether requests may leave for other regions."""
    serves: bool = True
    """Whether requests of other regions are served."""
    residency: frozenset[str] | None = None
    """Regions, and groups of regions, where requests may be served; None: anywhere."""
    engine_price_per_hour: float = 2.0
    """Price of one engine, in the currency of the peers' prices: what a second is worth."""

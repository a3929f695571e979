"""How requests reach a pool's engines: fixed endpoints and the routing settings."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from heliostat_crds.duration import format_duration
from heliostat_crds.endpoint_address import EndpointAddress
from heliostat_crds.fields import DurationBetween, Items, Strict
from heliostat_routing.settings import PoolSettings

_DEFAULTS = PoolSettings()

_QueueTimeout = Annotated[str, DurationBetween("1ms", "1h")]
_AgeBound = Annotated[str, DurationBetween("0s", "1h")]
_FirstTokenObjective = Annotated[str, DurationBetween("1ms", "1h")]


class Policy(StrEnum):
    """How an endpoint is chosen."""

    HELIOSTAT = "Heliostat"
    ROUND_ROBIN = "RoundRobin"
    LEAST_INFLIGHT = "LeastInflight"
    CONSISTENT_HASH = "ConsistentHash"


class Phase(StrEnum):
    """Whether an endpoint takes new requests."""

    READY = "Ready"
    DRAINING = "Draining"


class Endpoint(Strict):
    """One model server at a fixed address."""

    address: EndpointAddress
    """IP address and port; without a port, `spec.engine.port`."""
    adapters: (
        Annotated[
            Items[Annotated[str, Field(min_length=1, max_length=256)]],
            Field(max_length=128, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """The adapters that this endpoint holds, of those in `spec.engine.adapters`; all if unset."""
    phase: Annotated[Phase, Field(strict=False)] = Phase.READY
    """`Draining` finishes what it has and takes nothing new."""


class Routing(Strict):
    """How requests are spread over the endpoints."""

    policy: Annotated[Policy, Field(strict=False)] = Policy[_DEFAULTS.policy.name]
    """How an endpoint is chosen; all but `Heliostat` are there for comparison."""
    pending_limit: int = Field(default=_DEFAULTS.pending_limit, ge=0, le=10_000)
    """Requests that may wait inside an endpoint; above it, requests wait at the router."""
    queue_limit: int = Field(default=_DEFAULTS.queue_limit, ge=0, le=1_000_000)
    """Requests that may wait at the router; one more is answered with 429."""
    queue_timeout: _QueueTimeout = format_duration(_DEFAULTS.queue_timeout_seconds)
    """How long a request may wait at the router before it is answered with 503."""
    age_bound: _AgeBound = format_duration(_DEFAULTS.age_bound_seconds)
    """A request that has waited longer takes the first endpoint that is available."""
    first_token_objective: _FirstTokenObjective = format_duration(_DEFAULTS.ttft_objective_seconds)
    """Time to first token that users are content with; what exceeds it weighs more."""
    prefill_tokens_per_second: int = Field(
        default=int(_DEFAULTS.prefill_tokens_per_second), ge=1, le=100_000_000
    )
    """Prefill speed of one endpoint, assumed until it has been measured."""
    fallbacks: int = Field(default=_DEFAULTS.fallbacks, ge=0, le=8)
    """Further endpoints that a request may be retried at."""

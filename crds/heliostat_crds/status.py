"""What is observed of a resource, as its status subresource holds it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from heliostat_crds.fields import Items, Strict

_ByType = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
_Count = Annotated[int, Field(ge=0)]
_Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Strict):
    """One thing that holds of the resource, or does not, and why."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Name of the condition."""
    status: Annotated[ConditionStatus, Field(strict=False)]
    """Whether the condition holds."""
    reason: Annotated[
        str,
        Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ]
    """Why, in one word."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, in a sentence for people."""
    last_transition_time: _Instant
    """When the status last changed."""
    observed_generation: int = 0
    """Generation of the spec that this is about."""


class PoolStatus(Strict):
    """What is observed of the pool."""

    observed_generation: int = 0
    """Generation of the spec that the status is about."""
    replicas: int = 0
    """Pods that exist and are not on their way out."""
    ready_replicas: int = 0
    """Pods, or fixed endpoints, that serve."""
    updated_replicas: int = 0
    """Pods that run the present spec."""
    selector: str = ""
    """Label selector of the pods, for autoscalers."""
    url: str = ""
    """Where clients reach the model."""
    conditions: Annotated[Items[Condition], Field(max_length=16, json_schema_extra=_ByType)] = ()
    """Ready, Progressing and Degraded, each with a reason."""


class PeerStatus(Strict):
    """What is observed of the peer, by all routers of this region together."""

    observed_generation: int = 0
    """Generation of the spec that the status is about."""
    round_trip: str = ""
    """Measured round trip to the peer's gateway, the longest of all routers'."""
    last_seen: _Instant | None = None
    """When the peer was last heard, by whichever router."""
    sent: _Count = 0
    """Requests sent there since the routers began."""
    received: _Count = 0
    """Requests that came from there since the routers began."""
    identity: Annotated[str, Field(max_length=2048)] = ""
    """The URI that the peer has proved to be."""
    conditions: Annotated[Items[Condition], Field(max_length=16, json_schema_extra=_ByType)] = ()
    """Connected and Degraded, each with a reason."""

"""The InferencePool: a set of endpoints that serve one model, and how requests reach them."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from heliostat_crds.address import Address, parse_address
from heliostat_crds.duration import format_duration, parse_duration
from heliostat_crds.fields import DurationBetween, Items, ModelName, Strict, first_repeated, misfit
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName, PoolSettings

API_VERSION = "heliostat.dev/v1alpha1"
KIND = "InferencePool"

_ROUTING_DEFAULTS = PoolSettings()
_DEFAULT_PORT = 8000

_ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        json_schema_extra={
            "allowed": "1 to 63 lower-case letters, digits and `-`, "
            "a letter or digit at both ends (DNS-1123)"
        },
    ),
]
_QueueTimeout = Annotated[str, DurationBetween("1ms", "1h")]
_AgeBound = Annotated[str, DurationBetween("0s", "1h")]


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


class Metadata(Strict):
    """Which object this is."""

    name: _ObjectName
    """Name of the pool, unique in its namespace."""
    namespace: _ObjectName | None = None
    """Namespace of the pool."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels, for people and tools."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations, for people and tools."""


class Model(Strict):
    """The model that the pool serves."""

    name: ModelName
    """The model's name as the engines know it; clients may ask for it."""
    aliases: Items[ModelName] = ()
    """Other names that clients may ask for; the engines are asked for `name`."""


class Adapter(Strict):
    """A LoRA adapter."""

    name: ModelName
    """The adapter's name as the engines know it; clients ask for it as a model."""


class Engine(Strict):
    """The model servers."""

    port: int = Field(default=_DEFAULT_PORT, ge=1, le=65535)
    """Port of the endpoints whose address names none."""
    adapters: Items[Adapter] = ()
    """The LoRA adapters that the engines serve."""


class Endpoint(Strict):
    """One model server at a fixed address."""

    address: str = Field(
        json_schema_extra={"allowed": "`10.0.0.7:8000`, `[fd00::7]:8000`; port optional"}
    )
    """IP address and port; without a port, `spec.engine.port`."""
    adapters: Items[ModelName] | None = None
    """The adapters that this endpoint holds, of those in `spec.engine.adapters`; all if unset."""
    phase: Annotated[Phase, Field(strict=False)] = Phase.READY
    """`Draining` finishes what it has and takes nothing new."""


class Routing(Strict):
    """How requests are spread over the endpoints."""

    policy: Annotated[Policy, Field(strict=False)] = Policy[_ROUTING_DEFAULTS.policy.name]
    """How an endpoint is chosen; all but `Heliostat` are there for comparison."""
    pending_limit: int = Field(default=_ROUTING_DEFAULTS.pending_limit, ge=0, le=10_000)
    """Requests that may wait inside an endpoint; above it, requests wait at the router."""
    queue_limit: int = Field(default=_ROUTING_DEFAULTS.queue_limit, ge=0, le=1_000_000)
    """Requests that may wait at the router; one more is answered with 429."""
    queue_timeout: _QueueTimeout = format_duration(_ROUTING_DEFAULTS.queue_timeout_seconds)
    """How long a request may wait at the router before it is answered with 503."""
    age_bound: _AgeBound = format_duration(_ROUTING_DEFAULTS.age_bound_seconds)
    """A request that has waited longer takes the first endpoint that is available."""
    prefill_tokens_per_second: int = Field(
        default=int(_ROUTING_DEFAULTS.prefill_tokens_per_second), ge=1, le=100_000_000
    )
    """Prefill speed of one endpoint, assumed until it has been measured."""
    fallbacks: int = Field(default=_ROUTING_DEFAULTS.fallbacks, ge=0, le=8)
    """Further endpoints that a request may be retried at."""


class Spec(Strict):
    """What the pool is meant to be."""

    model: Model
    """The model that the pool serves."""
    engine: Engine = Field(default_factory=Engine)
    """The model servers."""
    endpoints: Items[Endpoint] = ()
    """The model servers by address, for use without a cluster."""
    routing: Routing = Field(default_factory=Routing)
    """How requests are spread over the endpoints."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_names()
        self._check_addresses()
        self._check_endpoint_adapters()
        return self

    def _check_names(self) -> None:
        taken = {self.model.name: "model.name"}
        places = [(name, ("model", "aliases", i)) for i, name in enumerate(self.model.aliases)]
        named = [
            (adapter.name, ("engine", "adapters", i, "name"))
            for i, adapter in enumerate(self.engine.adapters)
        ]
        for name, at in [*places, *named]:
            if name in taken:
                raise misfit(f'"{name}" is already the name in {taken[name]}', *at)
            taken[name] = f"{at[0]}.{at[1]}"

    def _check_addresses(self) -> None:
        addresses: list[Address] = []
        for index, endpoint in enumerate(self.endpoints):
            try:
                addresses.append(parse_address(endpoint.address, self.engine.port))
            except ValueError as error:
                raise misfit(str(error), "endpoints", index, "address") from error
        repeated = first_repeated(addresses)
        if repeated is not None:
            raise misfit(f"{addresses[repeated]} is listed twice", "endpoints", repeated, "address")

    def _check_endpoint_adapters(self) -> None:
        known = {adapter.name for adapter in self.engine.adapters}
        for index, endpoint in enumerate(self.endpoints):
            for position, name in enumerate(endpoint.adapters or ()):
                if name not in known:
                    raise misfit(
                        f'"{name}" is not in spec.engine.adapters;'
                        f" known: {', '.join(sorted(known)) or 'none'}",
                        *("endpoints", index, "adapters", position),
                    )


class InferencePool(Strict):
    """A set of endpoints that serve one model."""

    api_version: Literal["heliostat.dev/v1alpha1"]
    """Version of this format."""
    kind: Literal["InferencePool"]
    """Kind of resource."""
    metadata: Metadata
    """Which object this is."""
    spec: Spec
    """What the pool is meant to be."""

    @property
    def key(self) -> str:
        """The pool's name for the router: `namespace/name`, or `name` where it has none."""
        meta = self.metadata
        return meta.name if meta.namespace is None else f"{meta.namespace}/{meta.name}"

    def pool_settings(self) -> PoolSettings:
        """Translate `spec.routing` for the routing core."""
        routing = self.spec.routing
        return PoolSettings(
            policy=PolicyName[routing.policy.name],
            pending_limit=routing.pending_limit,
            queue_limit=routing.queue_limit,
            queue_timeout_seconds=parse_duration(routing.queue_timeout),
            age_bound_seconds=parse_duration(routing.age_bound),
            prefill_tokens_per_second=float(routing.prefill_tokens_per_second),
            fallbacks=routing.fallbacks,
        )

    def endpoint_settings(self) -> tuple[EndpointSettings, ...]:
        """Translate `spec.endpoints` for the routing core."""
        return tuple(
            EndpointSettings(
                address=str(parse_address(endpoint.address, self.spec.engine.port)),
                phase=EndpointPhase[endpoint.phase.name],
                adapters=None if endpoint.adapters is None else frozenset(endpoint.adapters),
            )
            for endpoint in self.spec.endpoints
        )

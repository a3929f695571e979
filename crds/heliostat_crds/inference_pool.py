"""The InferencePool: the engines that serve one model, and how requests reach them."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from heliostat_crds.address import parse_address
from heliostat_crds.duration import parse_duration
from heliostat_crds.engine import Engine
from heliostat_crds.federation import Federation
from heliostat_crds.fields import Items, Strict, first_repeated
from heliostat_crds.metadata import Metadata
from heliostat_crds.model import Model
from heliostat_crds.placement import (
    Accelerator,
    Disruption,
    Placement,
    PodTemplate,
    Rollout,
    Selector,
)
from heliostat_crds.routing import Endpoint, Routing
from heliostat_crds.rules import Misfit, Rule, unchanged
from heliostat_crds.validation import first_problem
from heliostat_crds.wire_names import API_VERSION
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName, PoolSettings

__all__ = ["API_VERSION", "KIND", "InferencePool", "PoolError", "PoolKind", "Spec"]

KIND = "InferencePool"


class PoolError(ValueError):
    """An object of the API server is no pool that this version can carry out."""


class PoolKind(StrEnum):
    """Whose the engines of a pool are; a pool's kind never changes."""

    MANAGED = "Managed"
    """The operator runs them."""
    ADOPTED = "Adopted"
    """Pods that others run, found by `spec.selector`."""
    FIXED = "Fixed"
    """The addresses in `spec.endpoints`."""


def _adapter_named(spec: "Spec", names: Collection[str], place: str) -> Misfit | None:
    for index, adapter in enumerate(spec.engine.adapters):
        if adapter.name in names:
            message = f'"{adapter.name}" is already the name in {place}'
            return Misfit(("engine", "adapters", index, "name"), message)
    return None


def _repeated_address(spec: "Spec") -> Misfit | None:
    addresses = [parse_address(it.address, spec.engine.port) for it in spec.endpoints]
    repeated = first_repeated(addresses)
    if repeated is None:
        return None
    return Misfit(("endpoints", repeated, "address"), f"{addresses[repeated]} is listed twice")


def _unknown_adapter(spec: "Spec") -> Misfit | None:
    known = {adapter.name for adapter in spec.engine.adapters}
    for index, endpoint in enumerate(spec.endpoints):
        for position, name in enumerate(endpoint.adapters or ()):
            if name not in known:
                told = ", ".join(sorted(known)) or "none"
                return Misfit(
                    ("endpoints", index, "adapters", position),
                    f'"{name}" is not in spec.engine.adapters; known: {told}',
                )
    return None


def _misplaced_accelerator(spec: "Spec") -> Misfit | None:
    for part in ("requests", "limits"):
        if spec.accelerator.resource in getattr(spec.engine.resources, part):
            return Misfit(("engine", "resources", part, spec.accelerator.resource))
    return None


class Spec(Strict):
    """What the pool is meant to be."""

    model: Model
    """The model that the pool serves."""
    replicas: int = Field(default=1, ge=0, le=10_000)
    """Engines that the operator runs; 0 is allowed. `kubectl scale` sets it."""
    engine: Engine = Field(default_factory=Engine)
    """The model servers."""
    accelerator: Accelerator = Field(default_factory=Accelerator)
    """What an engine computes on."""
    placement: Placement = Field(default_factory=Placement)
    """Which machines the engines run on."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How a change of the spec reaches the engines."""
    disruption: Disruption = Field(default_factory=Disruption)
    """What evictions may take."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """Merged over the pods that the operator makes, for what the other fields do not foresee."""
    selector: Annotated[
        Selector | None,
        Field(
            json_schema_extra={
                "x-kubernetes-validations": [
                    unchanged("the selector cannot be changed; create another pool").validation()
                ]
            }
        ),
    ] = None
    """Adopts pods that others run: the operator then runs none. Cannot be changed."""
    endpoints: Annotated[
        Items[Endpoint],
        Field(
            max_length=1000,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["address"],
            },
        ),
    ] = ()
    """Model servers at fixed addresses: the operator then runs none."""
    routing: Routing = Field(default_factory=Routing)
    """How requests are spread over the endpoints."""
    federation: Federation = Field(default_factory=Federation)
    """What the pool has to do with other regions."""

    rules = (
        Rule(
            "give selector or endpoints, not both",
            cel="!(has(self.selector) && has(self.endpoints) && self.endpoints.size() > 0)",
            check=lambda it: (
                Misfit(("endpoints",)) if it.selector is not None and it.endpoints else None
            ),
        ),
        Rule(
            "replicas is for engines that the operator runs; take it out of a pool with selector"
            " or endpoints",
            cel=(
                "self.replicas == 1 ||"
                " !(has(self.selector) || (has(self.endpoints) && self.endpoints.size() > 0))"
            ),
            check=lambda it: (
                Misfit(("replicas",))
                if it.replicas != 1 and (it.selector is not None or it.endpoints)
                else None
            ),
        ),
        Rule(
            "selector cannot be added or removed later; create another pool",
            cel="has(self.selector) == has(oldSelf.selector)",
        ),
        Rule(
            "a pool cannot change between engines that the operator runs and fixed endpoints;"
            " create another pool",
            cel=(
                "(has(self.endpoints) && self.endpoints.size() > 0)"
                " == (has(oldSelf.endpoints) && oldSelf.endpoints.size() > 0)"
            ),
        ),
        Rule(
            "engine.port cannot be changed where the operator runs the engines; create another"
            " pool",
            cel=(
                "has(self.selector) || (has(self.endpoints) && self.endpoints.size() > 0)"
                " || self.engine.port == oldSelf.engine.port"
            ),
        ),
        Rule(
            "the name of an adapter is already the name in model.name",
            cel=(
                "!has(self.engine.adapters)"
                " || !self.engine.adapters.exists(a, a.name == self.model.name)"
            ),
            message_cel="'\"' + self.model.name + '\" is already the name in model.name'",
            check=lambda it: _adapter_named(it, (it.model.name,), "model.name"),
        ),
        Rule(
            "the name of an adapter is already the name in model.aliases",
            cel=(
                "!has(self.engine.adapters) || !has(self.model.aliases)"
                " || !self.engine.adapters.exists(a, a.name in self.model.aliases)"
            ),
            message_cel=(
                "'\"' +"
                " self.model.aliases.filter(n, self.engine.adapters.exists(a, a.name == n))[0] +"
                " '\" is already the name in model.aliases'"
            ),
            check=lambda it: _adapter_named(it, it.model.aliases, "model.aliases"),
        ),
        Rule("an endpoint is listed twice", check=_repeated_address),
        Rule("an endpoint holds an adapter that the pool does not have", check=_unknown_adapter),
        Rule(
            "set spec.accelerator.count instead of the accelerator's resource",
            cel=(
                "!has(self.engine.resources) ||"
                " !((has(self.engine.resources.requests)"
                " && self.accelerator.resource in self.engine.resources.requests)"
                " || (has(self.engine.resources.limits)"
                " && self.accelerator.resource in self.engine.resources.limits))"
            ),
            check=_misplaced_accelerator,
        ),
    )


class InferencePool(Strict):
    """The engines that serve one model, and how requests reach them."""

    api_version: Literal["heliostat.dev/v1alpha1"]
    """Version of this format."""
    kind: Literal["InferencePool"]
    """Kind of resource."""
    metadata: Metadata
    """Which object this is."""
    spec: Spec
    """What the pool is meant to be."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Self:
        """Read an object that an API server gave; under 1 ms.

        What this version does not know is left out, `status` too. PoolError says, in one line,
        what cannot be carried out.
        """
        try:
            return cls.model_validate(obj, extra="ignore")
        except ValidationError as error:
            raise PoolError(first_problem(error, cls)) from error

    @property
    def key(self) -> str:
        """The pool's name for the router: `namespace/name`, or `name` where it has none."""
        meta = self.metadata
        return meta.name if meta.namespace is None else f"{meta.namespace}/{meta.name}"

    @property
    def pool_kind(self) -> PoolKind:
        """Whose the engines are."""
        if self.spec.selector is not None:
            return PoolKind.ADOPTED
        return PoolKind.FIXED if self.spec.endpoints else PoolKind.MANAGED

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may ask for: the model's, its aliases, the adapters'."""
        model = self.spec.model
        return (model.name, *model.aliases, *(it.name for it in self.spec.engine.adapters))

    def pool_settings(self) -> PoolSettings:
        """Translate `spec.routing` and `spec.federation` for the routing core."""
        routing, federation = self.spec.routing, self.spec.federation
        residency = federation.residency
        return PoolSettings(
            policy=PolicyName[routing.policy.name],
            pending_limit=routing.pending_limit,
            queue_limit=routing.queue_limit,
            queue_timeout_seconds=parse_duration(routing.queue_timeout),
            age_bound_seconds=parse_duration(routing.age_bound),
            ttft_objective_seconds=parse_duration(routing.first_token_objective),
            prefill_tokens_per_second=float(routing.prefill_tokens_per_second),
            fallbacks=routing.fallbacks,
            sends=federation.mode.sends,
            serves=federation.mode.serves,
            residency=None if residency is None else frozenset(residency),
            engine_price_per_hour=federation.engine_price_per_hour,
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

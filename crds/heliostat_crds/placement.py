"""Where engines run and how they are replaced: accelerators, machines, rollouts, disruptions."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from heliostat_crds.fields import FreeForm, Items, Labels, ObjectName, Strict
from heliostat_crds.rules import Misfit, Rule
from heliostat_crds.validation import shown
from heliostat_crds.wire_names import POOL_LABEL

_ATOMIC = {"x-kubernetes-list-type": "atomic"}


class Accelerator(Strict):
    """What an engine computes on."""

    resource: Annotated[
        str,
        Field(
            max_length=317,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            json_schema_extra={"allowed": "DOMAIN/NAME, such as `nvidia.com/gpu`"},
        ),
    ] = "nvidia.com/gpu"
    """The resource that machines offer accelerators as."""
    count: int = Field(default=1, ge=0, le=64)
    """Accelerators of one engine; more than 1 splits the model over them
    (`--tensor-parallel-size`), 0 runs on the CPU."""


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Strict):
    """A taint that the pods tolerate, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; unset matches every key, with operator `Exists`."""
    operator: Annotated[TolerationOperator, Field(strict=False)] = TolerationOperator.EQUAL
    """`Exists` matches every value."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: Annotated[TaintEffect, Field(strict=False)] | None = None
    """Effect of the taint; unset matches every effect."""
    toleration_seconds: int | None = None
    """How long a pod stays after a `NoExecute` taint has come; for ever if unset."""

    rules = (
        Rule(
            'a toleration without key needs operator "Exists"',
            cel="has(self.key) || self.operator == 'Exists'",
            check=lambda it: (
                Misfit(("operator",))
                if not it.key and it.operator is not TolerationOperator.EXISTS
                else None
            ),
        ),
        Rule(
            'operator "Exists" takes no value',
            cel="!has(self.value) || self.operator != 'Exists'",
            check=lambda it: (
                Misfit(("value",))
                if it.value is not None and it.operator is TolerationOperator.EXISTS
                else None
            ),
        ),
        Rule(
            'tolerationSeconds is for effect "NoExecute" only',
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            check=lambda it: (
                Misfit(("tolerationSeconds",))
                if it.toleration_seconds is not None and it.effect is not TaintEffect.NO_EXECUTE
                else None
            ),
        ),
    )


class Placement(Strict):
    """Which machines the engines run on."""

    node_selector: Labels = Field(default_factory=dict, max_length=32)
    """Labels that a machine must have."""
    tolerations: Annotated[Items[Toleration], Field(max_length=32, json_schema_extra=_ATOMIC)] = ()
    """Taints that the pods tolerate."""
    affinity: FreeForm = Field(default_factory=dict)
    """Affinity rules, as in a pod."""
    topology_spread: Annotated[Items[FreeForm], Field(max_length=8, json_schema_extra=_ATOMIC)] = ()
    """`topologySpreadConstraints` of a pod; without a `labelSelector` they count the pods of this
    pool."""
    runtime_class_name: ObjectName | None = None
    """The RuntimeClass of the pods, such as `nvidia`."""
    priority_class_name: ObjectName | None = None
    """The PriorityClass of the pods."""


class RolloutStrategy(StrEnum):
    """How pods are replaced when the spec changes."""

    SURGE = "Surge"
    REPLACE = "Replace"


class Rollout(Strict):
    """How a change of the spec reaches the engines."""

    strategy: Annotated[RolloutStrategy, Field(strict=False)] = RolloutStrategy.SURGE
    """`Surge` starts a new pod before it drains an old one, and so needs one spare place;
    `Replace` drains an old one first, for clusters that are full."""


class Disruption(Strict):
    """What evictions (a node being drained) may take."""

    max_unavailable: int = Field(default=1, ge=0, le=10_000)
    """Pods that may be away at once by eviction; 0 refuses every eviction."""


class PodTemplateMetadata(Strict):
    """Labels and annotations of the pods."""

    labels: Labels = Field(default_factory=dict, max_length=64)
    """Further labels."""
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Further annotations."""

    rules = (
        Rule(
            f"the operator sets the label {POOL_LABEL} itself; take it out of podTemplate",
            cel=f"!has(self.labels) || !('{POOL_LABEL}' in self.labels)",
            check=lambda it: Misfit(("labels", POOL_LABEL)) if POOL_LABEL in it.labels else None,
        ),
    )


class PodTemplate(Strict):
    """What the other fields do not foresee."""

    metadata: PodTemplateMetadata = Field(default_factory=PodTemplateMetadata)
    """Labels and annotations of the pods."""
    spec: FreeForm = Field(default_factory=dict)
    """Part of a PodSpec, merged over the operator's own: mappings by key, containers, volumes and
    ports by name; the engine's container is named `engine`."""


_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
    re.ASCII,
)
_MAX_LABEL_KEY_CHARACTERS = 317


def _impossible_key(selector: "Selector") -> Misfit | None:
    for key in selector.match_labels:
        if len(key) > _MAX_LABEL_KEY_CHARACTERS or not _LABEL_KEY.fullmatch(key):
            return Misfit(("matchLabels",), f"{shown(key)} is not the key of a label")
    return None


class Selector(Strict):
    """Which pods are adopted."""

    match_labels: Labels = Field(min_length=1, max_length=16)
    """Labels that a pod must have, in the pool's namespace."""

    # Not in CEL: keys have no bound on their length, without which patterns cost too much there.
    rules = (Rule("no label can have such a key", check=_impossible_key),)

"""What a scenario asks for: one kind of workload, and the shape of its requests."""

from typing import Annotated, Literal

from pydantic import Field

from heliostat_crds.fields import Items, Strict
from heliostat_sim.demand.arrivals import ArrivalProcess, GammaBursts, OnOffBursts, Poisson
from heliostat_sim.scenario.values import Count, Seconds, Share, Some, SomeSeconds

RATE, CLIENTS, WEIGHT = "rate", "clients", "weight"
"""What a region must say of itself, by kind of workload."""


class LengthSpec(Strict):
    """A lognormal length in tokens."""

    mean: Some
    deviation: Count
    max: Some


class ChatShape(Strict):
    """What may differ from the published chats."""

    users: Some | None = None
    """In each region."""
    mean_turns: Annotated[float, Field(ge=1, le=1000)] | None = None
    single_turns: Share | None = None
    """The share of chats with one turn."""
    user_tokens: LengthSpec | None = None
    answer_tokens: LengthSpec | None = None
    max_output_tokens: Some | None = None
    max_context_tokens: Some | None = None
    answers: Literal["engine", "recorded"] = "engine"
    """What later prompts hold: the engine's answers, or the data set's."""


class ChatWorkload(ChatShape):
    """Closed-loop clients that hold chat after chat."""

    kind: Literal["arena", "wildchat"]


class PoissonSpec(Strict):
    """Arrivals that know nothing of each other."""

    kind: Literal["poisson"]

    def process(self) -> ArrivalProcess:
        """What makes the instants."""
        return Poisson()


class GammaSpec(Strict):
    """Gaps with a coefficient of variation."""

    kind: Literal["gamma"]
    cv: Annotated[float, Field(gt=0, le=100)]

    def process(self) -> ArrivalProcess:
        """What makes the instants."""
        return GammaBursts(self.cv)


class OnOffSpec(Strict):
    """Bursts and quiet times in turn."""

    kind: Literal["on-off"]
    busy: SomeSeconds
    """Mean time of a burst."""
    quiet: SomeSeconds
    """Mean time between two."""
    quiet_rate: Share = 0.0
    """The rate between bursts, of that in them."""

    def process(self) -> ArrivalProcess:
        """What makes the instants."""
        return OnOffBursts(self.busy, self.quiet, self.quiet_rate)


class StormSpec(Strict):
    """From an instant on, many chats share a hot prefix."""

    at: Seconds
    share: Share
    prefixes: Some = 1
    prefix_tokens: Some = 3000


class OpenChatWorkload(ChatShape):
    """Chats that arrive by themselves."""

    kind: Literal["open-chat"]
    chat: Literal["arena", "wildchat"]
    arrivals: Annotated[PoissonSpec | GammaSpec | OnOffSpec, Field(discriminator="kind")] = (
        PoissonSpec(kind="poisson")
    )
    day: SomeSeconds | None = None
    """How long a day is, for regions whose rate goes round with it."""
    storms: Items[StormSpec] = ()


class TreeWorkload(Strict):
    """Closed-loop clients that run tree of thoughts after tree of thoughts."""

    kind: Literal["tree-of-thoughts"]
    branches: Annotated[int, Field(ge=1, le=8)] = 2
    """Unless the region says otherwise."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    shared_tokens: Some = 500
    question_tokens: LengthSpec | None = None
    instruction_tokens: Some = 20
    answer_tokens: LengthSpec | None = None
    max_output_tokens: Some = 512


class SingleTurnWorkload(Strict):
    """Single questions behind shared heads."""

    kind: Literal["single-turn"]
    heads_per_region: Some = 8
    head_tokens: Some = 512
    question_tokens: Some = 128
    answer_tokens: Some = 64


class TraceWorkload(Strict):
    """A recorded trace, or a part of it."""

    kind: Literal["mooncake", "azure"]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$")]
    """Its name in the folder of traces."""
    start: Seconds = 0.0
    """Where in the trace to begin."""
    time_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Seconds of the trace that pass in one second."""
    shared_tokens: Count = 0
    """Of an azure trace: how many tokens all its prompts begin with in common."""


Workload = Annotated[
    ChatWorkload | OpenChatWorkload | TreeWorkload | SingleTurnWorkload | TraceWorkload,
    Field(discriminator="kind"),
]


def traffic_field(workload: Workload) -> str:
    """The field by which each region says how much it asks for."""
    if isinstance(workload, ChatWorkload | TreeWorkload):
        return CLIENTS
    return WEIGHT if isinstance(workload, TraceWorkload) else RATE

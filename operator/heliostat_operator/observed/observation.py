"""All that is known of a pool at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from heliostat_crds.claims import Conflict
from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.status import Condition
from heliostat_operator.observed.deployment import DeploymentView
from heliostat_operator.observed.pod import PodView


@dataclass(frozen=True, slots=True)
class AdapterFailure:
    """An adapter that an engine would not load, and what it answered."""

    adapter: str
    pod: str
    message: str


@dataclass(frozen=True, slots=True)
class Observation:
    """A pool and what is seen of it.

    `pool` is None where the object cannot be read as a pool; `spec_problem` then says why. It also
    holds why objects could not be made or applied (`spec.podTemplate`, or the API server refuses
    them). `pods` are all that the pool's selector matches. `deployment` is the newest known: what
    the last apply gave, or what was watched since. `conflicts` are those that this pool lost.
    `previous` are the conditions in the object's present status.
    """

    name: str
    generation: int
    pool: InferencePool | None
    pods: Sequence[PodView]
    deployment: DeploymentView | None
    previous: Sequence[Condition]
    now: datetime
    url: str = ""
    spec_problem: str = ""
    conflicts: Sequence[Conflict] = ()
    adapter_failures: Sequence[AdapterFailure] = ()

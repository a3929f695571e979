"""What a discovery tells the router: the whole truth at one instant, never a difference."""

from dataclasses import dataclass

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.problem import ManifestProblem


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools in force, no two with one key or one model name, and all that is wrong."""

    pools: tuple[InferencePool, ...] = ()
    problems: tuple[ManifestProblem, ...] = ()

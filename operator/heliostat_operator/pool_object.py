"""A pool as the API server holds it, read once per version."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from heliostat_crds.inference_pool import InferencePool, PoolError
from heliostat_crds.status import Condition
from heliostat_kube.resource import Json
from heliostat_operator.live_object import version_of


@dataclass(frozen=True)
class PoolObject:
    """One pool: `pool` is None where the object cannot be read as one, `problem` then says why.

    `status` is the present one. Two are equal where uid, generation, deletion and status are.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool
    status: Mapping[str, Any]
    pool: InferencePool | None = field(compare=False)
    problem: str = field(compare=False)
    version: int = field(compare=False)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def reference(self) -> Json:
        """What an event needs to know of it."""
        return {"metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid}}


def parse_pool_object(obj: Json) -> PoolObject:
    """Read a pool from the API; never raises."""
    metadata = obj["metadata"]
    pool, problem = None, ""
    try:
        pool = InferencePool.from_object(obj)
    except PoolError as error:
        problem = str(error)
    status = obj.get("status")
    return PoolObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        deleting="deletionTimestamp" in metadata,
        status=status if isinstance(status, Mapping) else {},
        pool=pool,
        problem=problem,
        version=version_of(obj),
    )


def parse_conditions(status: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Read the conditions of a status, those that are none left out."""
    found: list[Condition] = []
    for item in status.get("conditions") or ():
        try:
            found.append(Condition.model_validate(item, extra="ignore"))
        except ValidationError:
            continue
    return tuple(found)

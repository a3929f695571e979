"""Which object a resource is: what people write, and what the API server adds."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from heliostat_crds.fields import Strict

MAX_NAME_CHARACTERS = 46
"""Length of a resource's name. The longest name derived from a pool's is that of its pods,
NAME-HASH-XXXXX, which must fit a host name: 63 less 10 and 5 and two hyphens."""

NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_ALLOWED = (
    f"1 to {MAX_NAME_CHARACTERS} lower-case letters, digits and `-`, "
    "a letter first, no `-` at the end"
)

_Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        pattern=NAME_PATTERN,
        json_schema_extra={"allowed": NAME_ALLOWED},
    ),
]
_Namespace = Annotated[
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

SERVER_SET = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""Metadata that an API server adds: a manifest may hold it, and it means nothing there."""


class Metadata(Strict):
    """Which object this is."""

    name: _Name
    """Name, unique in its namespace. Deployment, Service and pods are named after it."""
    namespace: _Namespace | None = None
    """Namespace of the object."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels, for people and tools."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations, for people and tools."""
    uid: SkipJsonSchema[str] = ""
    """Set by the API server: identifies this very object for ever."""
    generation: SkipJsonSchema[int] = 0
    """Set by the API server: counts the changes of the spec."""
    creation_timestamp: Annotated[SkipJsonSchema[datetime | None], Field(strict=False)] = None
    """Set by the API server: when the object was created."""
    deletion_timestamp: Annotated[SkipJsonSchema[datetime | None], Field(strict=False)] = None
    """Set by the API server: when the object is to be gone; unset while it is to stay."""


def without_server_fields(resource: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an API server adds, so that what `kubectl get -o yaml` prints can be read."""
    kept = {key: value for key, value in resource.items() if key != "status"}
    metadata = resource.get("metadata")
    if isinstance(metadata, dict):
        kept["metadata"] = {key: value for key, value in metadata.items() if key not in SERVER_SET}
    return kept

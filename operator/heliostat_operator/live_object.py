"""An object that the operator made, as it is in the cluster, packed small."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from heliostat_crds.inference_pool import KIND
from heliostat_crds.wire_names import GROUP, POOL_LABEL
from heliostat_kube.resource import DEPLOYMENTS, Json, Resource, resource_of
from heliostat_operator.observed.deployment import DeploymentView, parse_deployment

APPLIED_ANNOTATION = f"{GROUP}/applied"
"""Annotation of every object that the operator makes: a hash of what it applied. It tells that
something we once set is no longer wanted, which the other fields cannot tell."""

_NOISE = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "selfLink")


@dataclass(frozen=True, slots=True)
class LiveObject:
    """One owned object: its pool, and its body as JSON without status and bookkeeping.

    `pool` is what its label says, `owner_uid` which pool really owns it, `owner_pool` that pool's
    name, empty where it is none.
    """

    resource: Resource
    namespace: str
    name: str
    uid: str
    pool: str
    owner_uid: str
    owner_pool: str
    deleting: bool
    body: bytes
    deployment: DeploymentView | None
    version: int = field(compare=False)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def pool_key(self) -> str:
        """Key of the pool that its label names."""
        return f"{self.namespace}/{self.pool}"

    @property
    def applied_hash(self) -> str:
        """Hash of what was applied last, empty where nothing was."""
        annotations = self.decode()["metadata"].get("annotations") or {}
        return str(annotations.get(APPLIED_ANNOTATION, ""))

    def decode(self) -> Json:
        """Give the object's fields."""
        decoded: Any = msgspec.json.decode(self.body)
        return dict(decoded)


def pack(obj: Json) -> LiveObject:
    """Pack an object from the API."""
    metadata = obj["metadata"]
    body = {key: value for key, value in obj.items() if key != "status"}
    body["metadata"] = {key: value for key, value in metadata.items() if key not in _NOISE}
    resource = resource_of(obj)
    owner = _controller(obj)
    is_pool = owner.get("kind") == KIND and owner.get("apiVersion", "").startswith(f"{GROUP}/")
    return LiveObject(
        resource=resource,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        pool=(metadata.get("labels") or {}).get(POOL_LABEL, ""),
        owner_uid=owner.get("uid", ""),
        owner_pool=owner.get("name", "") if is_pool else "",
        deleting="deletionTimestamp" in metadata,
        body=msgspec.json.encode(body),
        deployment=parse_deployment(obj) if resource == DEPLOYMENTS else None,
        version=version_of(obj),
    )


def _controller(obj: Json) -> Json:
    """Give the reference to the object's controlling owner, empty where it has none."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


def version_of(obj: Json) -> int:
    """Give the resource version: of two of one object, the greater is the newer."""
    text = obj["metadata"].get("resourceVersion", "")
    return int(text) if str(text).isdecimal() else 0


def with_hash(desired: Json) -> tuple[Json, str]:
    """Add the annotation that tells what is applied."""
    digest = hashlib.sha256(msgspec.json.encode(desired, order="sorted")).hexdigest()[:16]
    metadata = desired["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED_ANNOTATION: digest}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}, digest

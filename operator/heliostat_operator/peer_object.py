"""A RegionPeer as the API server holds it, read once per version."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat_crds.region_peer import PeerError, RegionPeer
from heliostat_kube.resource import Json
from heliostat_operator.live_object import version_of


@dataclass(frozen=True)
class PeerObject:
    """One peer: `peer` is None where the object cannot be read as one, `problem` then says why.

    `status` is the present one. Two are equal where uid, generation and status are.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    status: Mapping[str, Any]
    peer: RegionPeer | None = field(compare=False)
    problem: str = field(compare=False)
    version: int = field(compare=False)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


def parse_peer_object(obj: Json) -> PeerObject:
    """Read a peer from the API; never raises."""
    metadata, status = obj["metadata"], obj.get("status")
    peer, problem = None, ""
    try:
        peer = RegionPeer.from_object(obj)
    except PeerError as error:
        problem = str(error)
    return PeerObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        status=status if isinstance(status, Mapping) else {},
        peer=peer,
        problem=problem,
        version=version_of(obj),
    )

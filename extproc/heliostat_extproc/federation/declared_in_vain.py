"""What is declared well and can have no effect in this gateway, as an operator should hear it."""

from collections.abc import Iterator

from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_extproc.federation.region import Region

_REMEDY = "give it --region, --federation-port and --region-certificates"


def unreached_peers(snapshot: Snapshot, region: Region | None) -> Iterator[str]:
    """Say of all peers in one sentence that a gateway without a region reaches none."""
    if region is None and snapshot.peers:
        names = ", ".join(sorted(peer.settings.region for peer in snapshot.peers))
        yield f"RegionPeer {names}: this gateway reaches no regions: {_REMEDY}"

"""What is declared well and can have no effect in this gateway, as an operator should hear it."""

from collections.abc import Iterator

from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_extproc.federation.region import Region
from heliostat_routing.residency import allows

_REMEDY = "give it --region, --federation-port and --region-certificates"


def unreached_peers(snapshot: Snapshot, region: Region | None) -> Iterator[str]:
    """Say of all peers in one sentence that a gateway without a region reaches none."""
    if region is None and snapshot.peers:
        names = ", ".join(sorted(peer.settings.region for peer in snapshot.peers))
        yield f"RegionPeer {names}: this gateway reaches no regions: {_REMEDY}"


def excluded_pools(snapshot: Snapshot, region: Region | None) -> Iterator[str]:
    """Say of each pool whose residency rule leaves out this gateway that nobody is served."""
    name, groups = ("", frozenset[str]()) if region is None else (region.name, region.groups)
    for pool in snapshot.pools:
        residency = pool.settings.residency
        if not allows(residency, name, groups):
            rule = f"InferencePool {pool.key}: its residency, {', '.join(sorted(residency or ()))},"
            if region is None:
                why, remedy = "is nothing to a gateway without a region", _REMEDY
            else:
                why, remedy = f"leaves out this region, {name}", "add it, or delete the pool here"
            yield f"{rule} {why}: all its requests are refused here with 421: {remedy}"

"""From pools and the endpoints they have to what the router serves: pools of one model are one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from heliostat_crds.claims import Claimant, settle
from heliostat_extproc.discovery.catalog import Catalog
from heliostat_extproc.discovery.snapshot import ServedPool, Snapshot
from heliostat_routing.settings import EndpointSettings, PoolSettings


@dataclass(frozen=True, slots=True)
class Member:
    """One declared pool and the endpoints it has now."""

    claimant: Claimant
    settings: PoolSettings
    endpoints: tuple[EndpointSettings, ...]


def snapshot_of(members: Iterable[Member], problems: Iterable[str] = ()) -> Snapshot:
    """Put the pools of each model together under the oldest one's key and settings.

    A name that a pool claims and does not get is told as a problem.
    """
    by_key = {member.claimant.key: member for member in members}
    settlement = settle(member.claimant for member in by_key.values())
    conflicts = (f"InferencePool {it.pool}: {it}" for it in settlement.conflicts)
    return Snapshot(
        pools=tuple(_joined([by_key[key] for key in keys]) for keys in settlement.groups.values()),
        catalog=Catalog.of(settlement),
        problems=(*problems, *conflicts),
    )


def _joined(members: Sequence[Member]) -> ServedPool:
    """Join pools of one model; of an address that two of them hold, the oldest's word counts."""
    oldest = members[0]
    if len(members) == 1:
        return ServedPool(oldest.claimant.key, oldest.settings, oldest.endpoints)
    endpoints: Mapping[str, EndpointSettings] = {
        endpoint.address: _with_own_adapters(endpoint, member)
        for member in reversed(members)
        for endpoint in member.endpoints
    }
    ordered = tuple(endpoints[address] for address in sorted(endpoints))
    return ServedPool(oldest.claimant.key, oldest.settings, ordered)


def _with_own_adapters(endpoint: EndpointSettings, member: Member) -> EndpointSettings:
    """Name the adapters: an endpoint that takes any takes any of its own pool."""
    if endpoint.adapters is not None:
        return endpoint
    return replace(endpoint, adapters=member.claimant.adapters)

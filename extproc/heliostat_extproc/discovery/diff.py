"""What changed between two snapshots, as events for the routing core."""

from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_routing.events import PoolRemoved, PoolUpdated


def pool_events(before: Snapshot, after: Snapshot) -> tuple[PoolRemoved | PoolUpdated, ...]:
    """Give the removals, then the updates, of those pools whose routing changed."""
    old, new = _updates(before), _updates(after)
    removed = [PoolRemoved(key) for key in old if key not in new]
    updated = [update for key, update in new.items() if old.get(key) != update]
    return (*removed, *updated)


def _updates(snapshot: Snapshot) -> dict[str, PoolUpdated]:
    return {
        pool.key: PoolUpdated(pool.key, pool.pool_settings(), pool.endpoint_settings())
        for pool in snapshot.pools
    }

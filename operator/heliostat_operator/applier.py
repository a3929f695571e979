"""Makes objects as they are desired, with as few requests as that takes: none where they are."""

import time

from heliostat_crds.wire_names import FIELD_MANAGER
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import ConflictError, InvalidError
from heliostat_kube.resource import Json, Resource, key_of, resource_of
from heliostat_operator.drift import differs
from heliostat_operator.health import Metrics
from heliostat_operator.live_object import LiveObject, pack, with_hash
from heliostat_operator.pool_object import PoolObject
from heliostat_operator.watches import Watches

CATCH_UP_SECONDS = 35.0
"""How long what an apply returned may be newer than what the watch has told: an informer notices a
dead connection within 30 s."""

_IDENTITY = frozenset({"apiVersion", "kind", "metadata"})

_Place = tuple[Resource, str]


class NotOursError(Exception):
    """An object of the name that we need exists and belongs to somebody else."""


class Applier:
    """Applies, and remembers what came of it."""

    def __init__(self, api: KubeApi, metrics: Metrics) -> None:
        self._api = api
        self._metrics = metrics
        self._newest: dict[_Place, tuple[LiveObject, float]] = {}
        self._settled: dict[_Place, tuple[str, bytes]] = {}

    def live(self, watches: Watches, resource: Resource, key: str) -> LiveObject | None:
        """Give the newest that is known of an object: what was watched, or what we applied."""
        watched, applied = watches.owned(resource, key), self._newest.get((resource, key))
        if applied is None:
            return watched
        newest, at = applied
        behind = watched is None or watched.version < newest.version
        if behind and time.monotonic() - at < CATCH_UP_SECONDS:
            return newest
        del self._newest[resource, key]
        return watched

    def forget(self, gone: LiveObject) -> None:
        """Forget an object that is no more."""
        place = gone.resource, gone.key
        applied = self._newest.get(place)
        if applied is not None and applied[0].uid == gone.uid:
            del self._newest[place]
        self._settled.pop(place, None)

    async def apply(self, watches: Watches, pool: PoolObject, desired: Json) -> None:
        """Make one object of a pool; NotOursError where its name is taken, else KubeError."""
        wanted, digest = with_hash(desired)
        resource, key = resource_of(desired), key_of(desired)
        live = self.live(watches, resource, key) or await self._unlabelled(desired)
        if live is not None and live.owner_uid != pool.uid:
            if live.owner_pool == pool.name:
                return  # of a deleted pool of this name: its end is told, and makes way for ours
            raise _not_ours(desired)
        if live is not None and self._is_settled(live, wanted, digest):
            return
        repairs = live is not None and live.applied_hash == digest
        made = pack(await self._write(wanted, live, repairs=repairs))
        self._metrics.writes.labels(resource.kind).inc()
        self._newest[resource, key] = made, time.monotonic()
        self._settled[resource, key] = digest, made.body

    def _is_settled(self, live: LiveObject, wanted: Json, digest: str) -> bool:
        """Whether nothing is to be done about an object."""
        place = live.resource, live.key
        if live.deleting or self._settled.get(place) == (digest, live.body):
            return True
        if live.applied_hash != digest or differs(wanted, live.decode()):
            return False
        self._settled[place] = digest, live.body
        return True

    async def _write(self, wanted: Json, live: LiveObject | None, *, repairs: bool) -> Json:
        """Apply; what others changed of ours is overwritten first.

        An apply merges lists item by item. So where somebody has renamed an item of ours, theirs
        would stay beside ours: at best useless, at worst refused as a duplicate.
        """
        if repairs and live is not None:
            await self._overwrite(wanted, live)
        try:
            return await self._api.apply(wanted, field_manager=FIELD_MANAGER)
        except InvalidError:
            if repairs or live is None:
                raise
            await self._overwrite(wanted, live)
            return await self._api.apply(wanted, field_manager=FIELD_MANAGER)

    async def _overwrite(self, wanted: Json, live: LiveObject) -> None:
        """Set our fields, lists as a whole; what is not in ours stays, but for items of lists."""
        fields = {key: value for key, value in wanted.items() if key not in _IDENTITY}
        patch = {"metadata": {"uid": live.uid}, **fields}
        await self._api.merge_patch(live.resource, live.name, patch, live.namespace)

    async def delete_others(
        self, watches: Watches, pool: PoolObject, desired: tuple[Json, ...]
    ) -> None:
        """Delete the pool's objects that are no longer desired."""
        kept = {(resource_of(obj), key_of(obj)) for obj in desired}
        for live in tuple(watches.owned_by(pool)):
            if (live.resource, live.key) not in kept and not live.deleting:
                try:
                    await self._api.delete(live.resource, live.name, live.namespace, uid=live.uid)
                except ConflictError:
                    continue  # already another object
                self._metrics.writes.labels(live.resource.kind).inc()

    async def _unlabelled(self, desired: Json) -> LiveObject | None:
        """Look for an object that is not among those watched, as they need our label."""
        metadata = desired["metadata"]
        found = await self._api.get(
            resource_of(desired), metadata["name"], metadata.get("namespace")
        )
        return None if found is None else pack(found)


def _not_ours(desired: Json) -> NotOursError:
    name = f"{desired['kind']} {desired['metadata']['name']}"
    return NotOursError(f"{name} exists and is not this pool's; delete it or rename the pool")

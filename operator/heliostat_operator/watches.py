"""What the operator knows of its cluster: local copies, and which pool each change is about."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import structlog

from heliostat_crds.claims import Conflict, claimant_of, created_seconds, settle
from heliostat_crds.wire_names import MANAGED_BY, POOL_LABEL
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError
from heliostat_kube.informer import Informer
from heliostat_kube.resource import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    INFERENCE_POOLS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    UPSTREAM_INFERENCE_POOLS,
    Resource,
)
from heliostat_operator.informer_group import InformerGroup
from heliostat_operator.live_object import LiveObject, pack
from heliostat_operator.observed.pod import PodView, parse_pod
from heliostat_operator.pool_object import PoolObject, parse_pool_object
from heliostat_operator.routers import routers_to_ask
from heliostat_operator.settings import OperatorSettings

OWNED = (DEPLOYMENTS, SERVICES, POD_DISRUPTION_BUDGETS)
EXPORTED = (UPSTREAM_INFERENCE_POOLS, ENDPOINT_SLICES)
"""Kinds that are made only where the cluster serves the first of them."""
EXPORT_CHECK_SECONDS = 30.0
SLICE_SELECTOR = f"{POOL_LABEL},endpointslice.kubernetes.io/managed-by={MANAGED_BY}"

_R = TypeVar("_R")

log = structlog.get_logger("heliostat.operator")


class Watches:
    """Stores of pools, of what is made for them, of their pods and of the routers' pods.

    `on_pool` gets the key of a pool that has to be looked at again, `on_pod` that of a pod of a
    pool, `on_gone` an object of ours that is no more.
    """

    def __init__(
        self,
        api: KubeApi,
        settings: OperatorSettings,
        *,
        on_pool: Callable[[str], None],
        on_pod: Callable[[str], None],
        on_gone: Callable[[LiveObject], None],
    ) -> None:
        self._api = api
        self._settings = settings
        self._on_pool = on_pool
        self._on_pod = on_pod
        self._on_gone = on_gone
        self._pods_of: defaultdict[str, dict[str, PodView]] = defaultdict(dict)
        self._adopted: dict[str, _Adoption] = {}
        self._group: asyncio.TaskGroup | None = None
        self._exports: list[asyncio.Task[None]] = []
        self._conflicts: Mapping[str, tuple[Conflict, ...]] = {}
        self._claims_changed = False
        namespaces = settings.namespaces
        self._pools = InformerGroup(
            api, INFERENCE_POOLS, namespaces, trim=parse_pool_object, on_change=self._pool_changed
        )
        self._pods = InformerGroup(
            api,
            PODS,
            namespaces,
            label_selector=POOL_LABEL,
            trim=parse_pod,
            on_change=self._pod_changed,
        )
        self._routers = InformerGroup(
            api,
            PODS,
            (settings.own_namespace,),
            label_selector=settings.router_selector,
            trim=parse_pod,
            on_change=self._router_changed,
        )
        self._owned = {resource: self._owned_informers(resource) for resource in OWNED}

    async def run(self) -> None:
        """Keep everything current until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for running in self._each(lambda store: store.run()):
                group.create_task(running)
            group.create_task(self._watch_export_kinds())

    @property
    def is_synced(self) -> bool:
        """Whether pools, pods, routers and all owned objects have been read."""
        return all(self._each(lambda store: store.is_synced))

    async def wait_synced(self) -> None:
        """Wait until `is_synced`."""
        for waiting in self._each(lambda store: store.wait_synced()):
            await waiting

    def _each(self, use: Callable[[InformerGroup[Any]], _R]) -> list[_R]:
        stores: tuple[InformerGroup[Any], ...] = (self._pools, self._pods, self._routers)
        return [use(store) for store in (*stores, *self._owned.values())]

    @property
    def exports(self) -> bool:
        """Whether the cluster serves the upstream InferencePool, and ours have been read."""
        return UPSTREAM_INFERENCE_POOLS in self._owned

    def pool(self, key: str) -> PoolObject | None:
        """Give a pool."""
        return self._pools.get(key)

    def pools(self) -> Iterator[PoolObject]:
        """Give all pools."""
        return self._pools.values()

    def pod(self, key: str) -> PodView | None:
        """Give a pod that bears the label of a pool."""
        return self._pods.get(key)

    def pods(self, pool: PoolObject) -> tuple[PodView, ...]:
        """Give the pods of a pool: those labelled with it, or those that it adopts."""
        adoption = self._adopted.get(pool.key)
        if adoption is not None:
            return tuple(adoption.informer.items.values())
        return tuple(self._pods_of.get(pool.key, {}).values())

    def pods_read(self, pool: PoolObject) -> bool:
        """Whether the pods that a pool adopts have been read."""
        adoption = self._adopted.get(pool.key)
        return adoption is None or adoption.informer.synced.is_set()

    def owned(self, resource: Resource, key: str) -> LiveObject | None:
        """Give an object that bears a pool's label."""
        informers = self._owned.get(resource)
        return None if informers is None else informers.get(key)

    def owned_by(self, pool: PoolObject) -> Iterator[LiveObject]:
        """Give all objects that a pool owns."""
        for informers in self._owned.values():
            for live in informers.values():
                if live.owner_uid == pool.uid:
                    yield live

    def routers(self) -> tuple[str, ...]:
        """Give the addresses of the routers that may hold requests."""
        return routers_to_ask(self._routers.values())

    def conflicts(self, key: str) -> tuple[Conflict, ...]:
        """Give the names that a pool claims and others have."""
        if self._claims_changed:
            self._settle()
        return self._conflicts.get(key, ())

    def _settle(self) -> None:
        self._claims_changed = False
        pools = (obj.pool for obj in self.pools())
        claimants = (claimant_of(it, created_seconds(it)) for it in pools if it is not None)
        found: defaultdict[str, list[Conflict]] = defaultdict(list)
        for conflict in settle(claimants).conflicts:
            found[conflict.pool].append(conflict)
        before, self._conflicts = self._conflicts, {k: tuple(v) for k, v in found.items()}
        for key in before.keys() | self._conflicts.keys():
            if before.get(key) != self._conflicts.get(key):
                self._on_pool(key)

    def _owned_informers(self, resource: Resource) -> InformerGroup[LiveObject]:
        return InformerGroup(
            self._api,
            resource,
            self._settings.namespaces,
            label_selector=SLICE_SELECTOR if resource == ENDPOINT_SLICES else POOL_LABEL,
            trim=pack,
            on_change=self._owned_changed,
        )

    def _pool_changed(self, key: str, before: PoolObject | None, now: PoolObject | None) -> None:
        renewed = _spec_of(before) != _spec_of(now)
        if renewed:
            self._claims_changed = True
        self._adopt(key, now)
        self._on_pool(key)
        if now is not None and renewed:
            for pod_key in self._pods_of.get(key, ()):
                self._on_pod(pod_key)

    def _owned_changed(self, _: str, before: LiveObject | None, now: LiveObject | None) -> None:
        if before is not None and now is None:
            self._on_gone(before)
        for live in (before, now):
            if live is not None:
                self._on_pool(live.pool_key)

    def _pod_changed(self, key: str, before: PodView | None, now: PodView | None) -> None:
        for pod in (before, now):
            if pod is not None:
                self._pods_of[f"{pod.namespace}/{pod.pool}"].pop(key, None)
                self._on_pool(f"{pod.namespace}/{pod.pool}")
        if now is not None:
            self._pods_of[f"{now.namespace}/{now.pool}"][key] = now
        self._on_pod(key)

    def _router_changed(self, _: str, before: PodView | None, now: PodView | None) -> None:
        addresses = {None if pod is None else pod.ip for pod in (before, now)}
        if self.exports and len(addresses) > 1:
            for pool in self.pools():
                self._on_pool(pool.key)

    def _adopt(self, key: str, now: PoolObject | None) -> None:
        """Watch the pods of a pool that adopts, for as long as it does."""
        pool = None if now is None else now.pool
        selector = None
        if pool is not None and pool.spec.selector is not None:
            selector = ",".join(
                f"{k}={v}" for k, v in sorted(pool.spec.selector.match_labels.items())
            )
        adoption = self._adopted.get(key)
        if adoption is not None and (pool is not None or now is None):
            if adoption.selector == selector:
                return
            adoption.task.cancel()
            del self._adopted[key]
            adoption = None
        if adoption is None and selector is not None and self._group is not None:
            informer: Informer[PodView] = Informer(
                self._api,
                PODS,
                namespace=key.split("/")[0],
                label_selector=selector,
                trim=parse_pod,
                on_change=lambda *_: self._on_pool(key),
            )
            task = self._group.create_task(_run_and_tell(informer, lambda: self._on_pool(key)))
            self._adopted[key] = _Adoption(selector, informer, task)

    async def _watch_export_kinds(self) -> None:
        """Ask now and then whether the cluster serves the upstream kind, and follow suit.

        Also where nothing is exported: what was exported before has to be found and taken back.
        """
        while True:
            try:
                served = await self._api.serves(UPSTREAM_INFERENCE_POOLS)
            except KubeError as error:
                log.debug("export-kind-unknown", error=error.message)
            else:
                await self._follow_export_kinds(served=served)
            await asyncio.sleep(EXPORT_CHECK_SECONDS)

    async def _follow_export_kinds(self, *, served: bool) -> None:
        if served == self.exports or self._group is None:
            return
        if served:
            informers = {resource: self._owned_informers(resource) for resource in EXPORTED}
            self._exports = [self._group.create_task(it.run()) for it in informers.values()]
            for store in informers.values():
                await store.wait_synced()
            self._owned.update(informers)
        else:
            for task in self._exports:
                task.cancel()
            for resource in EXPORTED:
                self._owned.pop(resource, None)
        for pool in self.pools():
            self._on_pool(pool.key)


def _spec_of(pool: PoolObject | None) -> tuple[str, int] | None:
    """Tell one state of a spec from every other, also where a pool of the same name follows."""
    return None if pool is None else (pool.uid, pool.generation)


class _Adoption:
    """The watch of one pool's adopted pods."""

    def __init__(
        self, selector: str, informer: Informer[PodView], task: asyncio.Task[None]
    ) -> None:
        self.selector = selector
        self.informer = informer
        self.task = task


async def _run_and_tell(informer: Informer[PodView], tell: Callable[[], None]) -> None:
    """Run an informer and tell once it is synced, which an empty list would not show."""
    async with asyncio.TaskGroup() as group:
        group.create_task(informer.run())
        await informer.synced.wait()
        tell()

"""Discovery from a Kubernetes cluster: pools and pods by watch, never by polling.

One watch follows the pods of all managed pools, by their label; each other selector has a watch of
its own. Peers and siblings are followed in the release's own namespace. While the API server is
away the last good view stays in force.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import structlog

from heliostat_crds.wire_names import POOL_LABEL
from heliostat_extproc.discovery.cluster_federation import FederationWatches, Home
from heliostat_extproc.discovery.cluster_pool import (
    ClusterPool,
    PoolReading,
    holders_of,
    member_of,
    parse_pool,
    upstream_parser,
)
from heliostat_extproc.discovery.engine_pod import EnginePod, parse_engine_pod
from heliostat_extproc.discovery.objectives import Objective, parse_objective, priorities_of
from heliostat_extproc.discovery.served_pool import Member, snapshot_of
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError
from heliostat_kube.informer import Informer, OnChange
from heliostat_kube.resource import (
    INFERENCE_OBJECTIVES,
    INFERENCE_POOLS,
    PODS,
    UPSTREAM_INFERENCE_POOLS,
    Resource,
)

_COALESCE_SECONDS = 0.02
"""Changes that come together make one snapshot."""
_RETRY_SECONDS = 1.0

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[KubeApi]]
Selection: TypeAlias = tuple[str, str]
"""Namespace and label selector."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Whose pools the router serves.

    No `namespaces` means all. `picker_service` is the Service by which pools of the Gateway API
    name this router; None passes such pools over. Without a `home` there are neither peers nor
    siblings.
    """

    namespaces: tuple[str, ...] = ()
    picker_service: str | None = None
    home: Home | None = None


class KubernetesDiscovery:
    """The pools that a cluster's API server declares, with the pods that serve them."""

    def __init__(self, settings: ClusterSettings, connect: Connect = KubeApi.connect) -> None:
        self._settings = settings
        self._connect = connect
        self._watches: _Watches | None = None

    def age_seconds(self) -> float:
        """Seconds since the API server was last heard on the quietest watch; infinite before."""
        return float("inf") if self._watches is None else self._watches.age_seconds()

    async def watch(self) -> AsyncIterator[Snapshot]:
        """Give the first complete snapshot, then each that differs from the last.

        Where an address passes from one pod to another, a snapshot without it comes between:
        the new pod's engine knows nothing of what the old one had.
        """
        async with self._connect() as api:
            watches = _Watches(api, self._settings)
            self._watches = watches
            try:
                await watches.start()
                last: Snapshot | None = None
                owners: dict[str, str] = {}
                while True:
                    await watches.wait_for_change()
                    heirs = watches.owners()
                    moved = {a for a, uid in owners.items() if heirs.get(a, uid) != uid}
                    if moved:
                        yield watches.snapshot(without=moved)
                    owners = heirs
                    fresh = watches.snapshot()
                    if moved or fresh != last:
                        last = fresh
                        yield fresh
            finally:
                await watches.close()


class _Watches:
    """Every watch that is open, and what they know."""

    def __init__(self, api: KubeApi, settings: ClusterSettings) -> None:
        self._api = api
        self._settings = settings
        self._changed = asyncio.Event()
        self._were_read = False
        self._tasks: dict[Informer[Any], asyncio.Task[None]] = {}
        self._good: dict[tuple[str, str], ClusterPool] = {}
        """The last good version of each pool, by group and key."""
        self._pods_of_managed: defaultdict[Selection, dict[str, EnginePod]] = defaultdict(dict)
        """By namespace and name of the pool, then by key of the pod."""
        namespaces = settings.namespaces or (None,)
        self._pools = [self._pool_informer(INFERENCE_POOLS, ns, parse_pool) for ns in namespaces]
        self._upstream: list[Informer[PoolReading]] = []
        self._upstream_served = False
        self._objectives: list[Informer[Objective | None]] = []
        if settings.picker_service is not None:
            parse = upstream_parser(settings.picker_service)
            self._upstream = [
                self._pool_informer(UPSTREAM_INFERENCE_POOLS, ns, parse, optional=True)
                for ns in namespaces
            ]
            self._objectives = [
                Informer(
                    api,
                    INFERENCE_OBJECTIVES,
                    namespace=namespace,
                    trim=parse_objective,
                    on_change=lambda *_: self._changed.set(),
                    optional=True,
                )
                for namespace in namespaces
            ]
        self._managed_pods = [
            self._pod_informer(ns, POOL_LABEL, self._on_managed_pod) for ns in namespaces
        ]
        self._selected_pods: dict[Selection, Informer[EnginePod]] = {}
        self._federation = FederationWatches(api, settings.home, self._changed.set)

    async def start(self) -> None:
        """Open the watches that are always there."""
        if self._upstream:
            self._upstream_served = await self._serves(UPSTREAM_INFERENCE_POOLS)
        informers: list[Informer[Any]] = [*self._pools, *self._upstream, *self._managed_pods]
        for informer in (*informers, *self._objectives, *self._federation.informers):
            self._open(informer)

    async def _serves(self, resource: Resource) -> bool:
        """Ask whether the kind is served, as often as it takes to get an answer."""
        while True:
            try:
                return await self._api.serves(resource)
            except KubeError as error:
                _log.warning("api-server-away", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        """End every watch."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def wait_for_change(self) -> None:
        """Return when something has changed and everything has been read at least once.

        What the API server refuses to one pool holds nobody else up, nor, once everything has been
        read, do the pods of a new pool that it cannot give now.
        """
        patience_seconds = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_seconds):
                    await self._changed.wait()
            await asyncio.sleep(_COALESCE_SECONDS)
            self._changed.clear()
            self._raise_failures()
            self._follow_selectors()
            unread = [informer for informer in self._needed() if not informer.synced.is_set()]
            if all(self._can_be_missed(informer) for informer in unread):
                self._were_read = True
                return
            patience_seconds = _RETRY_SECONDS

    def _can_be_missed(self, informer: Informer[Any]) -> bool:
        if informer not in self._dispensable():
            return False
        return informer.refusal is not None or (self._were_read and informer.is_failing)

    def _raise_failures(self) -> None:
        """Raise the error of a watch that has ended, which none ever should."""
        for task in self._tasks.values():
            if task.done():
                task.result()

    def age_seconds(self) -> float:
        """Seconds since the API server was last heard on the quietest watch."""
        return max(informer.age_seconds() for informer in self._needed())

    def snapshot(self, without: Iterable[str] = ()) -> Snapshot:
        """Give all that is known, but no endpoints at the addresses in `without`."""
        members = self._members(frozenset(without))
        snapshot = snapshot_of(members, self._problems())
        objectives = (it for informer in self._objectives for it in informer.items.values())
        known = (objective for objective in objectives if objective is not None)
        return replace(
            snapshot,
            priorities=priorities_of(known, members, snapshot.catalog),
            peers=self._federation.peers(),
            siblings=self._federation.siblings(),
        )

    def _members(self, hidden: frozenset[str]) -> list[Member]:
        return [member_of(pool, self._pods_of(pool), hidden) for pool in self._good.values()]

    def owners(self) -> dict[str, str]:
        """Tell which pod each address belongs to now: `ip:port` -> pod uid."""
        return {
            address: pod.uid
            for pool in self._good.values()
            for address, (_, pod) in holders_of(pool, self._pods_of(pool)).items()
        }

    def _problems(self) -> list[str]:
        """Tell which pools and peers cannot be carried out, a sentence each."""
        readings = (reading for it in self._pools for reading in it.items.values())
        invalid = (it.problem for it in readings if it.problem is not None)
        return sorted((*invalid, *self._refusals(), *self._federation.problems()))

    def _refusals(self) -> Iterator[str]:
        """Tell of the pools whose pods the API server does not give."""
        for pool in self._good.values():
            informer = self._selected_pods.get((pool.namespace, pool.selector or ""))
            if informer is not None and informer.refusal is not None:
                reason = informer.refusal.message
                yield f"InferencePool {pool.claimant.key}: its pods cannot be watched: {reason}"

    def _dispensable(self) -> Iterator[Informer[Any]]:
        """Give the watches that concern some pools only, or none."""
        yield from self._selected_pods.values()
        yield from self._upstream
        yield from self._federation.informers

    def _needed(self) -> Iterator[Informer[Any]]:
        yield from self._pools
        yield from self._managed_pods
        yield from self._selected_pods.values()
        if self._upstream_served:
            yield from self._upstream
        yield from (it for it in self._federation.informers if it.refusal is None)

    def _pods_of(self, pool: ClusterPool) -> Iterable[EnginePod]:
        if pool.selector is None:
            return ()
        if pool.managed_name is not None:
            return self._pods_of_managed.get((pool.namespace, pool.managed_name), {}).values()
        informer = self._selected_pods.get((pool.namespace, pool.selector))
        return () if informer is None else informer.items.values()

    def _follow_selectors(self) -> None:
        """Watch the pods of every selector that a pool has now, and of no other."""
        wanted = {
            (pool.namespace, pool.selector)
            for pool in self._good.values()
            if pool.selector is not None and pool.managed_name is None
        }
        for selection in self._selected_pods.keys() - wanted:
            self._tasks.pop(self._selected_pods.pop(selection)).cancel()
        for namespace, selector in wanted - self._selected_pods.keys():
            informer = self._pod_informer(namespace, selector, self._on_selected_pod)
            self._selected_pods[namespace, selector] = informer
            self._open(informer)

    def _open(self, informer: Informer[Any]) -> None:
        task = self._tasks[informer] = asyncio.create_task(self._run(informer))
        task.add_done_callback(lambda _: self._changed.set())

    async def _run(self, informer: Informer[Any]) -> None:
        first_answers = asyncio.create_task(self._tell_first_answers(informer))
        try:
            await informer.run()
        finally:
            first_answers.cancel()

    async def _tell_first_answers(self, informer: Informer[Any]) -> None:
        """Tell a refusal, and that the list is known, even where it is empty."""
        for known in (informer.settled, informer.synced):
            await known.wait()
            self._changed.set()

    def _pool_informer(
        self,
        resource: Resource,
        namespace: str | None,
        parse: Callable[[Any], PoolReading],
        *,
        optional: bool = False,
    ) -> Informer[PoolReading]:
        def on_change(key: str, _old: PoolReading | None, new: PoolReading | None) -> None:
            self._on_pool(resource.group, key, new)

        return Informer(
            self._api,
            resource,
            namespace=namespace,
            trim=parse,
            on_change=on_change,
            optional=optional,
        )

    def _pod_informer(
        self, namespace: str | None, selector: str, on_change: OnChange[EnginePod]
    ) -> Informer[EnginePod]:
        return Informer(
            self._api,
            PODS,
            namespace=namespace,
            label_selector=selector,
            trim=parse_engine_pod,
            on_change=on_change,
        )

    def _on_selected_pod(self, _key: str, _old: EnginePod | None, _new: EnginePod | None) -> None:
        self._changed.set()

    def _on_managed_pod(self, key: str, old: EnginePod | None, new: EnginePod | None) -> None:
        if old is not None and old.pool is not None:
            self._pods_of_managed[old.namespace, old.pool].pop(key, None)
        if new is not None and new.pool is not None:
            self._pods_of_managed[new.namespace, new.pool][key] = new
        self._changed.set()

    def _on_pool(self, group: str, key: str, reading: PoolReading | None) -> None:
        """Take a pool; one whose newest version is invalid keeps its last good one."""
        if reading is not None and reading.pool is not None:
            self._good[group, key] = reading.pool
        elif reading is None or reading.problem is None:
            self._good.pop((group, key), None)
        self._changed.set()

"""The operator as a process: who watches, who leads, who works, and in which order it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import structlog

from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError
from heliostat_operator.adapters import AdapterKeeper, AdapterLoadError
from heliostat_operator.applier import Applier
from heliostat_operator.events import EventRecorder
from heliostat_operator.health import Metrics, serve_health
from heliostat_operator.lease import Leadership, LeaseLostError
from heliostat_operator.peer_keeper import PeerKeeper
from heliostat_operator.pool_events import PoolEventsError, follow_pool_events
from heliostat_operator.reconciler import Reconciler
from heliostat_operator.routers import RouterReports
from heliostat_operator.settings import OperatorSettings
from heliostat_operator.watches import Watches
from heliostat_operator.work_queue import WorkQueue

FINISH_SECONDS = 10.0
"""What the work under way gets when the process is told to stop."""
KOPF_RETRY_SECONDS = 5.0
ADAPTER_WORKERS = 64
"""Engines that load adapters at the same time. A load is minutes of waiting for an answer: those
that hang must not hold up the others."""

log = structlog.get_logger("heliostat.operator")


async def run_operator(settings: OperatorSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set: wait for the Lease, lead, wait again if it is lost.

    Raises ConfigurationError where no cluster is configured, OSError where the health port is
    taken.
    """
    metrics = Metrics()
    async with (
        KubeApi.connect(settings.kubeconfig) as api,
        aiohttp.ClientSession() as session,
    ):
        operator = Operator(api, session, settings, metrics)
        async with serve_health(
            settings.health_host, settings.health_port, metrics, lambda: operator.is_ready
        ) as port:
            log.info("serving-health", host=settings.health_host, port=port)
            await operator.run(stop)


class Operator:
    """All parts, wired."""

    def __init__(
        self,
        api: KubeApi,
        session: aiohttp.ClientSession,
        settings: OperatorSettings,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._pool_queue: WorkQueue[str] = WorkQueue(max_retry_seconds=30.0)
        self._pod_queue: WorkQueue[str] = WorkQueue(first_retry_seconds=1.0)
        applier = Applier(api, metrics)
        self._watches = Watches(
            api,
            settings,
            on_pool=self._pool_queue.add,
            on_pod=self._pod_queue.add,
            on_gone=applier.forget,
        )
        self._adapters = AdapterKeeper(
            api, self._watches, session, metrics, settings.engine_api_key
        )
        self._reconciler = Reconciler(
            api,
            settings,
            self._watches,
            applier=applier,
            routers=RouterReports(session, settings.router_admin_port),
            adapters=self._adapters,
            events=EventRecorder(api, settings.identity),
            metrics=metrics,
        )
        self._peers = PeerKeeper(api, settings, session, metrics, routers=self._watches.routers)
        self._leadership = Leadership(
            api,
            namespace=settings.own_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            timing=settings.lease_timing,
        )
        metrics.queued_pools.set_function(lambda: len(self._pool_queue))
        metrics.pools.set_function(lambda: sum(1 for _ in self._watches.pools()))

    @property
    def is_ready(self) -> bool:
        """Whether this replica has read the cluster: it may lead, or take over at once."""
        return self._watches.is_synced

    async def run(self, stop: asyncio.Event) -> None:
        """Watch always, work while leading."""
        async with (
            _running(self._watches.run()) as watching,
            _running(self._peers.watch()) as watching_peers,
        ):
            while not stop.is_set():
                if not await _unless_stopped(self._acquire(), stop, watching, watching_peers):
                    return
                log.info("leading", identity=self._settings.identity)
                self._metrics.leader.set(1)
                try:
                    await self._lead(stop, watching, watching_peers)
                except LeaseLostError as error:
                    log.warning("leadership-lost", reason=str(error))
                    continue
                finally:
                    self._metrics.leader.set(0)
                await self._leadership.release()

    async def _acquire(self) -> None:
        """Wait to lead, once the cluster has been read: who cannot read it is in nobody's way."""
        await self._watches.wait_synced()
        await self._leadership.acquire()

    async def _lead(self, stop: asyncio.Event, *watching: asyncio.Task[Any]) -> None:
        async with (
            _running(self._leadership.hold()) as holding,
            _running(self._follow_events()) as following,
            _running(self._resync()) as resyncing,
            # Who writes ends first: another replica may lead before kopf's thread has ended.
            _running(self._peers.keep()) as keeping_peers,
            _running(self._load_adapters()) as loading,
            _running(self._reconcile()) as working,
        ):
            others = (*watching, keeping_peers, loading, holding, following, resyncing)
            await _unless_stopped(working, stop, *others)
            self._pool_queue.stop()
            await asyncio.wait(
                (working, holding),
                timeout=FINISH_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def _reconcile(self) -> None:
        for pool in self._watches.pools():
            self._pool_queue.add(pool.key)
        await self._pool_queue.run(
            self._reconciler.reconcile,
            workers=self._settings.workers,
            on_error=self._reconcile_failed,
        )

    async def _load_adapters(self) -> None:
        await self._pod_queue.run(
            self._keep_adapters, workers=ADAPTER_WORKERS, on_error=self._adapters_failed
        )

    async def _keep_adapters(self, pod_key: str) -> None:
        before = self._adapter_failures(pod_key)
        try:
            await self._adapters.keep(pod_key)
        finally:
            pod = self._watches.pod(pod_key)
            if pod is not None and before != self._adapter_failures(pod_key):
                self._pool_queue.add(f"{pod.namespace}/{pod.pool}")

    def _adapter_failures(self, pod_key: str) -> object:
        pod = self._watches.pod(pod_key)
        return None if pod is None else self._adapters.failures((pod,))

    async def _follow_events(self) -> None:
        """Have kopf tell of pools, again if it ends: what it misses, the stores tell too."""
        while True:
            try:
                await follow_pool_events(
                    self._settings.namespaces, self._settings.kubeconfig, self._pool_queue.add
                )
            except PoolEventsError as error:
                log.warning("kopf-ended", error=str(error.__cause__ or error))
            await asyncio.sleep(KOPF_RETRY_SECONDS)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            for pool in self._watches.pools():
                self._pool_queue.add(pool.key)

    def _reconcile_failed(self, key: str, error: Exception, retry_seconds: float) -> None:
        reason = error.reason if isinstance(error, KubeError) else type(error).__name__
        self._metrics.reconcile_errors.labels(reason).inc()
        log.warning(
            "reconcile-failed",
            pool=key,
            reason=reason,
            error=str(error),
            retry_seconds=retry_seconds,
            exc_info=None if isinstance(error, KubeError) else error,
        )

    def _adapters_failed(self, key: str, error: Exception, retry_seconds: float) -> None:
        known = isinstance(error, AdapterLoadError | KubeError)
        log.warning(
            "adapters-failed",
            pod=key,
            error=str(error),
            retry_seconds=retry_seconds,
            exc_info=None if known else error,
        )


@asynccontextmanager
async def _running(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run something beside; it ends with the block."""
    task = asyncio.ensure_future(_awaited(work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _unless_stopped(
    work: Awaitable[None], stop: asyncio.Event, *others: asyncio.Task[None]
) -> bool:
    """Wait for some work, False if stopped before; what fails among it and the others is raised."""
    main = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait((main, stopped, *others), return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
        return main in done
    finally:
        stopped.cancel()
        if not isinstance(work, asyncio.Task):
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)

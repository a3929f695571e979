"""All fake nodes in one process: pods that the scheduler places become workers here."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from heliostat_cluster.kubelet.node import NodeAgent, NodeSpec
from heliostat_cluster.kubelet.pod_worker import PodPlace, PodWorker
from heliostat_cluster.kubelet.status_only import StatusOnlyWorker
from heliostat_kube.errors import KubeError
from heliostat_kube.informer import Informer
from heliostat_kube.resource import PODS, Json

STATUS_ONLY_ANNOTATION = "e2e.heliostat.dev/status-only"
_ENDED_PHASES = ("Succeeded", "Failed")
_log = structlog.get_logger("heliostat.e2e.kubelet")


class UnknownNodeError(KeyError):
    """There is no such node here."""


class Kubelet:
    """The kubelets of all fake nodes; nodes come, fail, come back and go.

    kubelet_port -- where it serves logs
    """

    def __init__(self, place: PodPlace, address: str, kubelet_port: int) -> None:
        self._place = place
        self._address = address
        self._kubelet_port = kubelet_port
        self._nodes: dict[str, tuple[NodeAgent, asyncio.Task[None]]] = {}
        self._workers: dict[str, PodWorker | StatusOnlyWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pods: Informer[Json] = Informer(
            place.api,
            PODS,
            field_selector="spec.nodeName!=",
            trim=_without_managed_fields,
            on_change=self._on_change,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch pods while the context lasts; at its end every process is killed."""
        watch = asyncio.create_task(self._pods.run())
        try:
            await self._pods.synced.wait()
            yield
        finally:
            watch.cancel()
            beats = [task for _, task in self._nodes.values()]
            tasks = [watch, *beats, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def add_node(self, spec: NodeSpec) -> None:
        """Register a node; its pods start. Raises KubeError."""
        agent = NodeAgent(
            self._place.api,
            spec,
            self._address,
            self._kubelet_port,
            self._place.timing.lease_seconds,
        )
        await agent.register()
        self._nodes[spec.name] = (agent, asyncio.create_task(agent.run()))
        for key, pod in list(self._pods.items.items()):
            self._on_change(key, None, pod)

    async def remove_node(self, name: str) -> None:
        """Take a node away for good, with the processes of its pods. Raises KubeError."""
        agent, beat = self._node(name)
        beat.cancel()
        del self._nodes[name]
        for worker in self._workers_of(name):
            worker.update(None)
        await agent.remove()

    async def fail_node(self, name: str) -> None:
        """Cut a node off: it falls silent, and nobody reaches its pods, which go on."""
        agent, _ = self._node(name)
        agent.online.clear()
        await self._connect(name, connected=False)

    async def recover_node(self, name: str) -> None:
        """Bring a node back; what happened meanwhile is made good."""
        agent, _ = self._node(name)
        await self._connect(name, connected=True)
        agent.online.set()
        with contextlib.suppress(KubeError):
            await agent.report()

    def _node(self, name: str) -> tuple[NodeAgent, asyncio.Task[None]]:
        if name not in self._nodes:
            raise UnknownNodeError(name)
        return self._nodes[name]

    async def _connect(self, name: str, *, connected: bool) -> None:
        for worker in self._workers_of(name):
            if worker.network is not None:
                await self._place.network.set_connected(worker.network, connected=connected)

    def _workers_of(self, node: str) -> list[PodWorker | StatusOnlyWorker]:
        workers = self._workers.values()
        return [worker for worker in workers if worker.pod["spec"]["nodeName"] == node]

    def _on_change(self, _key: str, before: Json | None, pod: Json | None) -> None:
        if before is not None and (pod is None or _uid(before) != _uid(pod)):
            self._update(_uid(before), None)
        if pod is not None:
            self._update(_uid(pod), pod)

    def _update(self, uid: str, pod: Json | None) -> None:
        worker = self._workers.get(uid)
        if worker is None and pod is not None:
            worker = self._start(uid, pod)
        if worker is not None:
            worker.update(pod)

    def _start(self, uid: str, pod: Json) -> PodWorker | StatusOnlyWorker | None:
        node = self._nodes.get(pod["spec"]["nodeName"])
        if node is None or pod.get("status", {}).get("phase") in _ENDED_PHASES:
            return None
        agent, _ = node
        annotations = pod["metadata"].get("annotations") or {}
        status_only = agent.spec.status_only or annotations.get(STATUS_ONLY_ANNOTATION) == "true"
        kind = StatusOnlyWorker if status_only else PodWorker
        worker = self._workers[uid] = kind(self._place, agent, pod)
        task = asyncio.create_task(self._run(uid, worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return worker

    async def _run(self, uid: str, worker: PodWorker | StatusOnlyWorker) -> None:
        try:
            await worker.run()
        except Exception as error:  # one pod must not end the others
            _log.error("pod-worker-failed", pod=worker.pod["metadata"]["name"], error=repr(error))
        finally:
            self._workers.pop(uid, None)


def _without_managed_fields(pod: Json) -> Json:
    pod["metadata"].pop("managedFields", None)
    return pod


def _uid(pod: Json) -> str:
    return str(pod["metadata"]["uid"])

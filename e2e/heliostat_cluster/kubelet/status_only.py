"""Pods without processes, for benchmarks of hundreds: they only have a status."""

import asyncio
from collections.abc import Awaitable, Callable

from heliostat_cluster.kubelet.instants import now_text
from heliostat_cluster.kubelet.network import PodNetwork
from heliostat_cluster.kubelet.pod_status import PodView, Role, records_of
from heliostat_cluster.kubelet.pod_worker import NodeState, PodPlace
from heliostat_cluster.kubelet.status_writer import StatusWriter
from heliostat_kube.errors import ConflictError, KubeError, NotFoundError
from heliostat_kube.resource import Json

_RETRY_SECONDS = 0.5


class StatusOnlyWorker:
    """A pod without processes: it becomes Ready after a moment and ends when it is told."""

    def __init__(self, place: PodPlace, node: NodeState, pod: Json) -> None:
        self.pod = pod
        self.network: PodNetwork | None = None
        self._place = place
        self._node = node
        self._started_at = now_text()
        self._records = records_of(pod)
        self._to_end = asyncio.Event()
        self._writer = StatusWriter(place.api, pod, node.online, self._view)

    def update(self, pod: Json | None) -> None:
        """Take the newest version; None: it was removed without waiting for us."""
        if pod is not None:
            self.pod = pod
            self._writer.observe(pod)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            self._to_end.set()

    async def run(self) -> None:
        """Be the pod until it is deleted."""
        network = self.network = self._place.network.reserve()
        try:
            await asyncio.sleep(self._place.timing.status_only_seconds)
            await self._node.online.wait()
            for record in self._records:
                is_init = record.role is Role.INIT
                record.container_id = f"containerd://{self.pod['metadata']['uid']}-{record.name}"
                record.image_id = f"e2e/{record.spec['image']}"
                record.state = _over() if is_init else {"running": {"startedAt": now_text()}}
                record.ready = record.started = not is_init
            await self._retry(self._writer.write)
            writing = asyncio.create_task(self._writer.run())
            try:
                await self._to_end.wait()
            finally:
                writing.cancel()
            await self._node.online.wait()
            await self._retry(self._remove)
        finally:
            await self._place.network.close(network)

    async def _remove(self) -> None:
        metadata = self.pod["metadata"]
        await self._place.api.remove_pod(metadata["namespace"], metadata["name"], metadata["uid"])

    async def _retry(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except (NotFoundError, ConflictError):
                return
            except KubeError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _view(self) -> PodView:
        return PodView(
            pod=self.pod,
            records=self._records,
            host_address=self._node.address,
            pod_address=self.network.address if self.network else "",
            started_at=self._started_at,
            ended=False,
        )


def _over() -> Json:
    now = now_text()
    return {
        "terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
    }

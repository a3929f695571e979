"""One pod on one node, from its first container to its last."""

import asyncio
import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import structlog

from heliostat_cluster.images.table import ImageTable
from heliostat_cluster.kubelet.actions import Actions
from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.container_keeper import ContainerKeeper
from heliostat_cluster.kubelet.instants import now_text
from heliostat_cluster.kubelet.network import Network, PodNetwork
from heliostat_cluster.kubelet.pod_status import PodView, Role, records_of
from heliostat_cluster.kubelet.pod_surroundings import Surroundings
from heliostat_cluster.kubelet.references import ConfigError, PodFacts
from heliostat_cluster.kubelet.settings import Timing, log_folder
from heliostat_cluster.kubelet.status_writer import StatusWriter
from heliostat_cluster.kubelet.volumes import Volumes
from heliostat_kube.errors import ConflictError, KubeError, NotFoundError
from heliostat_kube.resource import Json

_RETRY_SECONDS = 0.5
_ORPHAN_GRACE_SECONDS = 2.0
_log = structlog.get_logger("heliostat.e2e.kubelet")


class NodeState(Protocol):
    """What a pod has to know of its node."""

    online: asyncio.Event
    address: str


@dataclass(frozen=True)
class PodPlace:
    """What all pods of this kubelet share."""

    api: KubeletApi
    images: ImageTable
    network: Network
    session: aiohttp.ClientSession
    service: Mapping[str, str]
    timing: Timing
    state: Path


class PodWorker:
    """Runs one pod. `run` returns when nothing of it is left."""

    def __init__(self, place: PodPlace, node: NodeState, pod: Json) -> None:
        self.pod = pod
        self._place = place
        self._node = node
        self._network: PodNetwork | None = None
        self._volumes: Volumes | None = None
        self._started_at = now_text()
        self._ended = False
        self._grace_seconds: float | None = None
        self._to_end = asyncio.Event()
        self._keepers: list[ContainerKeeper] = []
        self._records = records_of(pod)
        self._writer = StatusWriter(place.api, pod, node.online, self._view)

    @property
    def network(self) -> PodNetwork | None:
        """The pod's network, once it has one."""
        return self._network

    def update(self, pod: Json | None) -> None:
        """Take the newest version; None: it was removed without waiting for us."""
        if pod is not None:
            self.pod = pod
            self._writer.observe(pod)
            if "deletionTimestamp" not in pod["metadata"]:
                return
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        else:
            grace = _ORPHAN_GRACE_SECONDS
        hurry = self._to_end.is_set() and grace < (self._grace_seconds or 0.0)
        self._grace_seconds = grace
        self._to_end.set()
        if hurry:
            asyncio.get_running_loop().call_later(grace, self._kill)

    async def run(self) -> None:
        """Run the pod until it is deleted, then let it disappear."""
        writing = asyncio.create_task(self._writer.run())
        life = asyncio.create_task(self._live())
        try:
            deletion = asyncio.create_task(self._to_end.wait())
            await asyncio.wait([life, deletion], return_when=asyncio.FIRST_COMPLETED)
            if life.done() and not life.cancelled() and (error := life.exception()) is not None:
                _log.error("pod-failed", pod=self._name, exc_info=error)
            await deletion
            await self._node.online.wait()
            await self._end(life)
            await self._disappear()
        finally:
            writing.cancel()
            life.cancel()
            self._kill()
            await self._clean_up()

    @property
    def _name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    async def _live(self) -> None:
        await self._node.online.wait()
        self._writer.note_change()
        surroundings = await self._surround()
        self._keepers = [ContainerKeeper(record, surroundings) for record in self._records]
        async with asyncio.TaskGroup() as sidecars:
            for keeper in self._with(Role.INIT, Role.SIDECAR):
                if keeper.record.role is Role.SIDECAR:
                    sidecars.create_task(keeper.run())
                    await keeper.began.wait()
                else:
                    await keeper.run()
                    if keeper.record.exit_code != 0:
                        await self._finish()
                        return
            async with asyncio.TaskGroup() as mains:
                for keeper in self._with(Role.MAIN):
                    mains.create_task(keeper.run())
            await self._finish()

    async def _finish(self) -> None:
        """The pod has come to its own end: only its sidecars are left."""
        if not self._to_end.is_set():
            await self._end_containers(self._spec_grace_seconds())
            self._ended = True
            self._writer.note_change()

    async def _surround(self) -> Surroundings:
        """Make network and volumes, trying again while something they need does not exist."""
        place = self._place
        metadata = self.pod["metadata"]
        folder = place.state / "pods" / metadata["uid"]
        facts = PodFacts(self.pod, self._node.address)
        if self._network is None:
            self._network = await self._open_network()
        facts.pod_address = self._network.address
        self._volumes = Volumes(place.api, facts, folder / "volumes", place.state / "claims")
        while True:
            try:
                await self._volumes.make()
                break
            except (ConfigError, KubeError, OSError) as error:
                _log.warning("volumes-not-made", pod=self._name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
        return Surroundings(
            api=place.api,
            facts=facts,
            images=place.images,
            network=self._network,
            volumes=self._volumes,
            actions=Actions(place.session, self._network.address),
            service=place.service,
            timing=place.timing,
            folder=folder,
            logs=log_folder(place.state, metadata["namespace"], metadata["name"], metadata["uid"]),
            on_change=self._writer.note_change,
        )

    async def _open_network(self) -> PodNetwork:
        if self.pod["spec"].get("hostNetwork"):
            return PodNetwork(self._node.address)
        return await self._place.network.open()

    async def _end(self, life: asyncio.Task[None]) -> None:
        grace = self._grace_seconds or 0.0
        await self._end_containers(grace)
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await life
        self._ended = True

    async def _end_containers(self, grace_seconds: float) -> None:
        """End the main containers together, then the sidecars, the last one first."""
        deadline = asyncio.get_running_loop().time() + grace_seconds
        mains = [asyncio.create_task(each.end(deadline)) for each in self._with(Role.MAIN)]
        tasks = [*mains]
        for keeper in reversed(self._with(Role.SIDECAR, Role.INIT)):
            tasks.append(asyncio.create_task(keeper.end(deadline, [*tasks])))
        await asyncio.gather(*tasks)

    async def _disappear(self) -> None:
        metadata = self.pod["metadata"]
        while True:
            try:
                await self._writer.write()
                await self._place.api.remove_pod(
                    metadata["namespace"], metadata["name"], metadata["uid"]
                )
            except (NotFoundError, ConflictError):
                return
            except KubeError:
                await asyncio.sleep(_RETRY_SECONDS)
                await self._node.online.wait()
            else:
                return

    async def _clean_up(self) -> None:
        if self._volumes is not None:
            self._volumes.remove()
        folder = self._place.state / "pods" / self.pod["metadata"]["uid"]
        shutil.rmtree(folder, ignore_errors=True)
        if self._network is not None and self._network.namespace is not None:
            await self._place.network.close(self._network)

    def _kill(self) -> None:
        for keeper in self._keepers:
            keeper.kill()

    def _with(self, *roles: Role) -> Sequence[ContainerKeeper]:
        return [keeper for keeper in self._keepers if keeper.record.role in roles]

    def _spec_grace_seconds(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _view(self) -> PodView:
        return PodView(
            pod=self.pod,
            records=self._records,
            host_address=self._node.address,
            pod_address=self._network.address if self._network else "",
            started_at=self._started_at,
            ended=self._ended,
        )

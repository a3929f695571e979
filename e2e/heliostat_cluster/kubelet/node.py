"""One node: registered with its GPUs, kept alive by its lease, and able to fail."""

import asyncio
from dataclasses import dataclass, field

import structlog

from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.instants import now_text, now_text_micro
from heliostat_kube.errors import ConflictError, KubeError
from heliostat_kube.resource import LEASES, NODES, Json

STATUS_SECONDS = 10.0
RETRY_SECONDS = 0.25
_LEASE_NAMESPACE = "kube-node-lease"
_log = structlog.get_logger("heliostat.e2e.kubelet")


@dataclass(frozen=True)
class NodeSpec:
    """What a node offers.

    status_only -- its pods get no processes
    pods -- how many pods it takes
    """

    name: str
    gpus: int = 8
    status_only: bool = False
    pods: int = 250
    labels: dict[str, str] = field(default_factory=dict)


class NodeAgent:
    """Speaks for one node. `online` is cleared while the node is cut off."""

    def __init__(
        self, api: KubeletApi, spec: NodeSpec, address: str, kubelet_port: int, lease_seconds: float
    ) -> None:
        self.spec = spec
        self.address = address
        self.online = asyncio.Event()
        self.online.set()
        self._api = api
        self._kubelet_port = kubelet_port
        self._lease_seconds = lease_seconds

    async def register(self) -> None:
        """Make the node and say that it is ready. Raises KubeError."""
        labels = {
            "kubernetes.io/hostname": self.spec.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        } | self.spec.labels
        node: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.spec.name, "labels": labels},
        }
        try:
            await self._api.create(NODES, node)
        except ConflictError:
            await self._api.merge_patch(NODES, self.spec.name, {"metadata": {"labels": labels}})
        await self._renew_lease()
        await self._write_status()

    async def run(self) -> None:
        """Keep the node alive until cancelled.

        After an outage the API server hears of the node before the node controller can count the
        silence against it.
        """
        loop = asyncio.get_running_loop()
        status_due_at = loop.time() + STATUS_SECONDS
        wait_seconds = self._lease_seconds
        while True:
            await asyncio.sleep(wait_seconds)
            await self.online.wait()
            try:
                await self._renew_lease()
                if loop.time() >= status_due_at:
                    await self._write_status()
                    status_due_at = loop.time() + STATUS_SECONDS
            except KubeError as error:
                if wait_seconds != RETRY_SECONDS:
                    _log.warning("heartbeat-failed", node=self.spec.name, error=str(error))
                wait_seconds = RETRY_SECONDS
                status_due_at = loop.time()
            else:
                wait_seconds = self._lease_seconds

    async def remove(self) -> None:
        """Take the node out of the cluster. Raises KubeError."""
        await self._api.delete(NODES, self.spec.name)
        await self._api.delete(LEASES, self.spec.name, _LEASE_NAMESPACE)

    async def report(self) -> None:
        """Say at once that the node is well, as one that has come back does. Raises KubeError."""
        await self._renew_lease()
        await self._write_status()

    async def _renew_lease(self) -> None:
        renewal = {
            "holderIdentity": self.spec.name,
            "leaseDurationSeconds": max(1, round(4 * self._lease_seconds)),
            "renewTime": now_text_micro(),
        }
        lease: Json = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.spec.name, "namespace": _LEASE_NAMESPACE},
            "spec": renewal,
        }
        await self._api.apply(lease, field_manager="heliostat-e2e-kubelet")

    async def _write_status(self) -> None:
        capacity = {
            "cpu": "192",
            "memory": "2Ti",
            "ephemeral-storage": "10Ti",
            "pods": str(self.spec.pods),
            "nvidia.com/gpu": str(self.spec.gpus),
        }
        now = now_text()
        conditions = [
            _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", now),
            _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", now),
            _condition("PIDPressure", "False", "KubeletHasSufficientPID", now),
            _condition("Ready", "True", "KubeletReady", now),
        ]
        status: Json = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.spec.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet_port}},
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "heliostat-e2e://1",
                "kernelVersion": "",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.3",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "",
                "systemUUID": "",
            },
        }
        await self._api.patch_status(NODES, self.spec.name, status)


def _condition(kind: str, state: str, reason: str, now: str) -> Json:
    return {
        "type": kind,
        "status": state,
        "reason": reason,
        "message": reason,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }

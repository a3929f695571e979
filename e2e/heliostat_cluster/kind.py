"""The same scenarios on kind (E2E_CLUSTER=kind), where there are Docker, kind, kubectl and helm.

Real kubelets and containers then, in exchange for minutes of start. The images are built from the
Dockerfile of the repository; the engine's is the same one with the stand-in's command line.
"""

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from heliostat_cluster.cluster import CommandError, run_command
from heliostat_cluster.errors import ClusterError
from heliostat_cluster.images.wheel import CHECKOUT

HELIOSTAT_IMAGE = "heliostat/heliostat:e2e"
ENGINE_IMAGE = "vllm/vllm-openai:e2e"
_PROGRAMS = ("docker", "kind", "kubectl", "helm")
_ENGINE_DOCKERFILE = f"""\
FROM {HELIOSTAT_IMAGE}
USER 0
COPY e2e/heliostat_cluster /opt/e2e/heliostat_cluster
ENV PYTHONPATH=/opt/e2e
ENTRYPOINT ["python3", "-m", "heliostat_cluster.images.vllm"]
"""
_API_SERVER_MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
_SLOW_SECONDS = 900.0


class KindCluster:
    """A kind cluster with two workers, an async context manager. Removed at the end.

    Its nodes are fixed. A node fails by pausing its container, the API server goes away by taking
    its manifest away.
    """

    def __init__(self, gpus: int = 8) -> None:
        self.name = f"heliostat-{secrets.token_hex(3)}"
        self._gpus = gpus
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.kubeconfig = self._folder / "kubeconfig"

    async def __aenter__(self) -> Self:
        """Build the images, create the cluster, load them. Raises ClusterError."""
        absent = [program for program in _PROGRAMS if shutil.which(program) is None]
        if absent:
            raise ClusterError(f"E2E_CLUSTER=kind needs {', '.join(absent)} on PATH")
        try:
            await self._build_images()
            await self._create()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Delete the cluster."""
        await self._run("kind", "delete", "cluster", "--name", self.name)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; return what it writes. Raises CommandError."""
        return await self._run("kubectl", *arguments, stdin=stdin)

    async def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm; return what it writes. Raises CommandError."""
        return await self._run("helm", *arguments, stdin=stdin)

    async def logs(
        self, pod: str, container: str, namespace: str = "default", *, previous: bool = False
    ) -> str:
        """Return what a container has written. Raises CommandError for a pod that is gone."""
        earlier = ["--previous"] if previous else []
        return await self.kubectl("logs", pod, "-c", container, "-n", namespace, *earlier)

    async def add_node(
        self, name: str, *, gpus: int = 8, status_only: bool = False, pods: int = 250
    ) -> str:
        """Refuse: a kind cluster has the nodes that it was created with. Raises ClusterError."""
        raise ClusterError(f"kind cannot add the node {name}: run this scenario on our own cluster")

    async def remove_node(self, name: str) -> None:
        """Refuse, as `add_node` does. Raises ClusterError."""
        raise ClusterError(f"kind cannot remove the node {name}")

    async def fail_node(self, name: str) -> None:
        """Freeze a node. Raises CommandError."""
        await self._run("docker", "pause", name)

    async def recover_node(self, name: str) -> None:
        """Let a frozen node go on. Raises CommandError."""
        await self._run("docker", "unpause", name)

    async def kill(self, pod: str, command: str) -> None:
        """Kill the pod's process with this word on its command line, without a warning."""
        inside = ("docker", "exec", f"{self.name}-control-plane")
        ids = await self._run(*inside, "pgrep", "--full", command)
        for process in ids.split():
            environment = await self._run(*inside, "cat", f"/proc/{process}/environ")
            if f"HOSTNAME={pod}" in environment.split("\0"):
                await self._run(*inside, "kill", "-KILL", process)
                return
        raise ClusterError(f"no process of pod {pod} runs {command}")

    @asynccontextmanager
    async def api_server_away(self) -> AsyncIterator[None]:
        """Have no API server while the context lasts."""
        inside = ("docker", "exec", f"{self.name}-control-plane")
        await self._run(*inside, "mv", _API_SERVER_MANIFEST, "/var/")
        try:
            yield
        finally:
            await self._run(*inside, "mv", "/var/kube-apiserver.yaml", _API_SERVER_MANIFEST)
            await self._wait_until_ready()

    async def _build_images(self) -> None:
        await self._run("docker", "build", "--tag", HELIOSTAT_IMAGE, str(CHECKOUT))
        engine = ("docker", "build", "--tag", ENGINE_IMAGE, "--file", "-", str(CHECKOUT))
        await self._run(*engine, stdin=_ENGINE_DOCKERFILE)

    async def _create(self) -> None:
        document: dict[str, Any] = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}],
        }
        create = ("kind", "create", "cluster", "--name", self.name, "--config", "-")
        await self._run(*create, "--wait", "120s", stdin=json.dumps(document))
        for image in (HELIOSTAT_IMAGE, ENGINE_IMAGE):
            await self._run("kind", "load", "docker-image", image, "--name", self.name)
        listed = json.loads(await self.kubectl("get", "nodes", "-o", "json"))
        for node in listed["items"]:
            await self._prepare(node)

    async def _prepare(self, node: dict[str, Any]) -> None:
        """Give a worker its GPUs, and this machine a way to the pods of the node."""
        name, spec = node["metadata"]["name"], node["spec"]
        address = next(
            each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"
        )
        await self._run("ip", "route", "replace", spec["podCIDR"], "via", address)
        if not name.endswith("control-plane"):
            patch = json.dumps({"status": {"capacity": {"nvidia.com/gpu": str(self._gpus)}}})
            await self.kubectl("patch", "node", name, "--subresource=status", "-p", patch)

    async def _wait_until_ready(self) -> None:
        async with asyncio.timeout(_SLOW_SECONDS):
            while True:
                try:
                    await self.kubectl("get", "--raw", "/readyz")
                    return
                except CommandError:
                    await asyncio.sleep(1)

    async def _run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        path = Path(shutil.which(program) or program)
        return await run_command(
            path, arguments, self.kubeconfig, stdin, within_seconds=_SLOW_SECONDS
        )


def is_wanted() -> bool:
    """Whether the environment asks for kind."""
    return os.environ.get("E2E_CLUSTER") == "kind"

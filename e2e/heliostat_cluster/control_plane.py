"""A real control plane: etcd, API server, controller manager and scheduler as local programs."""

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from heliostat_cluster.certificates import Authority, KeyPair, write_private_key
from heliostat_cluster.child_process import ChildProcess
from heliostat_cluster.errors import ClusterError
from heliostat_cluster.tools import Tools

API_PORT = 6443
SERVICE_SUBNET = "10.96.0.0/16"
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ControlPlaneSettings:
    """What differs from a cluster in production: a test cannot wait minutes.

    node_grace_seconds -- a node not heard for so long is NotReady (Kubernetes: 50)
    eviction_seconds -- pods stay so long on a NotReady node unless they say (Kubernetes: 300)
    """

    node_grace_seconds: int = 8
    eviction_seconds: int = 5


@dataclass(frozen=True)
class Access:
    """How clients reach the API server."""

    url: str
    kubeconfig: Path
    certificate_authority: Path
    administrator: KeyPair


class ApiServer:
    """The API server, which a test may stop and start again."""

    def __init__(self, process: ChildProcess, access: Access) -> None:
        self._process = process
        self._access = access
        self._tls = ssl.create_default_context(cafile=str(access.certificate_authority))
        self._tls.load_cert_chain(access.administrator.certificate, access.administrator.key)

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises ClusterError."""
        self._process.start()
        deadline = time.monotonic() + _READY_SECONDS
        async with aiohttp.ClientSession() as session:
            while not await self._is_ready(session):
                self._process.check()
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the API server is not ready after {_READY_SECONDS:.0f} s, "
                        f"see {self._process.log}"
                    )
                await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Stop it at once, watches and all; everything else stays."""
        await self._process.stop(within_seconds=0.0)

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=2)
            url = f"{self._access.url}/readyz"
            async with session.get(url, ssl=self._tls, timeout=timeout) as response:
                return response.status == 200
        return False


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    access: Access
    authority: Authority
    api_server: ApiServer
    controllers: tuple[ChildProcess, ...]
    """The controller manager and the scheduler."""

    async def bring_back_api_server(self) -> None:
        """Start it after a long absence, and then the controllers anew, as their kubelet does.

        They have lost their leases and have ended by then. One that goes on would be silent up to a
        minute, and before that hold the nodes' silence against them, which was the API server's.
        """
        for process in self.controllers:
            await process.stop()
        await self.api_server.start()
        for process in self.controllers:
            process.start()


@asynccontextmanager
async def open_control_plane(
    tools: Tools, state: Path, address: str, settings: ControlPlaneSettings
) -> AsyncIterator[ControlPlane]:
    """Run a control plane on an address of this machine, all of its files below `state`."""
    logs = state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    authority = Authority(state / "certificates")
    access = _give_access(authority, state, address)
    async with AsyncExitStack() as stack:

        def prepare(name: str, *options: str) -> ChildProcess:
            process = ChildProcess(name, [tools.path(name), *options], logs / f"{name}.log")
            stack.push_async_callback(process.stop)
            return process

        client_port, peer_port, manager_port, scheduler_port = _free_ports(4)
        etcd = f"http://127.0.0.1:{client_port}"
        prepare("etcd", *_etcd_options(state, etcd, peer_port)).start()
        process = prepare(
            "kube-apiserver", *_api_server_options(authority, state, address, etcd, settings)
        )
        api_server = ApiServer(process, access)
        await api_server.start()
        manager = prepare(
            "kube-controller-manager",
            *_controller_manager_options(authority, state, manager_port, settings),
        )
        scheduler = prepare("kube-scheduler", *_scheduler_options(state, scheduler_port))
        for process in (manager, scheduler):
            process.start()
        yield ControlPlane(access, authority, api_server, (manager, scheduler))


def _give_access(authority: Authority, state: Path, address: str) -> Access:
    url = f"https://{address}:{API_PORT}"
    access = {}
    for name, user, group in (
        ("admin", "heliostat-e2e", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", ""),
        ("scheduler", "system:kube-scheduler", ""),
    ):
        pair = authority.issue(name, user, [group] if group else [])
        kubeconfig = state / ("kubeconfig" if name == "admin" else f"{name}.kubeconfig")
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(_kubeconfig(url, authority.certificate, pair, user))
        access[name] = Access(url, kubeconfig, authority.certificate, pair)
    return access["admin"]


def _kubeconfig(url: str, certificate_authority: Path, pair: KeyPair, user: str) -> str:
    name = "heliostat-e2e"
    cluster = {"server": url, "certificate-authority": str(certificate_authority)}
    credentials = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }
    return json.dumps(document, indent=2)


def _etcd_options(state: Path, url: str, peer_port: int) -> list[str]:
    return [
        f"--data-dir={state / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server_options(
    authority: Authority, state: Path, address: str, etcd: str, settings: ControlPlaneSettings
) -> list[str]:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    served = authority.issue("api-server", "kube-apiserver", hosts=[address, "127.0.0.1", *names])
    to_kubelets = authority.issue("api-server-to-kubelets", "kube-apiserver")
    tokens = state / "certificates" / "service-accounts.key"
    write_private_key(tokens, ec.generate_private_key(ec.SECP256R1()))
    return [
        f"--etcd-servers={etcd}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={API_PORT}",
        f"--client-ca-file={authority.certificate}",
        f"--tls-cert-file={served.certificate}",
        f"--tls-private-key-file={served.key}",
        f"--kubelet-client-certificate={to_kubelets.certificate}",
        f"--kubelet-client-key={to_kubelets.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={tokens}",
        f"--service-account-signing-key-file={tokens}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
        f"--default-not-ready-toleration-seconds={settings.eviction_seconds}",
        f"--default-unreachable-toleration-seconds={settings.eviction_seconds}",
        "--shutdown-delay-duration=0s",
    ]


def _controller_manager_options(
    authority: Authority, state: Path, port: int, settings: ControlPlaneSettings
) -> list[str]:
    return [
        f"--kubeconfig={state / 'controller-manager.kubeconfig'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--service-account-private-key-file={state / 'certificates' / 'service-accounts.key'}",
        f"--root-ca-file={authority.certificate}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        f"--node-monitor-grace-period={settings.node_grace_seconds}s",
        "--node-monitor-period=2s",
        "--node-eviction-rate=10",
        "--secondary-node-eviction-rate=10",
        "--large-cluster-size-threshold=0",
    ]


def _scheduler_options(state: Path, port: int) -> list[str]:
    document = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(state / "scheduler.kubeconfig"),
            "qps": 200,
            "burst": 400,
        },
        "podInitialBackoffSeconds": 1,
        "podMaxBackoffSeconds": 2,
    }
    path = state / "scheduler.json"
    path.write_text(json.dumps(document, indent=2))
    return [f"--config={path}", "--bind-address=127.0.0.1", f"--secure-port={port}"]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]

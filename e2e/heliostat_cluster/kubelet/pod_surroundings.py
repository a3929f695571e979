"""What all containers of one pod share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat_cluster.images.table import Image, ImageTable
from heliostat_cluster.kubelet.actions import Actions
from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.container import (
    TERMINATION_MESSAGE,
    Container,
    ContainerSpec,
    Mount,
)
from heliostat_cluster.kubelet.environment import (
    hostname_of,
    resolve_command,
    resolve_environment,
)
from heliostat_cluster.kubelet.network import PodNetwork
from heliostat_cluster.kubelet.references import PodFacts
from heliostat_cluster.kubelet.security import resolve_identity
from heliostat_cluster.kubelet.settings import Timing
from heliostat_cluster.kubelet.volumes import Volumes
from heliostat_kube.resource import Json


@dataclass(frozen=True)
class Surroundings:
    """Everything a container of the pod is made from.

    service -- variables that name the API server
    on_change -- called when a container's state changes
    """

    api: KubeletApi
    facts: PodFacts
    images: ImageTable
    network: PodNetwork
    volumes: Volumes
    actions: Actions
    service: Mapping[str, str]
    timing: Timing
    folder: Path
    logs: Path
    on_change: Callable[[], None]

    async def make(self, container: Json, image: Image, restarts: int) -> Container:
        """Prepare a container. Raises ConfigError and KubeError."""
        pod = self.facts.pod
        identity = resolve_identity(pod, container, image)
        environment = await resolve_environment(
            self.api, self.facts, container, image, self.service
        )
        if identity.uid and "HOME" not in (each["name"] for each in container.get("env") or ()):
            environment["HOME"] = "/"
        folder = self.folder / "containers" / container["name"] / str(restarts)
        folder.mkdir(parents=True, exist_ok=True)
        message = folder / TERMINATION_MESSAGE
        message.touch()
        message.chmod(0o666)
        place = container.get("terminationMessagePath") or "/dev/termination-log"
        logs = self.logs / container["name"]
        logs.mkdir(parents=True, exist_ok=True)
        host_network = bool(pod["spec"].get("hostNetwork"))
        hostname = hostname_of(pod)
        spec = ContainerSpec(
            command=resolve_command(container, image, environment),
            environment=environment,
            working_directory=container.get("workingDir") or image.working_directory,
            hostname=hostname,
            network=self.network.path,
            mounts=[
                *self.volumes.mounts(container, environment),
                Mount(str(message), place),
            ],
            readable=image.readable,
            files={"/etc/hosts": _hosts(self.network.address, hostname)},
            uid=identity.uid,
            gid=identity.gid,
            groups=identity.groups,
            capabilities=identity.capabilities,
            no_new_privileges=identity.no_new_privileges,
            read_only_root=identity.read_only_root,
            host_network=host_network,
        )
        return Container(folder, spec, logs / f"{restarts}.log")


def _hosts(address: str, hostname: str) -> str:
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{address}\t{hostname}\n"

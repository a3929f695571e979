"""Whom a container runs as, and what it may: its own word over the pod's and the image's."""

from dataclasses import dataclass

from heliostat_cluster.images.table import Image
from heliostat_cluster.kubelet.container import kept_capabilities
from heliostat_cluster.kubelet.references import ConfigError
from heliostat_kube.resource import Json


@dataclass(frozen=True)
class Identity:
    """The outcome. capabilities -- numbers of those kept; None keeps all."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: list[int] | None
    no_new_privileges: bool
    read_only_root: bool


def resolve_identity(pod: Json, container: Json, image: Image) -> Identity:
    """Combine the three. Raises ConfigError for a root that must not be one."""
    general: Json = pod["spec"].get("securityContext") or {}
    own: Json = container.get("securityContext") or {}
    merged = general | own
    uid = int(merged.get("runAsUser", image.user))
    if merged.get("runAsNonRoot") and uid == 0:
        raise ConfigError("container has runAsNonRoot and image will run as root")
    default_group = image.user if uid == image.user else 0
    groups = list(general.get("supplementalGroups") or ())
    if "fsGroup" in general:
        groups.append(general["fsGroup"])
    changes: Json = own.get("capabilities") or {}
    kept = kept_capabilities(changes.get("add") or (), changes.get("drop") or ())
    return Identity(
        uid=uid,
        gid=int(merged.get("runAsGroup", default_group)),
        groups=tuple(groups),
        capabilities=None if own.get("privileged") else kept,
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
    )

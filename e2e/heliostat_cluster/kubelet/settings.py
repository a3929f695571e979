"""How the fake kubelet is set up; passed to its process as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """A kubelet's patience, shortened where a test would wait for it.

    crash_backoff_seconds -- wait before the second restart, doubled for each one more (10 in a
        real kubelet; the first restart comes at once, as there)
    most_backoff_seconds -- the longest such wait (300 in a real kubelet)
    stable_seconds -- a run this long makes the wait start anew
    lease_seconds -- how often a node says that it lives
    status_only_seconds -- how long a pod without processes takes to become Ready
    """

    crash_backoff_seconds: float = 1.0
    most_backoff_seconds: float = 30.0
    stable_seconds: float = 600.0
    lease_seconds: float = 2.0
    status_only_seconds: float = 0.2


@dataclass(frozen=True)
class KubeletSettings:
    """Everything the kubelet's process is told.

    libraries -- folders that the programs of the images read
    """

    kubeconfig: str
    state: str
    cluster_id: str
    subnet: str
    api_port: int
    certificate_authority: str
    server_certificate: str
    server_key: str
    heliostat: str
    engine: str
    envoy: str
    libraries: tuple[str, ...]
    timing: Timing

    def write(self, path: Path) -> None:
        """Write the settings to a file."""
        path.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, path: Path) -> "KubeletSettings":
        """Read what `write` wrote."""
        document: dict[str, Any] = json.loads(path.read_text())
        document["timing"] = Timing(**document["timing"])
        document["libraries"] = tuple(document["libraries"])
        return cls(**document)


def control_socket(state: Path) -> Path:
    """Return where the kubelet takes orders."""
    return state / "kubelet.sock"


def log_folder(state: Path, namespace: str, pod: str, uid: str) -> Path:
    """Return the folder of a pod's logs: `<container>/<restarts>.log`."""
    return state / "pod-logs" / f"{namespace}_{pod}_{uid}"

"""The bridge that the pods of one cluster hang on, and the sweeping of what a killed run left.

Every run writes a note of its own into a folder of the machine. A note whose process is gone names
a bridge and network namespaces that nobody uses any more.
"""

import contextlib
import ipaddress
import json
import os
import random
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heliostat_cluster.errors import ClusterError

NOTES = Path("/run/heliostat-e2e")
NETWORK_NAMESPACES = Path("/run/netns")
_PREFIX_LENGTH = 20
_CANDIDATES = 40


@dataclass(frozen=True)
class Bridge:
    """One cluster's network.

    cluster_id -- short and random; every name on this machine begins with it
    subnet -- all pods' addresses
    """

    cluster_id: str
    subnet: ipaddress.IPv4Network

    @property
    def name(self) -> str:
        """The bridge's interface."""
        return self.cluster_id

    @property
    def address(self) -> str:
        """Our own address on it; API server and nodes share it."""
        return str(self.subnet.network_address + 1)


@contextmanager
def open_bridge() -> Iterator[Bridge]:
    """Make a bridge on a free subnet and take it down at the end. Raises ClusterError."""
    if os.geteuid() != 0:
        raise ClusterError(
            "the e2e cluster makes network namespaces and mounts: run it as root, or on kind "
            "(E2E_CLUSTER=kind)"
        )
    sweep_abandoned()
    bridge = Bridge(f"hs{secrets.token_hex(3)}", _free_subnet())
    NOTES.mkdir(parents=True, exist_ok=True)
    note = NOTES / bridge.cluster_id
    note.write_text(json.dumps({"pid": os.getpid(), "started": _started_at(os.getpid())}))
    try:
        run_ip(
            f"link add {bridge.name} type bridge",
            f"addr add {bridge.address}/{_PREFIX_LENGTH} dev {bridge.name}",
            f"link set {bridge.name} up",
        )
        yield bridge
    finally:
        _remove(bridge.cluster_id)


def run_ip(*commands: str, namespace: str | None = None) -> None:
    """Run commands of ip(8), in a network namespace if one is named. Raises ClusterError."""
    inside = ["-n", namespace] if namespace else []
    done = subprocess.run(
        ["ip", *inside, "-batch", "-"],  # noqa: S607 - ip is where the system has it
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"ip {'; '.join(commands)}: {done.stderr.strip()}")


def sweep_abandoned() -> None:
    """Remove bridges and network namespaces of runs that were killed."""
    if not NOTES.is_dir():
        return
    for note in NOTES.iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError):
            owner = json.loads(note.read_text())
            if _started_at(owner["pid"]) != owner["started"]:
                _remove(note.name)


def _remove(cluster_id: str) -> None:
    if NETWORK_NAMESPACES.is_dir():
        for namespace in NETWORK_NAMESPACES.glob(f"{cluster_id}-*"):
            with contextlib.suppress(ClusterError):
                run_ip(f"netns del {namespace.name}")
    with contextlib.suppress(ClusterError):
        run_ip(f"link del {cluster_id}")
    (NOTES / cluster_id).unlink(missing_ok=True)


def _started_at(pid: int) -> str | None:
    """Return what tells a process from a later one of the same id; None if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _free_subnet() -> ipaddress.IPv4Network:
    done = subprocess.run(
        ["ip", "-4", "-json", "route", "show", "table", "all"],  # noqa: S607
        capture_output=True,
        check=True,
    )
    taken = []
    for route in json.loads(done.stdout):
        with contextlib.suppress(ValueError):
            taken.append(ipaddress.IPv4Network(route["dst"]))
    taken = [network for network in taken if network.prefixlen]
    for _ in range(_CANDIDATES):
        second, third = random.randint(128, 254), 16 * random.randint(0, 15)
        subnet = ipaddress.IPv4Network(f"10.{second}.{third}.0/{_PREFIX_LENGTH}")
        if not any(subnet.overlaps(network) for network in taken):
            return subnet
    raise ClusterError("no free subnet in 10.128.0.0/9 for the pods: are many clusters running?")

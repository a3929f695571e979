"""A pod's network namespace: one interface on the cluster's bridge, with an address of its own."""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass

from heliostat_cluster.bridge import NETWORK_NAMESPACES, Bridge, run_ip
from heliostat_cluster.errors import ClusterError

_FIRST_HOST = 16


@dataclass(frozen=True)
class PodNetwork:
    """One pod's network. `namespace` and `link` are None where it has none of its own."""

    address: str
    namespace: str | None = None
    link: str | None = None

    @property
    def path(self) -> str | None:
        """The file of the network namespace."""
        return None if self.namespace is None else str(NETWORK_NAMESPACES / self.namespace)


class Network:
    """Gives addresses and interfaces to the pods of one cluster."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._numbers = itertools.count(_FIRST_HOST)
        self._in_use: set[int] = set()

    async def open(self) -> PodNetwork:
        """Make a pod's network. Raises ClusterError."""
        number = self._take()
        name = self._bridge.cluster_id
        network = PodNetwork(self._address(number), f"{name}-{number}", f"{name}v{number}")
        await asyncio.to_thread(self._make, network)
        return network

    def reserve(self) -> PodNetwork:
        """Give an address to a pod that has no processes."""
        return PodNetwork(self._address(self._take()))

    async def close(self, network: PodNetwork) -> None:
        """Give a pod's network up; the address is used again only after all the others."""
        if network.namespace is not None:
            with contextlib.suppress(ClusterError):
                await asyncio.to_thread(run_ip, f"netns del {network.namespace}")
        self._in_use.discard(self._number(network.address))

    async def set_connected(self, network: PodNetwork, *, connected: bool) -> None:
        """Plug the pod in or pull its cable out."""
        if network.link is not None:
            state = "up" if connected else "down"
            await asyncio.to_thread(run_ip, f"link set {network.link} {state}")

    def _make(self, network: PodNetwork) -> None:
        bridge, namespace = self._bridge, network.namespace
        run_ip(
            f"netns add {namespace}",
            f"link add {network.link} type veth peer name eth0 netns {namespace}",
            f"link set {network.link} master {bridge.name} up",
        )
        run_ip(
            f"addr add {network.address}/{bridge.subnet.prefixlen} dev eth0",
            "link set lo up",
            "link set eth0 up",
            f"route add default via {bridge.address}",
            namespace=namespace,
        )

    def _take(self) -> int:
        span = self._bridge.subnet.num_addresses - _FIRST_HOST - 1
        for _ in range(span):
            number = _FIRST_HOST + (next(self._numbers) - _FIRST_HOST) % span
            if number not in self._in_use:
                self._in_use.add(number)
                return number
        raise ClusterError(f"all addresses of {self._bridge.subnet} are in use")

    def _address(self, number: int) -> str:
        return str(self._bridge.subnet.network_address + number)

    def _number(self, address: str) -> int:
        first = int(self._bridge.subnet.network_address)
        return (
            sum(
                int(part) << shift
                for part, shift in zip(address.split("."), (24, 16, 8, 0), strict=True)
            )
            - first
        )

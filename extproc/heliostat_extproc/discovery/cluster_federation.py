"""Who a router in a cluster federates with: RegionPeers beside it, gateway pods of its release.

Both live in the release's own namespace: who may write RegionPeers elsewhere in the cluster must
not lead requests out of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heliostat_crds.peer_claims import PeerRefusal, peer_claim, peer_created_seconds, refused_peers
from heliostat_crds.region_peer import PEER_KIND, PeerError, RegionPeer
from heliostat_crds.wire_names import FEDERATION_PORT_NAME
from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling, declared_peer
from heliostat_kube.api import KubeApi
from heliostat_kube.informer import Informer
from heliostat_kube.resource import PODS, REGION_PEERS, Json

_ENDED = ("Failed", "Succeeded")


@dataclass(frozen=True, slots=True)
class Home:
    """Where in its cluster and federation a router is.

    `sibling_selector` are the labels of its release's gateway pods, of which `router` is its own;
    None where it shares its view with no other.
    """

    namespace: str
    region: str
    router: str
    sibling_selector: str | None = None


@dataclass(frozen=True, slots=True)
class PeerReading:
    """What one object says: a peer, or why it is none."""

    peer: RegionPeer | None
    problem: str | None = None


def parse_peer(obj: Json) -> PeerReading:
    """Read a RegionPeer; its status and other metadata are left out."""
    meta = obj["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "creationTimestamp") if key in meta}
    try:
        return PeerReading(RegionPeer.from_object({**obj, "metadata": kept}))
    except PeerError as error:
        return PeerReading(None, f"{PEER_KIND} {meta['namespace']}/{meta['name']}: {error}")


def parse_gateway_pod(obj: Json) -> DeclaredSibling | None:
    """Read a gateway pod; None while no router of it can be reached.

    One that is leaving counts while it is there: it finishes what it has in flight.
    """
    status = obj.get("status") or {}
    ip, port = status.get("podIP"), _federation_port(obj.get("spec") or {})
    if not ip or port is None or status.get("phase") in _ENDED:
        return None
    host = f"[{ip}]" if ":" in ip else ip
    return DeclaredSibling(obj["metadata"]["name"], f"{host}:{port}")


def _federation_port(spec: Json) -> int | None:
    """Find the port that the pod itself declares: it may be of another version of the release."""
    for container in spec.get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == FEDERATION_PORT_NAME:
                return int(port["containerPort"])
    return None


class FederationWatches:
    """The watches of peers and siblings, and what they know; none without a home."""

    def __init__(self, api: KubeApi, home: Home | None, on_change: Callable[[], None]) -> None:
        self._home = home
        self._on_change = on_change
        self._good: dict[str, RegionPeer] = {}
        """The last good version of each peer, by key."""
        self._peers: list[Informer[PeerReading]] = []
        self._pods: list[Informer[DeclaredSibling | None]] = []
        if home is None:
            return
        self._peers.append(
            Informer(
                api,
                REGION_PEERS,
                namespace=home.namespace,
                trim=parse_peer,
                on_change=self._on_peer,
                optional=True,
            )
        )
        if home.sibling_selector is not None:
            self._pods.append(
                Informer(
                    api,
                    PODS,
                    namespace=home.namespace,
                    label_selector=home.sibling_selector,
                    trim=parse_gateway_pod,
                    on_change=lambda *_: on_change(),
                )
            )

    @property
    def informers(self) -> Iterator[Informer[Any]]:
        """Give every watch."""
        yield from self._peers
        yield from self._pods

    def peers(self) -> tuple[DeclaredPeer, ...]:
        """Give the peers in force, in the order of their regions."""
        refused = self._refused()
        in_force = (peer for key, peer in self._good.items() if key not in refused)
        return tuple(sorted(map(declared_peer, in_force), key=lambda it: it.settings.region))

    def siblings(self) -> tuple[DeclaredSibling, ...]:
        """Give the other gateway pods of the release, in the order of their names."""
        found = (pod for informer in self._pods for pod in informer.items.values())
        own = None if self._home is None else self._home.router
        others = (pod for pod in found if pod is not None and pod.name != own)
        return tuple(sorted(others, key=lambda it: it.name))

    def problems(self) -> Iterator[str]:
        """Tell which peers are not in force, and what cannot be watched, a sentence each."""
        readings = (reading for it in self._peers for reading in it.items.values())
        yield from (it.problem for it in readings if it.problem is not None)
        for key, refusal in self._refused().items():
            yield f"{PEER_KIND} {key}: {refusal}"
        for what, informers in ((f"{PEER_KIND}s", self._peers), ("gateway pods", self._pods)):
            refusals = (informer.refusal for informer in informers)
            for error in (it for it in refusals if it is not None):
                yield f"{what} of the release cannot be watched: {error.message}"

    def _refused(self) -> Mapping[str, PeerRefusal]:
        claims = (peer_claim(peer, peer_created_seconds(peer)) for peer in self._good.values())
        return refused_peers(claims, None if self._home is None else self._home.region)

    def _on_peer(self, key: str, _old: PeerReading | None, new: PeerReading | None) -> None:
        """Take a peer; one whose newest version is invalid keeps its last good one."""
        if new is not None and new.peer is not None:
            self._good[key] = new.peer
        elif new is None:
            self._good.pop(key, None)
        self._on_change()

"""Peers and siblings, followed in a cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from heliostat_extproc.discovery.cluster import ClusterSettings, KubernetesDiscovery
from heliostat_extproc.discovery.cluster_federation import Home, parse_gateway_pod
from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_routing.events import PeerSettings
from tests.kube.api_server import FakeApiServer, running_api_server

DEADLINE_SECONDS = 10.0
API = "/apis/heliostat.dev/v1alpha1/namespaces"
POOLS = f"{API}/ns/inferencepools"
PEERS = f"{API}/here/regionpeers"
GATEWAYS = "/api/v1/namespaces/here/pods"
HOME = Home("here", region="us", router="gateway-a", sibling_selector="app=gateway")


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        running.put(f"{POOLS}/chat", pool("chat"))
        yield running


@asynccontextmanager
async def snapshots(
    server: FakeApiServer, home: Home | None = HOME
) -> AsyncIterator[AsyncIterator[Snapshot]]:
    """Give the snapshots of a discovery that follows this server."""

    def connect() -> AbstractAsyncContextManager[KubeApi]:
        return KubeApi(Connection(server=server.url))

    stream = KubernetesDiscovery(ClusterSettings(("ns",), home=home), connect).watch()
    try:
        yield stream
    finally:
        await stream.aclose()  # type: ignore[attr-defined] # an async generator has it


async def snapshot_where(
    stream: AsyncIterator[Snapshot], holds: Callable[[Snapshot], bool]
) -> Snapshot:
    """Wait for a snapshot of which something holds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for snapshot in stream:
            if holds(snapshot):
                return snapshot
    raise AssertionError("the discovery has ended")


def regions(snapshot: Snapshot) -> list[str]:
    return [peer.settings.region for peer in snapshot.peers]


def pool(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {"model": {"name": name}, "endpoints": [{"address": "10.0.0.1"}]},
    }


def peer(region: str, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "RegionPeer",
        "metadata": {"creationTimestamp": created},
        "spec": {
            "region": region,
            "gateway": {"address": f"{region}.example:9443"},
            "identity": f"spiffe://x/{region}",
            **spec,
        },
    }


def gateway(ip: str = "10.1.0.1", phase: str = "Running", port: str = "federation") -> Any:
    return {
        "metadata": {},
        "spec": {
            "containers": [
                {
                    "name": "envoy",
                    "ports": [
                        {"name": "http", "containerPort": 8080},
                        {"name": port, "containerPort": 9443},
                    ],
                }
            ]
        },
        "status": {"phase": phase, "podIP": ip},
    }


async def test_peers_are_followed(server: FakeApiServer) -> None:
    """The first snapshot has the peers that are there; later ones come, change and go."""
    server.put(f"{PEERS}/eu", peer("eu", groups=["west"], roundTrip="80ms"))
    async with snapshots(server) as stream:
        first = await anext(stream)
        settings = PeerSettings("eu", 0.08, frozenset({"west"}))
        assert first.peers == (DeclaredPeer(settings, "eu.example:9443", "spiffe://x/eu"),)
        assert [it.key for it in first.pools] == ["ns/chat"]
        server.put(f"{PEERS}/asia", peer("asia"))
        await snapshot_where(stream, lambda it: regions(it) == ["asia", "eu"])
        server.put(f"{PEERS}/eu", peer("eu", gateway={"address": "other:1"}))
        await snapshot_where(stream, lambda it: it.peers[-1].address == "other:1")
        server.remove(f"{PEERS}/eu")
        await snapshot_where(stream, lambda it: regions(it) == ["asia"])


async def test_peers_of_other_namespaces_do_not_count(server: FakeApiServer) -> None:
    """Who may write RegionPeers beside a pool cannot lead its requests out of the cluster."""
    server.put(f"{API}/ns/regionpeers/eu", peer("eu"))
    server.put(f"{PEERS}/asia", peer("asia"))
    async with snapshots(server) as stream:
        assert regions(await anext(stream)) == ["asia"]


async def test_peers_that_cannot_be_in_force_are_told(server: FakeApiServer) -> None:
    """The own region, a region's younger peer and a wrong spec are problems; the others serve."""
    server.put(f"{PEERS}/a", peer("eu", "2026-01-02T00:00:00Z"))
    server.put(f"{PEERS}/b", peer("eu", "2026-01-01T00:00:00Z", roundTrip="1s"))
    server.put(f"{PEERS}/own", peer("us"))
    server.put(f"{PEERS}/wrong", peer("asia", roundTrip="long"))
    async with snapshots(server) as stream:
        snapshot = await anext(stream)
        assert [it.settings.round_trip_seconds for it in snapshot.peers] == [1.0]
        assert [it[: it.index(": ", 12)] for it in snapshot.problems] == [
            "RegionPeer here/a",
            "RegionPeer here/own",
            "RegionPeer here/wrong",
        ]
        server.remove(f"{PEERS}/b")
        heir = await snapshot_where(stream, lambda it: len(it.problems) == 2)
        assert [it.settings.round_trip_seconds for it in heir.peers] == [0.1]


async def test_a_peer_that_becomes_invalid_stays_as_it_was(server: FakeApiServer) -> None:
    """The last version that can be read is in force until the object goes."""
    server.put(f"{PEERS}/eu", peer("eu"))
    async with snapshots(server) as stream:
        assert regions(await anext(stream)) == ["eu"]
        server.put(f"{PEERS}/eu", peer("eu", roundTrip="long"))
        assert regions(await snapshot_where(stream, lambda it: it.problems != ())) == ["eu"]
        server.remove(f"{PEERS}/eu")
        assert (await snapshot_where(stream, lambda it: it.peers == ())).problems == ()


async def test_gateway_pods_of_the_release_are_siblings(server: FakeApiServer) -> None:
    """All but the router itself, from when they have an address until they have ended."""
    server.put(f"{GATEWAYS}/gateway-a", gateway("10.1.0.1"))
    server.put(f"{GATEWAYS}/gateway-b", gateway("10.1.0.2"))
    async with snapshots(server) as stream:
        first = await anext(stream)
        assert first.siblings == (DeclaredSibling("gateway-b", "10.1.0.2:9443"),)
        server.put(f"{GATEWAYS}/gateway-c", gateway(""))
        server.put(f"{GATEWAYS}/gateway-c", gateway("fd00::3"))
        both = await snapshot_where(stream, lambda it: len(it.siblings) == 2)
        assert both.siblings[1] == DeclaredSibling("gateway-c", "[fd00::3]:9443")
        server.put(f"{GATEWAYS}/gateway-c", gateway("fd00::3", phase="Failed"))
        await snapshot_where(stream, lambda it: it.siblings == first.siblings)
        asked = {
            query.get("labelSelector") for _, path, query in server.requests if path == GATEWAYS
        }
        assert asked == {"app=gateway"}


async def test_without_a_home_there_are_neither_peers_nor_siblings(server: FakeApiServer) -> None:
    """A router that has no region asks for nothing that it may not read."""
    server.put(f"{PEERS}/eu", peer("eu"))
    async with snapshots(server, None) as stream:
        snapshot = await anext(stream)
    assert (snapshot.peers, snapshot.siblings) == ((), ())
    assert not any("regionpeers" in path or path == GATEWAYS for _, path, _ in server.requests)


async def test_a_cluster_without_the_kind_serves_its_pools(server: FakeApiServer) -> None:
    """Where RegionPeers are not installed, pools and siblings are there, and the fault is told."""
    server.missing = {PEERS}
    server.put(f"{GATEWAYS}/gateway-b", gateway("10.1.0.2"))
    async with snapshots(server) as stream:
        snapshot = await snapshot_where(stream, lambda it: it.problems != ())
        assert [it.key for it in snapshot.pools] == ["ns/chat"]
        assert len(snapshot.siblings) == 1
        assert snapshot.problems[0].startswith("RegionPeers of the release cannot be watched: ")


def test_a_gateway_without_a_federation_port_is_no_sibling() -> None:
    """A pod of a version that does not federate is not asked to."""
    named = {"metadata": {"name": "gateway"}}
    assert parse_gateway_pod(gateway() | named) == DeclaredSibling("gateway", "10.1.0.1:9443")
    assert parse_gateway_pod(gateway(port="https") | named) is None

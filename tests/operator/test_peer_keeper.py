"""The keeper of RegionPeers against a small API server and routers of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_operator import peer_keeper
from heliostat_operator.health import Metrics
from heliostat_operator.peer_keeper import PeerKeeper
from heliostat_operator.settings import OperatorSettings
from tests.kube.api_server import FakeApiServer, Json, running_api_server

PEERS = "/apis/heliostat.dev/v1alpha1/namespaces/h/regionpeers"
EU = f"{PEERS}/eu"


class Scene:
    """A keeper, the server it writes to, and one router that answers what it is told."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.routers: list[str] = ["127.0.0.1"]
        self.answer: dict[str, Any] = {"region": "us", "router": "a", "peers": []}
        self.asked = 0

    async def peers(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.answer)

    def tell(self, region: str = "eu", state: str = "Connected", **fields: Any) -> None:
        peer = {"region": region, "state": state, "last_seen_seconds": 0.1, **fields}
        self.answer["peers"] = [it for it in self.answer["peers"] if it["region"] != region]
        self.answer["peers"].append(peer)

    def condition(self, path: str = EU, kind: str = "Connected") -> tuple[str, str]:
        conditions = self.server.objects[path].get("status", {}).get("conditions", [])
        found = [it for it in conditions if it["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def peer(region: str, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Json:
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "RegionPeer",
        "metadata": {"generation": 1, "creationTimestamp": created},
        "spec": {
            "region": region,
            "gateway": {"address": f"{region}:9443"},
            "identity": f"spiffe://x/{region}",
            **spec,
        },
    }


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with running_api_server() as server:
        yield Scene(server)


@asynccontextmanager
async def keeping(scene: Scene, *, works: bool = True) -> AsyncIterator[PeerKeeper]:
    """A keeper at work, or one that only watches."""
    app = web.Application()
    app.router.add_get("/peers", scene.peers)
    async with (
        TestServer(app, host="127.0.0.1") as http,
        KubeApi(Connection(server=scene.server.url)) as api,
        aiohttp.ClientSession() as session,
        asyncio.timeout(10),
    ):
        settings = OperatorSettings(
            own_namespace="h", identity="test", router_admin_port=http.port or 0
        )
        keeper = PeerKeeper(api, settings, session, Metrics(), routers=lambda: scene.routers)
        tasks = [asyncio.create_task(keeper.watch())]
        if works:
            tasks.append(asyncio.create_task(keeper.keep()))
        try:
            yield keeper
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while not holds():  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.002)


async def test_a_peers_status_follows_what_the_routers_say(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round asks them; the state and its measures are written beside the spec."""
    monkeypatch.setattr(peer_keeper, "ROUND_SECONDS", 0.02)
    scene.server.put(EU, peer("eu"))
    async with keeping(scene):
        await until(lambda: scene.condition() == ("Unknown", "Pending"))
        scene.tell(round_trip_seconds=0.0801, sent=5, received=2, identity="spiffe://x/eu")
        await until(lambda: scene.condition() == ("True", "Connected"))
        status = scene.server.objects[EU]["status"]
        assert (status["roundTrip"], status["sent"], status["received"]) == ("80ms", 5, 2)
        assert (status["identity"], status["observedGeneration"]) == ("spiffe://x/eu", 1)
        scene.tell(state="Unreachable", reason="Silent", last_seen_seconds=60)
        await until(lambda: scene.condition() == ("False", "Unreachable"))
        scene.routers = ["127.0.0.9"]
        await until(lambda: scene.condition() == ("Unknown", "RoutersUnreadable"))
        scene.routers = []
        await until(lambda: scene.condition() == ("Unknown", "NoRouters"))
        assert scene.server.objects[EU]["spec"]["region"] == "eu"


async def test_what_only_moves_on_is_not_written_each_round(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rounds of growing counts are one write, until the time for the next has come."""
    scene.server.put(EU, peer("eu"))
    scene.tell(sent=1)
    async with keeping(scene, works=False) as keeper:
        await until(lambda: bool(keeper._peers.items))
        await keeper.look()
        writes = scene.server.calls("PATCH")
        for sent in range(2, 20):
            scene.tell(sent=sent)
            await keeper.look()
        assert scene.server.calls("PATCH") == writes == 1
        monkeypatch.setattr(peer_keeper, "MOVING_SECONDS", 0.0)
        await keeper.look()
        assert scene.server.objects[EU]["status"]["sent"] == 19


async def test_the_same_again_is_never_written(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer of which nothing changes costs reads of the routers only."""
    monkeypatch.setattr(peer_keeper, "MOVING_SECONDS", 0.0)
    scene.server.put(EU, peer("eu"))
    scene.tell(state="Unreachable", last_seen_seconds=None)
    async with keeping(scene, works=False) as keeper:
        await until(lambda: bool(keeper._peers.items))
        for _ in range(5):
            await keeper.look()
    assert (scene.asked, scene.server.calls("PATCH")) == (5, 1)


async def test_invalid_peers_get_a_condition(scene: Scene) -> None:
    """The own region, a region's younger peer and a spec that cannot be read are told as such."""
    for region in ("eu", "us", "asia"):
        scene.tell(region)
    scene.server.put(EU, peer("eu", "2026-01-01T00:00:00Z"))
    scene.server.put(f"{PEERS}/eu2", peer("eu", "2026-01-02T00:00:00Z"))
    scene.server.put(f"{PEERS}/own", peer("us"))
    scene.server.put(f"{PEERS}/wrong", peer("asia", roundTrip="far"))
    async with keeping(scene):
        await until(lambda: scene.condition(f"{PEERS}/wrong") == ("False", "InvalidSpec"))
        await until(lambda: scene.condition(f"{PEERS}/own") == ("False", "OwnRegion"))
        await until(lambda: scene.condition(f"{PEERS}/eu2") == ("False", "RegionTaken"))
        assert scene.condition() == ("True", "Connected")
        scene.server.remove(EU)
        await until(lambda: scene.condition(f"{PEERS}/eu2") == ("True", "Connected"))


async def test_without_peers_nobody_is_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds begin with the first peer, and at once."""
    monkeypatch.setattr(peer_keeper, "ROUND_SECONDS", 0.001)
    async with keeping(scene) as keeper:
        await keeper._peers.synced.wait()
        await asyncio.wait_for(until(lambda: scene.server.calls("GET", watch=True) > 0), 5)
        assert scene.asked == 0
        scene.tell()
        scene.server.put(EU, peer("eu"))
        await until(lambda: scene.condition() == ("True", "Connected"))


async def test_one_peer_that_cannot_be_written_holds_up_no_other(scene: Scene) -> None:
    """What the API server refuses is tried again; the others are written."""
    scene.server.refused = {f"{EU}/status": (403, "Forbidden")}
    for region in ("eu", "asia"):
        scene.tell(region)
        scene.server.put(f"{PEERS}/{region}", peer(region))
    async with keeping(scene):
        await until(lambda: scene.condition(f"{PEERS}/asia") == ("True", "Connected"))
        assert scene.condition() == ("", "")
        scene.server.refused = {}
        scene.server.put(f"{PEERS}/us-east", peer("us-east"))  # begins another round
        await until(lambda: scene.condition() == ("True", "Connected"))

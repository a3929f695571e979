"""LoRA adapters on an engine that speaks vLLM's HTTP, and the annotation that routers believe."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_crds.wire_names import ADAPTERS_ANNOTATION
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_operator.adapters import AdapterKeeper, AdapterLoadError, EngineAdapters
from heliostat_operator.desired.settings import SecretKey
from heliostat_operator.health import Metrics
from heliostat_operator.settings import OperatorSettings
from heliostat_operator.watches import Watches
from tests.kube.api_server import FakeApiServer, Json, running_api_server

POOL = "/apis/heliostat.dev/v1alpha1/namespaces/a/inferencepools/llama"
POD = "/api/v1/namespaces/a/pods/one"
SECRET = "/api/v1/namespaces/a/secrets/engine-key"  # noqa: S105 - a path


@dataclass
class Engine:
    """What one engine has loaded; it refuses sources that hold `broken`."""

    loaded: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    key: str = ""
    elsewhere: str = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/load_lora_adapter", self.load)
        app.router.add_post("/v1/unload_lora_adapter", self.unload)
        return app

    async def models(self, request: web.Request) -> web.Response:
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(self.elsewhere)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        cards: list[Json] = [{"id": "llama", "root": "llama", "parent": None}]
        cards += [{"id": k, "root": v, "parent": "llama"} for k, v in self.loaded.items()]
        return web.json_response({"object": "list", "data": cards})

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls.append(f"load {body['lora_name']}")
        if "broken" in body["lora_path"]:
            error = {"message": "No adapter found for broken", "code": 404}
            return web.json_response({"error": error}, status=404)
        self.loaded[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success: LoRA adapter added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls.append(f"unload {body['lora_name']}")
        if body["lora_name"] == "stuck":
            return web.json_response({"message": "in use"}, status=400)
        del self.loaded[body["lora_name"]]
        return web.Response(text="Success: LoRA adapter removed successfully.")


class Kept:
    """A pool of one pod whose engine is the one above."""

    def __init__(self, server: FakeApiServer, engine: Engine, watches: Watches) -> None:
        self.server = server
        self.engine = engine
        self.watches = watches
        self.port = 0
        self.generation = 0
        self.container = "c1"

    def declare(self, max_adapters: int | None = 4, **adapters: str) -> None:
        self.generation += 1
        engine: Json = {"port": self.port}
        if max_adapters is not None:
            engine["maxAdapters"] = max_adapters
        listed = [{"name": name, "uri": uri} for name, uri in adapters.items()]
        self.server.put(
            POOL,
            {
                "apiVersion": "heliostat.dev/v1alpha1",
                "kind": "InferencePool",
                "metadata": {"generation": self.generation},
                "spec": {
                    "model": {"name": "llama"},
                    "engine": {**engine, "adapters": listed},
                },
            },
        )

    def run_pod(self, container: str) -> None:
        self.container = container
        known = self.server.objects.get(POD, {"metadata": {}})
        metadata = {**known["metadata"], "labels": {"heliostat.dev/pool": "llama"}}
        container_status = {"name": "engine", "containerID": container, "state": {"running": {}}}
        self.server.put(
            POD,
            {
                "metadata": metadata,
                "spec": {"containers": [{"name": "engine"}]},
                "status": {
                    "phase": "Running",
                    "podIP": "127.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [container_status],
                },
            },
        )

    async def keep(self, keeper: AdapterKeeper) -> None:
        """Look at the pod once the stores show the present pool and pod."""
        async with asyncio.timeout(5):
            while not self.seen():  # noqa: ASYNC110 - two stores
                await asyncio.sleep(0.002)
        await keeper.keep("a/one")

    def seen(self) -> bool:
        pool, pod = self.watches.pool("a/llama"), self.watches.pod("a/one")
        if pool is None or pod is None or pool.generation != self.generation:
            return False
        container = pod.engine_container
        text = self.server.objects[POD]["metadata"].get("annotations", {}).get(ADAPTERS_ANNOTATION)
        told = None if pod.adapters is None else set(pod.adapters.names)
        same = told == (None if text is None else set(json.loads(text)["adapters"]))
        return same and container is not None and container.container_id == self.container

    @property
    def told(self) -> Any:
        """What the routers read."""
        annotations = self.server.objects[POD]["metadata"].get("annotations", {})
        return json.loads(annotations[ADAPTERS_ANNOTATION])


@asynccontextmanager
async def running_watches(api: KubeApi) -> AsyncIterator[Watches]:
    settings = OperatorSettings(own_namespace="h", identity="test")
    watches = Watches(
        api, settings, on_pool=lambda _: None, on_pod=lambda _: None, on_gone=lambda _: None
    )
    task = asyncio.create_task(watches.run())
    yield watches
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def parts() -> AsyncIterator[tuple[Kept, KubeApi, aiohttp.ClientSession]]:
    engine = Engine()
    async with (
        running_api_server() as server,
        KubeApi(Connection(server=server.url)) as api,
        aiohttp.ClientSession() as session,
        TestServer(engine.app(), host="127.0.0.1") as http,
        running_watches(api) as watches,
    ):
        kept = Kept(server, engine, watches)
        kept.port = http.port or 0
        kept.run_pod("c1")
        yield kept, api, session


Parts = tuple[Kept, KubeApi, aiohttp.ClientSession]


def keeper_of(parts: Parts, api_key: SecretKey | None = None) -> AdapterKeeper:
    kept, api, session = parts
    return AdapterKeeper(api, kept.watches, session, Metrics(), api_key)


async def test_declared_adapters_are_loaded_then_told(parts: Parts) -> None:
    """The annotation names the adapters and the very container that holds them."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(sql="repo/sql", chat="repo/chat")
    await kept.keep(keeper)
    assert kept.engine.loaded == {"sql": "repo/sql", "chat": "repo/chat"}
    assert kept.told == {"container": "c1", "adapters": ["chat", "sql"]}


async def test_what_is_loaded_is_not_loaded_again(parts: Parts) -> None:
    """Looking again asks nothing; an operator that restarts asks and changes nothing."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(sql="repo/sql")
    await kept.keep(keeper)
    await kept.keep(keeper)
    await kept.keep(keeper_of(parts))
    assert kept.engine.calls == ["load sql"]


async def test_an_adapter_taken_out_is_unloaded_and_one_moved_is_loaded_anew(parts: Parts) -> None:
    """A change of the list reaches running engines, a change of where from too."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(sql="repo/sql", chat="repo/chat")
    await kept.keep(keeper)
    kept.engine.calls.clear()
    kept.declare(chat="repo/chat-2")
    await kept.keep(keeper)
    assert kept.engine.loaded == {"chat": "repo/chat-2"}
    assert sorted(kept.engine.calls) == ["load chat", "unload chat", "unload sql"]
    assert kept.told["adapters"] == ["chat"]


async def test_a_restarted_container_is_loaded_again(parts: Parts) -> None:
    """A new container holds nothing, whatever the annotation says of the one before."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(sql="repo/sql")
    await kept.keep(keeper)
    kept.engine.loaded.clear()
    kept.run_pod("c2")
    await kept.keep(keeper)
    assert kept.engine.loaded == {"sql": "repo/sql"}
    assert kept.told == {"container": "c2", "adapters": ["sql"]}


async def test_an_adapter_that_does_not_load_is_told_in_the_engines_words(parts: Parts) -> None:
    """The others are loaded and told; the failure names pod, adapter and reason while it lasts."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(bad="broken", sql="repo/sql")
    with pytest.raises(AdapterLoadError, match="No adapter found"):
        await kept.keep(keeper)
    assert kept.told["adapters"] == ["sql"]
    pod = kept.watches.pod("a/one")
    assert pod is not None
    (failure,) = keeper.failures((pod,))
    assert (failure.adapter, failure.pod) == ("bad", "one")
    kept.declare(sql="repo/sql")
    await kept.keep(keeper)
    assert keeper.failures((pod,)) == ()


async def test_the_engines_key_is_read_from_its_secret(parts: Parts) -> None:
    """Engines that ask for a key get the one in the pool's own namespace."""
    kept, keeper = parts[0], keeper_of(parts, SecretKey("engine-key", "api"))
    kept.engine.key = "secret"
    kept.declare(sql="repo/sql")
    with pytest.raises(AdapterLoadError, match='Secret engine-key with key "api" is missing'):
        await kept.keep(keeper)
    kept.server.put(SECRET, {"data": {"api": base64.b64encode(b"secret\n").decode()}})
    await kept.keep(keeper)
    assert kept.told["adapters"] == ["sql"]


async def test_a_pod_leads_the_operator_nowhere_else(parts: Parts) -> None:
    """A redirect is an answer like any other failure: what it points at is never asked."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(sql="repo/sql")
    kept.engine.elsewhere = f"{kept.server.url}/elsewhere"
    with pytest.raises(AdapterLoadError, match="/v1/models answers 307"):
        await kept.keep(keeper)
    assert "/elsewhere" not in {path for _, path, _ in kept.server.requests}


async def test_an_answer_without_end_is_cut(parts: Parts) -> None:
    """What a pod answers takes a bounded amount of memory, whatever it is."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"\xff" * 65536)

    app = web.Application()
    app.router.add_get("/v1/models", endless)
    async with TestServer(app) as http, asyncio.timeout(5):
        engine = EngineAdapters(parts[2], str(http.make_url("")).rstrip("/"), None)
        with pytest.raises(AdapterLoadError, match="/v1/models answers 500"):
            await engine.fetch_loaded()


async def test_the_failure_of_an_adapter_that_nobody_wants_is_forgotten(parts: Parts) -> None:
    """A pool without adapters has none that fails, also while its old pods still run."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.declare(bad="broken")
    with pytest.raises(AdapterLoadError):
        await kept.keep(keeper)
    kept.declare(max_adapters=None)
    await kept.keep(keeper)
    pod = kept.watches.pod("a/one")
    assert pod is not None
    assert keeper.failures((pod,)) == ()


async def test_an_adapter_that_does_not_unload_holds_up_no_other(parts: Parts) -> None:
    """What an engine will not drop is told, and what it should load is loaded all the same."""
    kept, keeper = parts[0], keeper_of(parts)
    kept.engine.loaded["stuck"] = "repo/old"
    kept.declare(sql="repo/sql")
    with pytest.raises(AdapterLoadError, match="in use"):
        await kept.keep(keeper)
    assert kept.told["adapters"] == ["sql"]

"""A whole gateway in the test's own event loop: a real Envoy, the router, and engines that obey."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from heliostat_extproc.discovery.folder import FolderDiscovery
from heliostat_extproc.envoy.bootstrap import BootstrapSettings
from heliostat_extproc.envoy.client_identity import ClientIdentity, TokenSettings
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.process import EnvoyProcess, ProcessSettings
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.region_certificate import CertificateFolder
from heliostat_extproc.listeners import PickerAddress
from heliostat_extproc.membership import MembershipSettings
from heliostat_extproc.observing.access_log_file import access_log_to
from heliostat_extproc.observing.trace_settings import TraceSettings
from heliostat_extproc.process import RouterProcess, RouterSettings, run_router
from heliostat_extproc.scraper import ScrapeSettings
from heliostat_routing.router import Router
from heliostat_routing.views import PoolView

BODY_LIMIT_BYTES = 1024 * 1024
DEADLINE_SECONDS = 10.0
SCRAPE = ScrapeSettings(
    busy_interval_seconds=0.05,
    idle_interval_seconds=0.1,
    timeout_seconds=0.5,
    round_seconds=0.02,
    sync_seconds=0.05,
    cpu_share_ratio=1.0,
)


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail with its description after a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - the condition lives in another component
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never became true: {what}")


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Engine:
    """An engine whose every answer the test decides; speaks the part of vLLM's wire that counts."""

    address: str
    waiting_requests: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers wait for it."""
    overloaded: bool = False
    """Answers are 503."""
    served: int = 0
    aborted: int = 0
    """Requests whose connection was closed before they were answered."""
    last_body: dict[str, Any] = field(default_factory=dict)
    last_headers: dict[str, str] = field(default_factory=dict)

    async def on_chat(self, request: web.Request) -> web.StreamResponse:
        self.last_body = await request.json()
        self.last_headers = {key.lower(): value for key, value in request.headers.items()}
        if self.overloaded:
            return web.Response(status=503)
        try:
            return await self._answer(request)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += 1
            raise

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        if not self.last_body.get("stream"):
            await self.release.wait()
            self.served += 1
            return web.json_response({"served_by": self.address, "usage": usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n')
        await self.release.wait()
        await response.write(b'data: {"choices":[{"delta":{"content":"two"}}]}\n\n')
        if self.last_body.get("stream_options", {}).get("include_usage"):
            told = {"model": self.last_body["model"], "choices": [], "usage": usage}
            await response.write(f"data: {json.dumps(told)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        self.served += 1
        return response

    async def on_metrics(self, _request: web.Request) -> web.Response:
        values = {
            "num_requests_running": 0,
            "num_requests_waiting": self.waiting_requests,
            "kv_cache_usage_perc": 0.1,
            "request_success_total": self.served + self.aborted,
            "prompt_tokens_total": 5 * self.served,
            "generation_tokens_total": 2 * self.served,
        }
        return web.Response(text="".join(f"vllm:{k} {v}\n" for k, v in values.items()))


@asynccontextmanager
async def run_engine() -> AsyncIterator[Engine]:
    engine = Engine(f"127.0.0.1:{find_free_port()}")
    engine.release.set()
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_post("/v1/chat/completions", engine.on_chat)
    application.router.add_get("/metrics", engine.on_metrics)
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        shutdown_timeout=0.01,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
    )
    await runner.setup()
    try:
        host, port = engine.address.split(":")
        await web.TCPSite(runner, host, int(port)).start()
        yield engine
    finally:
        engine.release.set()
        await runner.cleanup()


@dataclass
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def code(self) -> str:
        """The closed code of an error."""
        return str(self.body["error"]["code"])


@dataclass
class Gateway:
    """Envoy and router, the folder of manifests, and a client."""

    url: str
    folder: Path
    router: RouterProcess
    envoy: EnvoyProcess
    client: aiohttp.ClientSession
    federation_port: int | None = None

    def write_pool(
        self, model: str, addresses: list[str], *, aliases: tuple[str, ...] = (), **routing: Any
    ) -> None:
        manifest = {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": model},
            "spec": {
                "model": {"name": model, "aliases": list(aliases)},
                "endpoints": [{"address": address} for address in addresses],
                "routing": routing,
            },
        }
        self.write_file(f"{model}.yaml", yaml.safe_dump(manifest))

    def write_file(self, name: str, text: str) -> None:
        """Replace a manifest in one step, as editors and Kubernetes do."""
        draft = self.folder / f".{name}"
        draft.write_text(text)
        draft.rename(self.folder / name)

    def remove_file(self, name: str) -> None:
        (self.folder / name).unlink()

    def view(self, pool: str) -> PoolView | None:
        return next((v for v in self.router.driver.views() if v.pool == pool), None)

    async def add_pool(self, model: str, *addresses: str, **options: Any) -> None:
        """Write a pool and wait until its endpoints can be picked."""
        self.write_pool(model, list(addresses), **options)
        await self.until_endpoints(model, set(addresses))

    async def until_endpoints(self, pool: str, addresses: set[str]) -> None:
        def settled() -> bool:
            view = self.view(pool)
            return view is not None and {e.address for e in view.endpoints} == addresses

        await eventually(settled, f"pool {pool} has exactly {addresses}")

    async def until_queued(self, pool: str, count: int) -> None:
        """Wait until the router holds exactly this many of the pool's requests."""

        def queued() -> bool:
            view = self.view(pool)
            return view is not None and view.queued == count

        await eventually(queued, f"pool {pool} holds {count}")

    async def until_waiting(self, pool: str, waiting_requests: int) -> None:
        """Wait until every endpoint's scrape has said how many wait there."""

        def scraped() -> bool:
            view = self.view(pool)
            return view is not None and all(
                endpoint.waiting_requests == waiting_requests for endpoint in view.endpoints
            )

        await eventually(scraped, f"pool {pool} was scraped with {waiting_requests} waiting")

    async def post(self, body: object, path: str = "/v1/chat/completions") -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.client.post(self.url + path, data=data) as response:
            headers = {key.lower(): value for key, value in response.headers.items()}
            return Reply(response.status, headers, await response.json())

    async def chat(self, model: str, **more: object) -> Reply:
        messages = [{"role": "user", "content": "Hello"}]
        return await self.post({"model": model, "messages": messages, **more})

    async def until_idle(self) -> None:
        """Wait until no request is open, and check that no endpoint is charged with one."""
        await eventually(lambda: self.router.driver.open_requests == 0, "no request is open")
        for view in self.router.driver.views():
            assert (view.inflight, view.queued) == (0, 0), view
            assert all(endpoint.inflight == 0 for endpoint in view.endpoints), view


def _membership(
    region: Region | None, certificates: Path | None, socket: Path
) -> MembershipSettings | None:
    if region is None or certificates is None:
        return None
    envoy = FederationSettings.beside(socket, find_free_port(), "127.0.0.1")
    return MembershipSettings(region, CertificateFolder(certificates), envoy)


@asynccontextmanager
async def run_gateway(
    drain_seconds: float = DEADLINE_SECONDS,
    engine_key_file: Path | None = None,
    tenants_file: Path | None = None,
    tokens: TokenSettings | None = None,
    picker: PickerAddress | None = None,
    region: Region | None = None,
    certificates: Path | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    traces: TraceSettings | None = None,
    access_log: Path | None = None,
    **envoy_settings: Any,
) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-")))
        folder = directory / "pools"
        folder.mkdir()
        settings = RouterSettings(
            discovery=FolderDiscovery(folder),
            socket=directory / "router.sock",
            admin_port=0,
            body_limit_bytes=body_limit_bytes,
            drain_seconds=drain_seconds,
            engine_key_file=engine_key_file,
            tenants_file=tenants_file,
            tokens=tokens is not None,
            picker=picker,
            scrape=SCRAPE,
            traces=traces,
            membership=_membership(region, certificates, directory / "router.sock"),
        )
        port = find_free_port()

        def bootstrap(admin_socket: Path) -> BootstrapSettings:
            return BootstrapSettings(
                router_socket=settings.socket,
                admin=admin_socket,
                listen_address="127.0.0.1",
                listen_port=port,
                body_limit_bytes=body_limit_bytes,
                client_identity=None if tenants_file is None else ClientIdentity(tokens),
                federation=None if settings.membership is None else settings.membership.envoy,
                traces=traces,
                **envoy_settings,
            )

        lines = stack.enter_context(access_log_to(access_log))
        router = await stack.enter_async_context(run_router(settings, Router(), access_log=lines))
        process_settings = ProcessSettings(concurrency=1)
        envoy = await stack.enter_async_context(EnvoyProcess(bootstrap, process_settings))
        async with asyncio.timeout(30):
            await envoy.wait_until_ready()
        client = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS))
        )
        membership = settings.membership
        federation_port = None if membership is None else membership.envoy.listen_port
        url = f"http://127.0.0.1:{port}"
        yield Gateway(url, folder, router, envoy, client, federation_port)


@pytest.fixture(scope="session")
def start_gateway() -> Callable[..., AbstractAsyncContextManager[Gateway]]:
    """Run a gateway with settings of one's own, within a context."""
    return run_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    """One gateway for the tests of a module; each test brings pools of its own."""
    async with run_gateway() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def own_gateway() -> AsyncIterator[Gateway]:
    """A gateway for one test that ends it."""
    async with run_gateway() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def engines() -> AsyncIterator[Callable[[], Awaitable[Engine]]]:
    """Start an engine; all end with the test."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(run_engine())


@pytest_asyncio.fixture(loop_scope="module")
async def dying_engine() -> AsyncIterator[str]:
    """An address that takes a request in and dies before a byte of its answer."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    yield f"{host}:{port}"
    server.close()


@pytest.fixture
def refusing_engine() -> Iterator[str]:
    """An address whose port is taken and refuses every connection."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        host, port = bound.getsockname()
        yield f"{host}:{port}"


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], object], str], Awaitable[None]]:
    """Wait for a condition; fail with its description after a deadline."""
    return eventually


@pytest.fixture
def free_port() -> int:
    """A port on loopback that nobody uses."""
    return find_free_port()

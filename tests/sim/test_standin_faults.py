"""Faults on demand, as a caller sees them."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import RunningEngine, running_engine

BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "stream": True}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Return an HTTP client that opens a connection per request."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    """Return a fast stand-in."""
    async with running_engine(EngineOptions(speed_ratio=50.0)) as running:
        yield running


async def set_fault(http: aiohttp.ClientSession, engine: RunningEngine, **fault: object) -> None:
    """Switch a fault on over HTTP."""
    async with http.post(engine.url + "/standin/fault", json=fault) as response:
        assert response.status == 200


async def ask(
    http: aiohttp.ClientSession, engine: RunningEngine, timeout_seconds: float = 5.0
) -> tuple[int, str]:
    """Post a streaming chat request; return status and text."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    path = engine.url + "/v1/chat/completions"
    async with http.post(path, json=BODY, timeout=timeout) as response:
        return response.status, await response.text()


async def test_a_refusing_engine_comes_back(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Connections are refused while the fault lasts and accepted on the same port after."""
    await set_fault(http, engine, kind="refuse", seconds=0.2)
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(http, engine)
    while True:
        try:
            status, _ = await ask(http, engine)
            break
        except aiohttp.ClientConnectorError:
            continue
    assert status == 200


async def test_a_reset_before_the_headers(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """The connection ends without an answer, for as many requests as the fault says."""
    await set_fault(http, engine, kind="reset-before-headers", requests=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(http, engine)
    assert (await ask(http, engine))[0] == 200


async def test_an_internal_error(http: aiohttp.ClientSession, engine: RunningEngine) -> None:
    """The answer is 500 until the fault is switched off."""
    await set_fault(http, engine, kind="error-500")
    assert (await ask(http, engine))[0] == 500
    await set_fault(http, engine, kind="none")
    assert (await ask(http, engine))[0] == 200


async def test_a_stall(http: aiohttp.ClientSession, engine: RunningEngine) -> None:
    """The request is accepted and never answered."""
    await set_fault(http, engine, kind="stall")
    with pytest.raises(TimeoutError):
        await ask(http, engine, timeout_seconds=0.2)


async def test_a_stream_without_tokens(http: aiohttp.ClientSession, engine: RunningEngine) -> None:
    """The answer is 200 and ends at once."""
    await set_fault(http, engine, kind="empty-stream")
    assert await ask(http, engine) == (200, "")


async def test_a_cut_stream(http: aiohttp.ClientSession, engine: RunningEngine) -> None:
    """The connection breaks after the first tokens."""
    await set_fault(http, engine, kind="cut-stream")
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(http, engine)

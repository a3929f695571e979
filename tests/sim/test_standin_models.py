"""The names an engine serves: several for one model, LoRA adapters that come and go, API keys."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import RunningEngine, running_engine

OPTIONS = EngineOptions(
    model="llama",
    aliases=("llama-latest",),
    model_root="meta-llama/Llama",
    adapters=(("sql", "/adapters/sql"),),
    max_loras=4,
    runtime_lora=True,
    speed_ratio=50.0,
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Return an HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    """Return an engine with one adapter."""
    async with running_engine(OPTIONS) as running:
        yield running


async def names(http: aiohttp.ClientSession, engine: RunningEngine) -> list[str]:
    """Return what /v1/models lists."""
    async with http.get(engine.url + "/v1/models") as response:
        return [card["id"] for card in (await response.json())["data"]]


async def complete(
    http: aiohttp.ClientSession, engine: RunningEngine, model: str, prompt: str = "hello"
) -> tuple[int, Any]:
    """Ask for a completion; return status and body."""
    body = {"model": model, "prompt": prompt, "max_tokens": 3}
    async with http.post(engine.url + "/v1/completions", json=body) as response:
        return response.status, await response.json()


async def post(
    http: aiohttp.ClientSession, engine: RunningEngine, path: str, body: object
) -> tuple[int, str]:
    """Post JSON; return status and text."""
    async with http.post(engine.url + path, json=body) as response:
        return response.status, await response.text()


async def test_a_model_answers_to_all_of_its_names(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """Aliases are served and answered in the leading name; an adapter is answered in its own."""
    assert await names(http, engine) == ["llama", "llama-latest", "sql"]
    for asked, answered in (("llama", "llama"), ("llama-latest", "llama"), ("sql", "sql")):
        status, body = await complete(http, engine, asked)
        assert (status, body["model"]) == (200, answered)


async def test_an_adapter_card_names_its_path_and_its_parent(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """The card of an adapter has its path as root and the model as parent."""
    async with http.get(engine.url + "/v1/models") as response:
        cards = {card["id"]: card for card in (await response.json())["data"]}
    assert cards["sql"]["root"] == "/adapters/sql"
    assert cards["sql"]["parent"] == "llama"
    assert cards["llama"]["root"] == "meta-llama/Llama"
    assert cards["llama"]["parent"] is None


async def test_adapters_come_and_go_at_run_time(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """A loaded adapter is served at once, an unloaded one is 404."""
    path, body = "/v1/load_lora_adapter", {"lora_name": "law", "lora_path": "org/law"}
    assert await post(http, engine, path, body) == (
        200,
        "Success: LoRA adapter 'law' added successfully.",
    )
    assert (await complete(http, engine, "law"))[0] == 200
    assert (await post(http, engine, path, body))[0] == 400
    path = "/v1/unload_lora_adapter"
    assert await post(http, engine, path, {"lora_name": "law"}) == (
        200,
        "Success: LoRA adapter 'law' removed successfully.",
    )
    assert (await complete(http, engine, "law"))[0] == 404
    assert (await post(http, engine, path, {"lora_name": "law"}))[0] == 404
    assert (await post(http, engine, path, {}))[0] == 400


async def test_an_adapter_shares_no_prefix_with_the_model(
    http: aiohttp.ClientSession, engine: RunningEngine
) -> None:
    """A prompt that the model has cached is computed anew for an adapter."""
    prompt = "the same long prompt " * 100

    async def hits() -> float:
        async with http.get(engine.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        start = "vllm:prefix_cache_hits_total"
        return next(float(line.split()[-1]) for line in lines if line.startswith(start))

    await complete(http, engine, "llama", prompt)
    before = await hits()
    await complete(http, engine, "sql", prompt)
    assert await hits() == before
    await complete(http, engine, "sql", prompt)
    assert await hits() > before


async def test_without_runtime_updates_the_paths_do_not_exist(http: aiohttp.ClientSession) -> None:
    """Loading is 404 unless it is switched on, and 400 where LoRA is off."""
    body = {"lora_name": "law", "lora_path": "org/law"}
    async with running_engine(EngineOptions(max_loras=1)) as engine:
        assert (await post(http, engine, "/v1/load_lora_adapter", body))[0] == 404
    async with running_engine(EngineOptions(runtime_lora=True)) as engine:
        assert (await post(http, engine, "/v1/load_lora_adapter", body))[0] == 400


async def test_a_key_guards_what_is_below_v1(http: aiohttp.ClientSession) -> None:
    """Without the key the API is 401, while health and metrics are open."""
    async with running_engine(EngineOptions(api_key="secret")) as engine:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer secret"}, 200),
        ):
            async with http.get(engine.url + "/v1/models", headers=headers) as response:
                assert response.status == status
        for path in ("/health", "/metrics"):
            async with http.get(engine.url + path) as response:
                assert response.status == 200


async def test_an_ending_engine_finishes_and_takes_nothing_new(
    http: aiohttp.ClientSession,
) -> None:
    """While it ends, what runs is answered, new completions are 500 and health stays 200."""
    async with running_engine(EngineOptions(model="llama", speed_ratio=5.0)) as engine:
        running = asyncio.create_task(complete(http, engine, "llama", "a long story " * 200))
        while not engine.unfinished_requests:  # noqa: ASYNC110 - only the engine knows
            await asyncio.sleep(0.001)
        engine.refuse_new()
        assert (await complete(http, engine, "llama"))[0] == 500
        async with http.get(engine.url + "/health") as response:
            assert response.status == 200
        assert (await running)[0] == 200
        assert engine.unfinished_requests == 0

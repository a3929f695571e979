"""The engines' API key: the router sends it, whatever clients send, and takes a new one."""

import asyncio

import pytest

from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engines

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

MODEL = "guarded"
DEADLINE_SECONDS = 20.0


def guarded_engine(key):
    """An engine that was given this --api-key."""
    return running_engines([EngineOptions(model=MODEL, speed_ratio=50.0, api_key=key)])


async def ask(gateway, **headers):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    url = gateway.url + "/v1/chat/completions"
    async with gateway.client.post(url, json=body, headers=headers) as response:
        await response.read()
        return response.status


async def test_engines_get_their_key_whatever_the_client_sends(start_gateway, tmp_path):
    """Clients need no key; one that they send does not reach the engine."""
    file = tmp_path / "api-key"
    file.write_text("first-key\n")
    async with guarded_engine("first-key") as (engine,), start_gateway(engine_key_file=file) as own:
        await own.add_pool(MODEL, engine.address)
        assert await ask(own) == 200
        assert await ask(own, authorization="Bearer wrong") == 200


async def test_a_new_key_is_taken_without_restart(start_gateway, tmp_path):
    """Once the file holds another key, that is what engines get."""
    file = tmp_path / "api-key"
    file.write_text("first-key")
    async with guarded_engine("next-key") as (engine,), start_gateway(engine_key_file=file) as own:
        await own.add_pool(MODEL, engine.address)
        assert await ask(own) == 401
        draft = tmp_path / "draft"
        draft.write_text("next-key")
        draft.rename(file)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await ask(own) != 200:  # noqa: ASYNC110 - the router polls a file
                await asyncio.sleep(0.05)


async def test_without_the_option_the_clients_own_key_reaches_the_engine(gateway):
    """The gateway leaves the header alone, so that engines may know their clients."""
    async with guarded_engine("client-key") as (engine,):
        await gateway.add_pool(MODEL, engine.address)
        assert await ask(gateway) == 401
        assert await ask(gateway, authorization="Bearer client-key") == 200

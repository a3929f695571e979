"""LoRA adapters through the real Envoy: their names, and the endpoints that hold them."""

import pytest
import yaml

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

BASE, ADAPTER = "base", "base-sql"
REQUESTS = 8


async def add_pool_with_adapter(gateway, holder, plain):
    """A pool whose adapter only one of its endpoints holds; plain turns show where it may go."""
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": BASE},
        "spec": {
            "model": {"name": BASE},
            "engine": {"adapters": [{"name": ADAPTER}]},
            "endpoints": [
                {"address": plain.address, "adapters": []},
                {"address": holder.address, "adapters": [ADAPTER]},
            ],
            "routing": {"policy": "RoundRobin"},
        },
    }
    gateway.write_file(f"{BASE}.yaml", yaml.safe_dump(manifest))
    await gateway.until_endpoints(BASE, {plain.address, holder.address})


async def ask(gateway, model):
    """Ask one after the other; gives who has answered each."""
    replies = [await gateway.chat(model) for _ in range(REQUESTS)]
    assert [reply.status for reply in replies] == [200] * REQUESTS
    return {reply.body["served_by"] for reply in replies}


async def test_an_adapter_is_served_where_it_is_held(gateway, engines):
    """Its requests reach its holder alone, under its own name; the base model's go to both."""
    holder, plain = await engines(), await engines()
    await add_pool_with_adapter(gateway, holder, plain)
    assert await ask(gateway, ADAPTER) == {holder.address}
    assert holder.last_body["model"] == ADAPTER
    assert (holder.served, plain.served) == (REQUESTS, 0)
    assert await ask(gateway, BASE) == {holder.address, plain.address}
    assert holder.last_body["model"] == plain.last_body["model"] == BASE
    await gateway.until_idle()


async def test_models_lists_an_adapter(gateway, engines):
    """/v1/models names the adapter beside its base model."""
    await add_pool_with_adapter(gateway, await engines(), await engines())
    async with gateway.client.get(gateway.url + "/v1/models") as response:
        assert response.status == 200
        names = [model["id"] for model in (await response.json())["data"]]
    assert {BASE, ADAPTER} <= set(names)

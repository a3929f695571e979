"""Manifests that come, change, break and go while requests flow."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]


@asynccontextmanager
async def load(gateway, model, clients=6):
    """Keep requests coming; gives the count of (status, engine or code), complete at the end."""
    seen = Counter()
    stop = asyncio.Event()

    async def client():
        while not stop.is_set():
            reply = await gateway.chat(model)
            seen[reply.status, reply.body.get("served_by") or reply.code] += 1

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def test_changes_under_load_lose_nothing(gateway, engines, eventually):
    """Endpoints are added, swapped and removed, pools come and go: every answer is a 200."""
    first, second, third = [await engines() for _ in range(3)]
    await gateway.add_pool("busy", first.address)
    async with load(gateway, "busy") as seen:
        await eventually(lambda: first.served >= 20, "the first endpoint serves")
        await gateway.add_pool("busy", first.address, second.address, policy="RoundRobin")
        await eventually(lambda: second.served >= 20, "an added endpoint serves")
        await gateway.add_pool("passing", third.address)
        assert (await gateway.chat("passing")).status == 200
        await gateway.add_pool("busy", third.address)
        served = first.served, second.served
        await eventually(lambda: third.served >= 20, "the endpoint that replaced them serves")
        gateway.remove_file("passing.yaml")
        await eventually(lambda: gateway.view("passing") is None, "the removed pool is gone")
        before = third.served
        await eventually(lambda: third.served >= before + 20, "requests flow on")
    assert {status for status, _ in seen} == {200}, seen
    assert sum(seen.values()) >= 80
    in_flight_at_the_swap = 6
    assert first.served + second.served <= sum(served) + in_flight_at_the_swap
    assert (await gateway.chat("passing")).code == "unknown-model"
    await gateway.until_idle()


async def test_a_bad_file_keeps_the_last_good_version(gateway, engines, eventually):
    """What is wrong is said; requests are served as before; a repair is taken up."""
    engine, other = await engines(), await engines()
    await gateway.add_pool("kept", engine.address)
    gateway.write_file("kept.yaml", "kind: InferencePool\nspec: [not, a, spec\n")
    await eventually(lambda: gateway.router.pools.problems, "the problem is told")
    assert any("kept.yaml" in problem for problem in gateway.router.pools.problems)
    assert (await gateway.chat("kept")).body["served_by"] == engine.address
    await gateway.add_pool("kept", other.address)
    assert (await gateway.chat("kept")).body["served_by"] == other.address
    assert not gateway.router.pools.problems


async def test_a_removed_pool_still_serves_what_it_holds(gateway, engines, eventually):
    """A request that was accepted is served, though its manifest has gone."""
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("going", engine.address)
    await gateway.until_waiting("going", 1)
    held = asyncio.create_task(gateway.chat("going"))
    await gateway.until_queued("going", 1)
    gateway.remove_file("going.yaml")
    await eventually(lambda: gateway.router.pools.resolve("going") is None, "it is not offered")
    engine.waiting_requests = 0
    assert (await held).body["served_by"] == engine.address
    await eventually(lambda: gateway.view("going") is None, "the pool is gone")


async def test_a_stream_outlives_its_endpoint_and_pool(gateway, engines, eventually):
    """A stream that runs goes on to its end after the endpoint has left."""
    engine = await engines()
    engine.release.clear()
    await gateway.add_pool("longlived", engine.address)
    body = {"model": "longlived", "messages": [], "stream": True}
    async with gateway.client.post(gateway.url + "/v1/chat/completions", json=body) as response:
        assert b"one" in await response.content.readuntil(b"\n\n")
        gateway.remove_file("longlived.yaml")
        await eventually(lambda: gateway.router.pools.resolve("longlived") is None, "it left")
        engine.release.set()
        assert b"[DONE]" in await response.read()
    await gateway.until_idle()


async def test_a_model_outlives_its_oldest_pool(gateway, engines, eventually):
    """Two pools serve one model together; when the first goes, the other serves on, and no answer
    is lost."""
    first, second = await engines(), await engines()
    await gateway.add_pool("shared", first.address)
    gateway.write_file("z.yaml", SECOND_POOL.format(address=second.address))
    await gateway.until_endpoints("shared", {first.address, second.address})
    async with load(gateway, "shared") as seen:
        await eventually(lambda: min(first.served, second.served) >= 10, "both pools serve")
        gateway.remove_file("shared.yaml")
        await eventually(lambda: gateway.view("second") is not None, "the second pool stands alone")
        before = second.served
        await eventually(lambda: second.served >= before + 20, "the second pool serves on")
    assert {status for status, _ in seen} == {200}, seen
    await gateway.until_idle()


SECOND_POOL = """
apiVersion: heliostat.dev/v1alpha1
kind: InferencePool
metadata: {{name: second}}
spec:
  model: {{name: shared}}
  endpoints: [{{address: "{address}"}}]
"""

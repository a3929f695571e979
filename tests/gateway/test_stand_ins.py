"""Conversations on engines that behave like vLLM: the router learns from what they report."""

import json

import pytest
import pytest_asyncio

from heliostat_sim.standin.faults import Fault, FaultKind
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engines

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

MODEL = "stand-in"
TURNS = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand_ins():
    """Three engines, fast ones."""
    options = EngineOptions(model=MODEL, speed_ratio=20.0)
    async with running_engines([options] * 3) as engines:
        yield engines


async def stream(gateway, messages):
    """Ask for one streamed answer; gives its text and usage."""
    body = {
        "model": MODEL,
        "messages": messages,
        "stream": True,
        "max_tokens": 8,
        "stream_options": {"include_usage": True},
    }
    text, usage = "", None
    async with gateway.client.post(gateway.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            data = line.removeprefix(b"data: ").strip()
            if data and data != b"[DONE]":
                chunk = json.loads(data)
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
    return text, usage


async def test_a_conversation_finds_its_earlier_turns(gateway, stand_ins, eventually):
    """Each turn goes where its prefix is: nearly all of the earlier turn comes from the cache."""
    await gateway.add_pool(MODEL, *(engine.address for engine in stand_ins))
    for topic in ("cats", "dogs", "newts"):
        messages = [{"role": "system", "content": f"You know about {topic}. " * 100}]
        before = 0
        for _ in range(TURNS):
            messages.append({"role": "user", "content": f"Tell me more about {topic}. " * 20})
            text, usage = await stream(gateway, messages)
            messages.append({"role": "assistant", "content": text})
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            assert cached >= 0.8 * before, (topic, cached, before)
            before = usage["prompt_tokens"]
    await gateway.until_idle()
    assert gateway.view(MODEL).bytes_per_token > 0
    indexed = sum(endpoint.indexed_tokens for endpoint in gateway.view(MODEL).endpoints)
    assert indexed > 0


async def test_the_engines_metrics_are_understood(gateway, stand_ins, eventually):
    """What the stand-ins export is what the scraper reads."""
    await gateway.add_pool(MODEL, *(engine.address for engine in stand_ins))

    def reported():
        return all(
            endpoint.running_requests is not None for endpoint in gateway.view(MODEL).endpoints
        )

    await eventually(reported, "every engine has reported")


@pytest.mark.parametrize("kind", [FaultKind.REFUSE, FaultKind.RESET_BEFORE_HEADERS])
async def test_an_engine_that_fails_costs_no_request(gateway, stand_ins, kind):
    """Refused or cut before the headers, a request is served by another engine."""
    await gateway.add_pool(MODEL, *(engine.address for engine in stand_ins))
    await stand_ins[0].set_fault(Fault(kind))
    try:
        for number in range(6):
            text, _ = await stream(gateway, [{"role": "user", "content": f"Question {number}"}])
            assert text
    finally:
        await stand_ins[0].set_fault(Fault())
    await gateway.until_idle()

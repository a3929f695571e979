"""What a region cannot serve soon is served by another, and its client sees no difference."""

import asyncio
import re
import time

import aiohttp
import pytest

from heliostat_federation.clients import Clients, Ending, Prompt, under_way
from heliostat_federation.federation import Federation
from heliostat_federation.region import DEAD_ENGINES, MODEL, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


def served_since(clients: Clients, instant: float) -> int:
    return sum(r.started_at > instant and r.ending is Ending.SERVED for r in clients.requests)


HOP_HEADERS = {"date", "x-envoy-upstream-service-time", "connection", "server", "content-length"}


async def post(url: str, body: object) -> tuple[int, dict[str, str], str]:
    """Ask once; give status, headers that the way may not change, and text."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as response,
    ):
        headers = {name.lower(): value for name, value in response.headers.items()}
        kept = {name: value for name, value in headers.items() if name not in HOP_HEADERS}
        return response.status, kept, await response.text()


async def forwarded(url: str, body: object) -> tuple[int, dict[str, str], str]:
    """Ask where no engine lives, again while the gateway finds that out."""

    async def answer() -> tuple[int, dict[str, str], str] | None:
        found = await post(url, body)
        return None if found[0] == 503 else found

    given: tuple[int, dict[str, str], str] = await eventually(answer, "it is served elsewhere")
    return given


async def test_a_hot_region_overflows_to_the_idle_ones(federation: Federation) -> None:
    """Three times what us can take is served by all three, once each, and soon."""
    async with Clients(federation) as clients:
        clients.hold("us", 18)
        await clients.ended(90)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    served = (await clients.served_by())["us"]
    assert set(served) == set(federation.regions), served
    assert served["eu"] > 10 < served["asia"], served


async def test_an_idle_region_keeps_its_requests(federation: Federation) -> None:
    """Where nobody waits, nothing leaves."""
    async with Clients(federation) as clients:
        for region in federation.regions:
            clients.hold(region, 1)
        await clients.ended(15)
    clients.expect_nothing_lost()
    for region, served in (await clients.served_by()).items():
        assert set(served) == {region}


async def test_a_region_without_engines_is_served_by_the_others(federation: Federation) -> None:
    """With all engines of us dead, its clients get every answer from elsewhere."""
    us = federation["us"]
    async with Clients(federation) as clients:
        clients.hold("us", 4)
        await clients.ended(8)
        killed_at = time.monotonic()
        await us.kill_engines()
        await clients.until(lambda: served_since(clients, killed_at) > 0, "one is served elsewhere")
        dead_from = len(clients.requests)
        await clients.ended(20)
    struck = under_way(killed_at, slack_seconds=3.0)
    wrong = [r for r in clients.requests if r.ending is not Ending.SERVED and not struck(r)]
    assert not wrong, [(r.detail, r.started_at - killed_at) for r in wrong]
    tally = await federation.tally()
    later = clients.requests[dead_from:]
    assert later
    assert all(set(tally[request.request_id]) <= {"eu", "asia"} for request in later)


async def test_an_answer_is_the_same_from_afar(federation: Federation) -> None:
    """Streamed or whole, text, usage and end are what an engine here would have answered."""
    prompt = Prompt(tokens=300, output_tokens=24)
    body = {
        "model": MODEL,
        "messages": prompt.messages("same.0"),
        "max_tokens": 24,
        "ignore_eos": True,
    }

    def settled(text: str) -> list[str]:
        """The text without ids, times, and what caches have to do with it."""
        cleared = re.sub(r'"prompt_tokens_details":\{[^}]*\}', "", text)
        return [part.split('"choices"')[-1] for part in cleared.split("\n\n")]

    for streams in (False, True):
        asked = {**body, "stream": streams}
        if streams:
            asked["stream_options"] = {"include_usage": True}
        here = await post(federation["eu"].url, asked)
        federation["us"].write_pool(endpoints=DEAD_ENGINES)
        there = await forwarded(federation["us"].url, asked)
        federation["us"].write_pool()
        assert here[0] == there[0] == 200
        assert here[1].keys() == there[1].keys()
        assert here[1]["content-type"] == there[1]["content-type"]
        assert settled(here[2]) == settled(there[2])


async def test_an_error_is_the_same_from_afar(federation: Federation) -> None:
    """What an engine refuses for the request's own fault is passed on as it is, and not retried."""
    body = {"model": MODEL, "messages": Prompt(tokens=40_000).messages("long.0"), "max_tokens": 1}
    here = await post(federation["eu"].url, body)
    federation["us"].write_pool(endpoints=DEAD_ENGINES)
    there = await forwarded(federation["us"].url, body)
    assert here[0] == there[0] == 400
    assert here[2] == there[2]
    assert here[1].keys() == there[1].keys()


async def test_a_client_that_leaves_frees_the_engine_afar(federation: Federation) -> None:
    """An aborted stream ends at the far engine too, and nobody stays charged with it."""
    federation["us"].write_pool(endpoints=DEAD_ENGINES)
    async with Clients(federation, Prompt(tokens=100, output_tokens=2000)) as clients:
        task = clients.send("us")
        await clients.until(lambda: any(r.first_token_at for r in clients.requests), "it streams")
        task.cancel()
        await asyncio.wait([task])
    assert clients.requests[0].ending is Ending.ABORTED
    for region in federation.regions.values():
        await region.until_idle()
    request_id = clients.requests[0].request_id
    tallies = [await federation[name].tally() for name in ("us", "eu", "asia")]
    found = [tally[request_id] for tally in tallies if request_id in tally]
    assert [(it["begun"], it["answered"], it["aborted"]) for it in found] == [(1, 0, 1)]

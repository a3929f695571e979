"""`heliostat explain`: what a router tells of requests, shown, and never a traceback."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from heliostat_cli.main import main
from heliostat_extproc.observing.request_record import Ending, RequestRecord
from heliostat_extproc.observing.request_story import story
from heliostat_routing.commands import Dispatch
from heliostat_routing.explanation import Candidate, Explanation

A, B = "10.0.0.1:8000", "10.0.0.2:8000"


class _Scored:
    def __init__(self, endpoint: str, wait_seconds: float) -> None:
        self._told = Candidate(endpoint, 0, 9, wait_seconds, 0.5, 0, 0, 0, wait_seconds + 0.5)

    def candidate(self) -> Candidate:
        return self._told


def told() -> dict[str, object]:
    """A request as a router tells of it: A was free, B was busy."""
    record = RequestRecord(1, "id-1", 1.0, 10.0, pool="chat", model="chat", ending=Ending.SERVED)
    scored = (_Scored(A, 0.0), _Scored(B, 2.0))
    why = Explanation("heliostat", "least-cost", A, 2, scored)  # type: ignore[arg-type]
    record.note(10.004, Dispatch(1, (A, B), why))
    return story(record)


@asynccontextmanager
async def serving(answer: object, status: int = 200) -> AsyncIterator[str]:
    """A router's admin port that answers this to every question."""

    async def requests(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.json_response(answer, status=status)

    asked: list[dict[str, str]] = []
    application = web.Application()
    application.router.add_get("/requests", requests)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def explain(*arguments: str) -> int:
    """Run the command while servers of this loop answer."""
    return await asyncio.to_thread(main, ["explain", *arguments])


async def test_a_request_is_shown_with_what_each_candidate_would_cost(capsys) -> None:
    """Who won, who lost and why, each with its terms; terms that are nothing are left out."""
    async with serving({"requests": [told()]}) as url:
        assert await explain("id-1", "--router", url) == 0
    lines = capsys.readouterr().out.splitlines()
    won = next(line for line in lines if line.startswith("won"))
    lost = next(line for line in lines if line.startswith("costlier"))
    assert (A in won, B in lost) == (True, True)
    assert lost.endswith("2.5 s")
    header = next(line for line in lines if "endpoint" in line)
    assert "prefill" in header
    assert "egress" not in header


async def test_json_is_what_the_router_tells(capsys) -> None:
    """Without an id the latest are asked for."""
    async with serving({"requests": [told()]}) as url:
        assert await explain("--router", url, "--json", "--most", "3") == 0
    assert json.loads(capsys.readouterr().out) == {"requests": [told()]}


async def test_the_latest_are_a_line_each(capsys) -> None:
    """One that goes on says so, and control characters reach no terminal."""
    going_on = {**told(), "outcome": None, "request_id": "id-2\x1b[31m"}
    async with serving({"requests": [told(), going_on]}) as url:
        assert await explain("--router", url) == 0
    out = capsys.readouterr().out
    assert "goes on" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("answer", "status", "problem"),
    [
        ({"requests": []}, 200, "no router knows of such a request"),
        ({"requests": 7}, 200, "its answer is not a router's"),
        ([], 200, "its answer is not a router's"),
        ({}, 404, "/requests answers 404"),
    ],
)
async def test_what_cannot_be_told_is_a_sentence(capsys, answer, status, problem) -> None:
    """The exit status is 1, whatever the answer."""
    async with serving(answer, status) as url:
        assert await explain("id-1", "--router", url) == 1
    assert problem in capsys.readouterr().err


async def test_a_router_that_is_not_there_is_a_sentence(capsys, free_port_of_nobody) -> None:
    """Nothing listens there."""
    assert await explain("--router", f"127.0.0.1:{free_port_of_nobody}") == 1
    assert f"127.0.0.1:{free_port_of_nobody}" in capsys.readouterr().err


@pytest.fixture
def free_port_of_nobody() -> int:
    """A port on which nothing listens: it was bound, and is closed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

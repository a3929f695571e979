import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_cli.loading import (
    GatewayError,
    LoadOptions,
    LoadReport,
    OptionError,
    Progress,
    run_load,
)
from heliostat_sim.workload.session import Session, Turn, Workload
from heliostat_sim.workload.text import TextPart, render

Behaviour = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


class FakeEngine:
    """A real HTTP server that streams two tokens for each request, or misbehaves as told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.active = 0
        self.most_active = 0
        self.status = 200
        self.error: dict[str, object] = {}
        self.behave: Behaviour = stream_answer
        self.server = TestServer(self._app())

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if self.status != 200:
            return web.json_response({"error": self.error}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        try:
            await response.prepare(request)
            await self.behave(request, response)
        finally:
            self.active -= 1
        return response

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")


async def send(response: web.StreamResponse, *events: object) -> None:
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        await response.write(f"data: {data}\n\n".encode())


def delta(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


async def stream_answer(_: web.Request, response: web.StreamResponse) -> None:
    await send(response, delta(""), delta('He said "'), delta('yes"\n'), USAGE, "[DONE]")


async def cut_the_connection(request: web.Request, response: web.StreamResponse) -> None:
    await send(response, delta("a"))
    assert request.transport is not None
    request.transport.abort()


async def end_early(_: web.Request, response: web.StreamResponse) -> None:
    await send(response, delta("a"))


async def fail_inside(_: web.Request, response: web.StreamResponse) -> None:
    await send(response, {"error": {"message": "m", "type": "t", "code": 500}}, "[DONE]")


async def say_nothing(_: web.Request, response: web.StreamResponse) -> None:
    await send(response, delta(""), "[DONE]")


async def hang(_: web.Request, response: web.StreamResponse) -> None:
    await send(response, delta("a"))
    await asyncio.Event().wait()


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    await engine.server.start_server()
    yield engine
    await engine.server.close()


def plan(sessions: int, turns: int = 1, apart_seconds: float | None = None) -> Workload:
    planned = [
        Session(
            turns=tuple(Turn((TextPart(f"{s}/{t}", 3),), 2) for t in range(turns)),
            system=(TextPart("system", 4),),
            at_seconds=s * (apart_seconds or 0.0),
        )
        for s in range(sessions)
    ]
    return Workload("plan", 1, apart_seconds is not None, lambda: iter(planned), length=sessions)


async def load(engine: FakeEngine, workload: Workload, **options: object) -> LoadReport:
    chosen = LoadOptions(url=engine.url, **options)  # type: ignore[arg-type]
    return await run_load(chosen, workload, lambda _: None)


async def test_a_run_reports_what_engines_answered(engine: FakeEngine) -> None:
    """A closed loop sends every turn and sums up tokens, latencies and cached share."""
    seen: list[Progress] = []
    options = LoadOptions(url=engine.url, concurrency=3)
    report = await run_load(options, plan(6, turns=2), seen.append)
    assert (report.requests, report.failed, report.errors) == (12, 0, {})
    assert report.hit_ratio == pytest.approx(0.4)
    assert report.output_tokens_per_second * report.duration_seconds == pytest.approx(24)
    assert report.input_tokens_per_second * report.duration_seconds == pytest.approx(120)
    ttft, e2e = report.ttft_seconds["p50"], report.e2e_seconds["p50"]
    assert ttft is not None
    assert e2e is not None
    assert 0 < ttft <= e2e * 1.01
    assert seen[-1].requests == 12
    assert seen[-1].active == 0
    assert 1 <= engine.most_active <= 3


async def test_a_turn_carries_the_answers_before_it(engine: FakeEngine) -> None:
    """The second turn holds the system prompt, the first turn and the real answer, in order."""
    await load(engine, plan(1, turns=2), concurrency=1)
    assert engine.bodies[0]["model"] == "tiny"
    texts = [render([TextPart(key, tokens)]).decode() for key, tokens in (("0/0", 3), ("0/1", 3))]
    assert engine.bodies[1]["messages"] == [
        {"role": "system", "content": render([TextPart("system", 4)]).decode()},
        {"role": "user", "content": texts[0]},
        {"role": "assistant", "content": 'He said "yes"\n'},
        {"role": "user", "content": texts[1]},
    ]


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (cut_the_connection, "truncated-stream"),
        (end_early, "truncated-stream"),
        (fail_inside, "sse-error t"),
        (say_nothing, "no-output"),
    ],
)
async def test_a_broken_stream_is_a_failure(
    engine: FakeEngine, behave: Behaviour, reason: str
) -> None:
    """A stream that breaks, ends early, carries an error or no token fails its session."""
    engine.behave = behave
    report = await load(engine, plan(3, turns=2), concurrency=2)
    assert (report.requests, report.failed, report.errors) == (3, 3, {reason: 3})
    assert report.ttft_seconds["p50"] is None


async def test_a_refusal_is_counted_by_status_and_code(engine: FakeEngine) -> None:
    """An error answer is counted under its status and code."""
    engine.status, engine.error = 429, {"code": "queue-full", "message": "m"}
    report = await load(engine, plan(2), concurrency=1, model="other")
    assert report.errors == {"429 queue-full": 2}
    assert engine.bodies[0]["model"] == "other"


async def test_a_hanging_answer_times_out(engine: FakeEngine) -> None:
    """A request that takes longer than the timeout is given up and counted as such."""
    engine.behave = hang
    report = await load(engine, plan(2), concurrency=2, timeout_seconds=0.1)
    assert report.errors == {"timeout": 2}


async def test_an_engine_that_goes_is_a_connection_error(engine: FakeEngine) -> None:
    """Requests after the gateway has gone fail as connection errors, and the run still ends."""

    async def answer_and_go(request: web.Request, response: web.StreamResponse) -> None:
        await stream_answer(request, response)
        assert engine.server.runner is not None
        for site in list(engine.server.runner.sites):
            await site.stop()
        response.force_close()

    engine.behave = answer_and_go
    report = await load(engine, plan(3), concurrency=1)
    assert report.errors == {"connection": 2}
    assert report.requests == 3


async def test_limits_end_the_run(engine: FakeEngine) -> None:
    """No more requests are started than allowed, in whichever loop."""
    closed = await load(engine, plan(50, turns=3), concurrency=4, max_requests=5)
    opened = await load(engine, plan(50, apart_seconds=0.0), max_requests=7)
    assert (closed.requests, opened.requests, len(engine.bodies)) == (5, 7, 12)


async def test_no_request_starts_after_the_time_is_up(engine: FakeEngine) -> None:
    """An open loop sends what is due inside its seconds and does not wait for the rest."""
    report = await load(engine, plan(100, apart_seconds=0.05), seconds=0.12)
    assert report.requests == 3
    assert not report.interrupted


async def test_an_open_loop_does_not_wait_for_answers(engine: FakeEngine) -> None:
    """Timed sessions are sent when they are due, answered or not."""
    everyone = asyncio.Event()

    async def answer_when_all_are_there(request: web.Request, response: web.StreamResponse) -> None:
        if engine.active == 5:
            everyone.set()
        await asyncio.wait_for(everyone.wait(), timeout=10)
        await stream_answer(request, response)

    engine.behave = answer_when_all_are_there
    report = await load(engine, plan(5, apart_seconds=0.01))
    assert (report.requests, report.failed) == (5, 0)


async def test_a_stop_reports_what_was_done(engine: FakeEngine) -> None:
    """A run that is stopped drops what hangs, reports the rest and says that it was cut short."""
    stop = asyncio.Event()

    async def answer_two_then_hang(request: web.Request, response: web.StreamResponse) -> None:
        await (stream_answer if len(engine.bodies) <= 2 else hang)(request, response)

    def stop_at_two(progress: Progress) -> None:
        if progress.requests == 2 and progress.active:
            stop.set()

    engine.behave = answer_two_then_hang
    options = LoadOptions(url=engine.url, concurrency=1, progress_seconds=0.01)
    async with asyncio.timeout(10):
        report = await run_load(options, plan(5), stop_at_two, stop)
    assert (report.requests, report.failed, report.interrupted) == (2, 0, True)


async def test_an_absent_gateway_is_said_at_once(unused_tcp_port: int) -> None:
    """Where nothing listens the run ends before its first request, naming what to start."""
    options = LoadOptions(url=f"http://127.0.0.1:{unused_tcp_port}", concurrency=1)
    with pytest.raises(GatewayError, match=r"nothing answers at .* start `heliostat gateway`"):
        await run_load(options, plan(1), lambda _: None)


async def test_an_untimed_workload_needs_a_concurrency(engine: FakeEngine) -> None:
    """An open loop without times is refused rather than sent all at once."""
    with pytest.raises(OptionError, match="needs a concurrency or a rate"):
        await load(engine, plan(1))

"""What an engine that fails costs: the requests that it has begun to answer, and no others."""

import asyncio

import pytest
from faulty_engine import Mode, Report
from gateway_pod import eventually, failed, shares

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEFORE_HEADERS = ["refuses", Mode.RESET, Mode.ERROR_503]


@pytest.mark.parametrize("kind", BEFORE_HEADERS)
async def test_what_fails_before_its_headers_costs_no_request(pod, engines, model, kind):
    """Others serve, the endpoint is left alone, and gets its share again once it is well."""
    bad, good = await engines(), await engines()
    await pod.serve(model, bad.address, good.address)
    assert not failed(await pod.ask_many(8, model))
    if kind == "refuses":
        await bad.die()
    else:
        bad.mode = kind
    bad.requests = 0
    answers = await pod.ask_many(60, model)
    assert not failed(answers)
    assert shares(answers) == {good.address: 60}
    assert bad.requests <= 10, "the breaker keeps requests away"
    assert await pod.metric("endpoint_breaker_closed", endpoint=bad.address) == 0
    assert await pod.metric("failed_attempts_total", pool=model) >= 2
    bad.mode = Mode.SERVE
    if kind == "refuses":
        await bad.listen()
    async with pod.load(model) as answers:
        await eventually(lambda: shares(answers[-20:])[bad.address] >= 5, "it serves again")
    assert not failed(answers)


async def test_retries_do_not_multiply_what_failing_engines_get(pod, engines, model):
    """With all of a pool overloaded, they are asked less often than clients ask, not more."""
    one, other = await engines(), await engines()
    await pod.serve(model, one.address, other.address)
    assert not failed(await pod.ask_many(8, model))
    one.mode = other.mode = Mode.ERROR_503
    one.requests = other.requests = 0
    await asyncio.gather(*(pod.chat(model, seconds=5) for _ in range(60)))
    assert one.requests + other.requests < 60
    one.mode = other.mode = Mode.SERVE
    await eventually(lambda: _served(pod, model), "they serve again")


async def _served(pod, model):
    return (await pod.chat(model)).ok


async def test_an_engine_of_500s_is_left_alone_after_two(pod, engines, model):
    """A 500 is the engine's word on the request: it is passed on, and the breaker opens."""
    bad, good = await engines(), await engines()
    await pod.serve(model, bad.address, good.address)
    bad.mode = Mode.ERROR_500
    answers = await pod.ask_many(60, model, at_once=1)
    assert {a.status for a in failed(answers)} == {500}
    assert len(failed(answers)) <= 10
    assert await pod.metric("endpoint_breaker_closed", endpoint=bad.address) == 0


@pytest.mark.parametrize("mode", [Mode.STREAM_ERROR, Mode.CUT_STREAM])
async def test_an_engine_that_fails_fast_after_its_200_is_no_sink(pod, engines, model, mode):
    """It is the first to be free again each time, and still gets next to nothing."""
    bad, good = await engines(), await engines()
    await pod.serve(model, bad.address, good.address)
    assert not failed(await pod.ask_many(8, model))
    bad.mode, bad.requests = mode, 0
    answers = await pod.ask_many(40, model)
    assert len(failed(answers)) == bad.requests <= 20, "until the log has told of two"
    bad.requests = 0
    assert len(failed(await pod.ask_many(100, model))) == bad.requests <= 10, "probes"
    assert await pod.metric("endpoint_breaker_closed", endpoint=bad.address) == 0


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.STALL_BEFORE_HEADERS])
async def test_an_engine_that_takes_all_and_serves_nothing_is_no_sink(pod, engines, model, mode):
    """Its metrics say that nothing waits: what was sent there without an answer still counts."""
    bad, good = await engines(), await engines()
    await pod.serve(model, bad.address, good.address)
    assert not failed(await pod.ask_many(8, model))
    bad.mode, bad.requests = mode, 0
    waiting = [asyncio.create_task(pod.chat(model, seconds=25)) for _ in range(4)]
    await eventually(lambda: bad.requests, "it has got a request")
    async with pod.load(model) as answers:
        await eventually(lambda: len(answers) >= 100, "the others are served")
        await eventually(lambda: _is(pod, 0, bad.address), "silence opens the breaker")
    assert bad.requests <= 12
    stuck = [a for a in (*answers, *await asyncio.gather(*waiting)) if not a.ok]
    assert len(stuck) <= bad.requests
    assert {a.end for a in stuck} == {"time-out"}


async def _is(pod, closed, address):
    return await pod.metric("endpoint_breaker_closed", endpoint=address) == closed


async def test_a_stream_that_stalls_goes_on_when_its_engine_does(pod, engines, model):
    """A gap of any length ends no stream."""
    engine = await engines()
    await pod.serve(model, engine.address)
    engine.mode = Mode.STALL_IN_STREAM
    stream = asyncio.create_task(pod.chat(model))
    await eventually(lambda: engine.running, "the stream runs")
    await eventually(lambda: _inflight_is(pod, model, 1), "it is counted")
    engine.gate.set()
    assert (await stream).ok
    await eventually(lambda: _inflight_is(pod, model, 0), "it is counted no more")


async def _inflight_is(pod, model, count):
    return await pod.inflight(model) == count


async def test_a_slow_engine_gets_less(pod, engines, model):
    """One that drips its tokens is busy for longer, so the others take more."""
    slow, good = await engines(), await engines()
    await pod.serve(model, slow.address, good.address)
    slow.token_seconds = 0.3
    answers = await pod.ask_many(60, model)
    assert not failed(answers)
    assert shares(answers)[good.address] > 2 * shares(answers)[slow.address]


@pytest.mark.parametrize(
    ("report", "result"),
    [
        (Report.NEGATIVE, "out-of-range"),
        (Report.NAN, "not-a-number"),
        (Report.HUGE, "out-of-range"),
        (Report.ABSENT, "missing"),
        (Report.NONSENSE, "missing"),
    ],
)
async def test_an_engine_that_lies_is_not_believed(pod, engines, model, report, result):
    """Requests are served by what the router itself has sent; the lie is counted and logged."""
    liar, good = await engines(), await engines()
    await pod.serve(model, liar.address, good.address)
    assert not failed(await pod.ask_many(8, model))
    liar.report = report
    before = await pod.metric("scrapes_total", result=result)
    async with pod.load(model) as answers:
        await eventually(lambda: _scraped(pod, result, before), "the lie is counted")
        seen = len(answers)
        await eventually(lambda: len(answers) >= seen + 60, "requests go on")
    assert not failed(answers)
    after = shares(answers[seen:])
    assert min(after[liar.address], after[good.address]) > 5, "neither sink nor outcast"
    assert "scrape failed" in pod.log()
    assert result in pod.log()


async def _scraped(pod, result, before):
    return await pod.metric("scrapes_total", result=result) > before


async def test_an_engine_that_flaps_every_second_costs_what_it_had_begun(pod, engines, model):
    """It comes and goes under load; only streams that ran on it are cut."""
    flapping, good = await engines(), await engines()
    await pod.serve(model, flapping.address, good.address)
    async with pod.load(model) as answers:
        cut = 0
        for _ in range(6):
            await asyncio.sleep(1.0)
            cut += flapping.running
            await flapping.die()
            await asyncio.sleep(1.0)
            await flapping.restart()
    assert len(failed(answers)) <= cut
    assert all(a.end == "cut" and a.status == 200 for a in failed(answers))
    assert len(answers) > 200
    await eventually(lambda: _inflight_is(pod, model, 0), "the ledger is empty")

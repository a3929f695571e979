"""The router or Envoy dies, hangs, restarts: streams go on, and requests reach engines."""

import asyncio
import signal

import pytest
from faulty_engine import Mode
from gateway_pod import eventually, failed, shares

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_router_that_is_killed_and_restarted_under_load_costs_nothing(pod, engines, model):
    """Streams run on, Envoy balances by itself meanwhile, and the new router takes over."""
    one, other = await engines(), await engines()
    await pod.serve_alone(model, one.address, other.address)
    one.mode = other.mode = Mode.STALL_IN_STREAM
    streams = [asyncio.create_task(pod.chat(model, seconds=120)) for _ in range(2)]
    await eventually(lambda: one.running + other.running == 2, "two streams run")
    one.mode = other.mode = Mode.SERVE
    async with pod.load(model, patient=False) as answers:
        await eventually(lambda: len(answers) > 20, "requests flow")
        await pod.kill_router()
        alone = len(answers)
        await eventually(lambda: len(answers) > alone + 40, "they flow without a router")
        both = shares(answers[alone + 10 :])
        assert min(both[one.address], both[other.address]) > 0
        await pod.start_router()
        await eventually(lambda: _decides(pod), "the new router decides")
        again = len(answers)
        await eventually(lambda: len(answers) > again + 20, "they flow on")
    one.gate.set()
    other.gate.set()
    assert not failed(answers)
    assert not failed(await asyncio.gather(*streams))
    await eventually(lambda: _inflight_is(pod, model, 0), "nothing is in flight")


async def _decides(pod):
    return await pod.metric("decisions_total") > 0


async def _inflight_is(pod, model, count):
    return await pod.inflight(model) == count


async def test_with_several_pools_clients_are_asked_to_come_back(pod, engines, model):
    """Envoy cannot tell which of them serves a model; with the router back all is as before."""
    engine = await engines()
    await pod.serve_alone(model, engine.address)
    await pod.serve("another", engine.address)
    assert (await pod.chat(model)).ok
    await pod.kill_router()
    answer = await pod.chat_once(model)
    assert (answer.status, answer.code) == (503, "router-unavailable")
    assert answer.headers["retry-after"] == "2"
    await pod.start_router()
    await eventually(lambda: _served(pod, model), "requests are served again")


async def _served(pod, model):
    return (await pod.chat(model)).ok


async def test_a_router_that_hangs_is_passed_by(pod, engines, model):
    """Each request waits for it for a second and goes on; later it takes up where it was."""
    one, other = await engines(), await engines()
    await pod.serve_alone(model, one.address, other.address)
    one.mode = other.mode = Mode.STALL_IN_STREAM
    stream = asyncio.create_task(pod.chat(model, seconds=120))
    await eventually(lambda: one.running + other.running, "a stream runs")
    one.mode = other.mode = Mode.SERVE
    pod.signal_router(signal.SIGSTOP)
    answers = await pod.ask_many(12, model, at_once=4)
    assert not failed(answers)
    assert max(answer.seconds for answer in answers) < 6
    one.gate.set()
    other.gate.set()
    assert (await stream).ok
    pod.signal_router(signal.SIGCONT)
    assert not failed(await pod.ask_many(8, model))
    await eventually(lambda: _inflight_is(pod, model, 0), "nothing is in flight")


async def test_a_new_envoy_takes_over_from_one_that_is_killed(pod, engines, model):
    """What ran through it is cut and forgotten; the router tells the next one all it knows."""
    engine = await engines()
    await pod.serve_alone(model, engine.address)
    engine.mode = Mode.STALL_IN_STREAM
    stream = asyncio.create_task(pod.chat(model))
    await eventually(lambda: _inflight_is(pod, model, 1), "the stream is counted")
    await pod.kill_envoy()
    assert (await stream).end == "cut"
    await eventually(lambda: _inflight_is(pod, model, 0), "nothing is in flight")
    assert await pod.metric("envoy_connections") == 0
    engine.mode = Mode.SERVE
    engine.gate.set()
    await pod.start_envoy()
    assert not failed(await pod.ask_many(8, model))

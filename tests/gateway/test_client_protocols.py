"""`heliostat gateway` as a process: HTTP/1.1 and HTTP/2, plain and over TLS."""

import asyncio
import json
import socket
import ssl
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx2 as httpx
import pytest
import pytest_asyncio

from heliostat_cli.demonstration.children import run_child
from heliostat_cli.main import main
from heliostat_extproc.certificates import make_self_signed
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engine

pytestmark = pytest.mark.gateway

MANIFEST = """\
apiVersion: heliostat.dev/v1alpha1
kind: InferencePool
metadata: {{name: m}}
spec: {{model: {{name: m}}, endpoints: [{{address: "{address}"}}]}}
"""


def put_certificate(folder, name):
    """Move a new pair of files into the place of the old; return what trusts it."""
    pair = make_self_signed(name, datetime.now(UTC))
    for file, content in (("tls.key", pair.key), ("tls.crt", pair.certificate)):
        draft = folder / f".{file}"
        draft.write_bytes(content)
        draft.rename(folder / file)
    return ssl.create_default_context(cadata=pair.certificate.decode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory):
    """A gateway before one stand-in."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "pools").mkdir()
    trust = put_certificate(folder, "localhost")
    async with AsyncExitStack() as stack:
        options = EngineOptions(model="m", speed_ratio=20.0)
        engine = await stack.enter_async_context(running_engine(options))
        (folder / "pools" / "m.yaml").write_text(MANIFEST.format(address=engine.address))
        port, tls_port = unused_ports()
        command = ["gateway", "--pools", str(folder / "pools"), "--admin-port", "0"]
        command += ["--port", str(port), "--drain-seconds", "1"]
        command += ["--gateway-tls-cert", str(folder / "tls.crt")]
        command += ["--gateway-tls-key", str(folder / "tls.key")]
        command += ["--gateway-tls-port", str(tls_port)]
        child = await stack.enter_async_context(run_child("gateway", command, folder))
        announced = await child.ready_line()
        assert f"https://127.0.0.1:{tls_port}" in announced
        urls = {"http": f"http://localhost:{port}", "https": f"https://localhost:{tls_port}"}
        yield SimpleNamespace(folder=folder, urls=urls, trust=trust)


def unused_ports():
    """Two ports on loopback that nobody uses."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


async def stream(client, url):
    """Ask for a streamed answer; return the HTTP version and the events."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines() if line]
    return response.http_version, [line.removeprefix("data: ") for line in lines]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_clients_may_speak_either(served, scheme, version):
    """Streams come whole, whichever way."""
    http2 = version == "HTTP/2"
    async with httpx.AsyncClient(http1=not http2, http2=http2, verify=served.trust) as client:
        used, events = await stream(client, served.urls[scheme])
    assert used == version
    assert json.loads(events[0])["object"] == "chat.completion.chunk"
    assert events[-1] == "[DONE]"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_new_certificate_is_served_without_restart(served):
    """Files that are moved into the place of the old are read."""
    renewed = put_certificate(served.folder, "localhost")
    assert not await is_trusted(served, ssl.create_default_context())
    async with asyncio.timeout(10):
        while not await is_trusted(served, renewed):
            pass
    assert not await is_trusted(served, served.trust)


async def is_trusted(served, trust):
    """Ask over a new connection."""
    async with httpx.AsyncClient(verify=trust) as client:
        try:
            return (await client.get(f"{served.urls['https']}/health")).status_code == 200
        except httpx.ConnectError:
            return False


def test_a_certificate_that_cannot_be_read_is_told_at_the_start(tmp_path, capsys):
    """Before anything runs."""
    options = ["--gateway-tls-cert", str(tmp_path / "c"), "--gateway-tls-key", str(tmp_path / "k")]
    assert main(["gateway", "--pools", str(tmp_path), *options]) == 2
    assert f"cannot read {tmp_path / 'c'}: No such file" in capsys.readouterr().err
    assert main(["gateway", "--pools", str(tmp_path), *options[:2]]) == 2
    assert "--gateway-tls-key go together" in capsys.readouterr().err

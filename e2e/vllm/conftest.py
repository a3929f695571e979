"""Two real vLLM on the CPU, the gateway in front of them, and the official client."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).parent))

from installation import MODEL, MODEL_FOLDER, Gateway, make_replica, until_healthy
from processes import Server, free_port, started

REPLICAS = 2
GATEWAY_START_TIMEOUT_SECONDS = 60.0


@pytest.fixture(scope="session")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two replicas of the tiny model, each on a CPU of its own where there are two."""
    if not MODEL_FOLDER.exists():
        pytest.fail("no vLLM here: run `make e2e-vllm`")
    logs = tmp_path_factory.mktemp("vllm")
    with ExitStack() as stack:
        servers = [stack.enter_context(started(make_replica(it, logs))) for it in range(REPLICAS)]
        for server in servers:
            until_healthy(server)
        yield servers


@pytest.fixture(scope="session")
def running_gateway(
    replicas: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """`heliostat gateway` on a folder with one manifest that names both replicas."""
    folder = tmp_path_factory.mktemp("gateway")
    pools = folder / "pools"
    pools.mkdir()
    port, admin_port = free_port(), free_port()
    command = (
        *(str(Path(sys.executable).with_name("heliostat")), "gateway", "--pools", str(pools)),
        *("--port", str(port), "--admin-port", str(admin_port)),
    )
    server = Server("gateway", command, port, folder / "gateway.log", {})
    gateway = Gateway(server, admin_port, pools / "tiny.yaml")
    gateway.declare(replicas)
    probe = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 1}).encode()
    with started(server):
        server.wait_until(
            lambda: server.request("/v1/completions", probe)[0] == 200,
            GATEWAY_START_TIMEOUT_SECONDS,
        )
        yield gateway


@pytest.fixture(scope="session")
def gateway(running_gateway: Gateway) -> Server:
    """The gateway, as one that HTTP is asked of."""
    return running_gateway.server


def openai_client(server: Server) -> OpenAI:
    """The official client, without the retries that would hide a failure."""
    return OpenAI(base_url=f"http://{server.address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def client(gateway: Server) -> Iterator[OpenAI]:
    """The official client in front of the gateway."""
    with openai_client(gateway) as client:
        yield client

"""Two real vLLM on the CPU, the gateway in front of them, and the official client."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).parent))

from processes import Server, free_port, started

ROOT = Path(__file__).resolve().parents[2]
VLLM_FOLDER = ROOT / ".venv-vllm"
MODEL_FOLDER = VLLM_FOLDER / "tiny-model"
MODEL = "tiny"
REPLICAS = 2
VLLM_START_TIMEOUT_SECONDS = 240.0
GATEWAY_START_TIMEOUT_SECONDS = 60.0

VLLM_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
}
# float32 and eager: equal text whatever else is in the batch and whatever is cached.
VLLM_FLAGS = (
    *("--served-model-name", MODEL, "--host", "127.0.0.1"),
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
    *("--block-size", "32", "--kv-cache-memory-bytes", "64M", "--max-num-seqs", "8"),
    *("--enable-prefix-caching", "--prefix-caching-hash-algo", "sha256_cbor"),
    "--enable-prompt-tokens-details",
)
MANIFEST = """\
apiVersion: heliostat.dev/v1alpha1
kind: InferencePool
metadata:
  name: tiny
spec:
  model:
    name: {model}
  endpoints:
{endpoints}
"""


@pytest.fixture(scope="session")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two replicas of the tiny model, each on a CPU of its own where there are two."""
    if not MODEL_FOLDER.exists():
        pytest.fail("no vLLM here: run `make e2e-vllm`")
    logs = tmp_path_factory.mktemp("vllm")
    cpus = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = []
        for index in range(REPLICAS):
            port = free_port()
            python = str(VLLM_FOLDER / "bin" / "python")
            command = (
                *(python, "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", str(MODEL_FOLDER), "--port", str(port), *VLLM_FLAGS),
            )
            pinned = {"VLLM_CPU_OMP_THREADS_BIND": str(cpus[index % len(cpus)])}
            log = logs / f"replica-{index}.log"
            server = started(f"vLLM {index}", command, port, log, VLLM_ENVIRONMENT | pinned)
            servers.append(stack.enter_context(server))
        for server in servers:
            server.wait_until(
                lambda server=server: server.request("/health")[0] == 200,
                VLLM_START_TIMEOUT_SECONDS,
            )
        yield servers


@pytest.fixture(scope="session")
def gateway(replicas: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`heliostat gateway` on a folder with one manifest that names both replicas."""
    folder = tmp_path_factory.mktemp("gateway")
    pools = folder / "pools"
    pools.mkdir()
    endpoints = "\n".join(f"    - address: {replica.address}" for replica in replicas)
    (pools / "tiny.yaml").write_text(MANIFEST.format(model=MODEL, endpoints=endpoints))
    port = free_port()
    heliostat = str(Path(sys.executable).with_name("heliostat"))
    command = (
        *(heliostat, "gateway", "--pools", str(pools)),
        *("--port", str(port), "--admin-port", str(free_port())),
    )
    probe = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 1}).encode()
    with started("gateway", command, port, folder / "gateway.log", {}) as server:
        server.wait_until(
            lambda: server.request("/v1/completions", probe)[0] == 200,
            GATEWAY_START_TIMEOUT_SECONDS,
        )
        yield server


def openai_client(server: Server) -> OpenAI:
    """The official client, without the retries that would hide a failure."""
    return OpenAI(base_url=f"http://{server.address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def client(gateway: Server) -> Iterator[OpenAI]:
    """The official client in front of the gateway."""
    with openai_client(gateway) as client:
        yield client

"""What is under test: replicas of the tiny model, and the gateway in front of them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from processes import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
VLLM_FOLDER = ROOT / ".venv-vllm"
MODEL_FOLDER = VLLM_FOLDER / "tiny-model"
MODEL = "tiny"
VLLM_START_TIMEOUT_SECONDS = 240.0

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
    # On SIGTERM, let what runs end: without it streams hang.
    *("--shutdown-timeout", "20"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
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


def make_replica(index: int, logs: Path) -> Server:
    """Prepare a replica, on a CPU of its own where there are several."""
    cpus = sorted(os.sched_getaffinity(0))
    port = free_port()
    command = (
        *(str(VLLM_FOLDER / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(MODEL_FOLDER), "--port", str(port), *VLLM_FLAGS),
    )
    pinned = {"VLLM_CPU_OMP_THREADS_BIND": str(cpus[index % len(cpus)])}
    log = logs / f"replica-{index}.log"
    return Server(f"vLLM {index}", command, port, log, VLLM_ENVIRONMENT | pinned)


def until_healthy(replica: Server) -> None:
    """Wait until a replica has loaded its model. Raises ProgramError."""
    replica.wait_until(lambda: replica.request("/health")[0] == 200, VLLM_START_TIMEOUT_SECONDS)


@dataclass(frozen=True, slots=True)
class Gateway:
    """`heliostat gateway` and the folder with the pool's manifest."""

    server: Server
    admin_port: int
    manifest: Path

    def declare(self, replicas: Sequence[Server]) -> None:
        """Let the pool have these endpoints from now on."""
        endpoints = "\n".join(f"    - address: {replica.address}" for replica in replicas)
        draft = self.manifest.with_suffix(".draft")
        draft.write_text(MANIFEST.format(model=MODEL, endpoints=endpoints))
        draft.replace(self.manifest)

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """What the router knows of the pool's endpoints, by their addresses."""
        url = f"http://127.0.0.1:{self.admin_port}/pools"
        with urlopen(url, timeout=10) as answer:
            [pool] = json.load(answer)["pools"]
        return {it["address"]: it for it in pool["endpoints"]}

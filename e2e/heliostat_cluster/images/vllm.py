"""The `vllm/vllm-openai` image: the stand-in engine behind vLLM's own command line.

Options that vLLM has and the stand-in has no use for are taken and ignored; what vLLM does not know
ends it with status 2, as there. The environment variables HELIOSTAT_E2E_LOAD_SECONDS (how long the
model loads), HELIOSTAT_E2E_SPEED and HELIOSTAT_E2E_PROFILE (see `heliostat engine`) tune it.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

import uvloop

from heliostat_cluster.images.table import BROKEN_VARIABLE
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import RunningEngine, running_engine

DEFAULT_MAX_LORAS = 1
_POLL_SECONDS = 0.05
_IGNORED = (
    "allowed-origins",
    "api-server-count",
    "block-size",
    "chat-template",
    "chat-template-content-format",
    "code-revision",
    "compilation-config",
    "config-format",
    "convert",
    "cpu-offload-gb",
    "data-parallel-backend",
    "data-parallel-size",
    "device",
    "distributed-executor-backend",
    "download-dir",
    "dtype",
    "generation-config",
    "gpu-memory-utilization",
    "guided-decoding-backend",
    "hf-overrides",
    "hf-token",
    "kv-cache-dtype",
    "kv-cache-memory-bytes",
    "kv-transfer-config",
    "limit-mm-per-prompt",
    "load-format",
    "long-prefill-token-threshold",
    "lora-dtype",
    "max-cpu-loras",
    "max-log-len",
    "max-logprobs",
    "max-lora-rank",
    "max-num-partial-prefills",
    "max-parallel-loading-workers",
    "middleware",
    "mm-processor-kwargs",
    "model-impl",
    "model-loader-extra-config",
    "num-gpu-blocks-override",
    "optimization-level",
    "otlp-traces-endpoint",
    "override-generation-config",
    "pipeline-parallel-size",
    "prefix-caching-hash-algo",
    "quantization",
    "reasoning-parser",
    "response-role",
    "revision",
    "root-path",
    "rope-scaling",
    "rope-theta",
    "runner",
    "scheduling-policy",
    "seed",
    "speculative-config",
    "ssl-ca-certs",
    "ssl-certfile",
    "ssl-keyfile",
    "swap-space",
    "task",
    "tensor-parallel-size",
    "tokenizer",
    "tokenizer-mode",
    "tokenizer-revision",
    "tool-call-parser",
    "tool-parser-plugin",
    "uvicorn-log-level",
)
_IGNORED_SWITCHES = (
    "async-scheduling",
    "disable-custom-all-reduce",
    "disable-frontend-multiprocessing",
    "disable-log-requests",
    "disable-log-stats",
    "disable-uvicorn-access-log",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-force-include-usage",
    "enable-log-requests",
    "enable-prefix-caching",
    "enable-prompt-tokens-details",
    "enable-request-id-headers",
    "enable-server-load-tracking",
    "enable-sleep-mode",
    "enforce-eager",
    "no-async-scheduling",
    "no-enable-chunked-prefill",
    "no-enable-prefix-caching",
    "return-tokens-as-token-ids",
    "skip-tokenizer-init",
    "trust-remote-code",
    "use-tqdm-on-load",
)


def main() -> int:
    """Load, serve until SIGTERM, finish what runs; the exit status is 1 if loading fails."""
    arguments = _parse(sys.argv[1:])
    options = _engine_options(arguments)
    _say(f"Starting to load model {options.model_root}")
    if os.environ.get(BROKEN_VARIABLE):
        _say(f"RuntimeError: failed to load {options.model_root}: the checkpoint is broken")
        return 1
    uvloop.run(_serve(options, arguments.shutdown_timeout))
    return 0


async def _serve(options: EngineOptions, shutdown_seconds: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    load_seconds = float(os.environ.get("HELIOSTAT_E2E_LOAD_SECONDS") or 0)
    try:
        async with asyncio.timeout(load_seconds):
            await stop.wait()
        return
    except TimeoutError:
        _say("Model loaded")
    gc.collect()
    gc.freeze()
    async with running_engine(options) as engine:
        _say(f"Application startup complete: {engine.url}")
        await stop.wait()
        _say(f"Shutting down within {shutdown_seconds:g} s")
        await _finish(engine, shutdown_seconds)


async def _finish(engine: RunningEngine, within_seconds: float) -> None:
    """Let what runs end; nothing new begins."""
    engine.refuse_new()
    with suppress(TimeoutError):
        async with asyncio.timeout(within_seconds):
            while engine.unfinished_requests:  # noqa: ASYNC110 - the engine can only be asked
                await asyncio.sleep(_POLL_SECONDS)


def _engine_options(arguments: argparse.Namespace) -> EngineOptions:
    root: str = arguments.model or arguments.model_tag or "Qwen/Qwen3-0.6B"
    name, *aliases = arguments.served_model_name or [root]
    may_change = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").strip().lower()
    return EngineOptions(
        host=arguments.host or "0.0.0.0",
        port=arguments.port,
        model=name,
        aliases=tuple(aliases),
        model_root=root,
        profile=os.environ.get("HELIOSTAT_E2E_PROFILE") or "l4-llama-8b",
        speed_ratio=float(os.environ.get("HELIOSTAT_E2E_SPEED") or 1),
        max_running_requests=arguments.max_num_seqs,
        max_step_tokens=arguments.max_num_batched_tokens,
        max_model_tokens=arguments.max_model_len,
        max_unfinished_requests=arguments.max_num_queued_reqs,
        adapters=tuple(arguments.lora_modules or ()),
        max_loras=arguments.max_loras if arguments.enable_lora else None,
        runtime_lora=may_change in ("1", "true"),
        api_key=(arguments.api_key or [os.environ.get("VLLM_API_KEY")])[0] or None,
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key", nargs="+")
    parser.add_argument("--shutdown-timeout", type=float, default=0.0)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-loras", type=_positive, default=DEFAULT_MAX_LORAS)
    parser.add_argument("--lora-modules", nargs="+", type=_adapter)
    parser.add_argument("--kv-events-config", type=json.loads)
    parser.add_argument("--max-num-seqs", type=_positive)
    parser.add_argument("--max-num-batched-tokens", type=_positive)
    parser.add_argument("--max-model-len", type=_length)
    parser.add_argument("--max-num-queued-reqs", type=_positive)
    for name in _IGNORED:
        parser.add_argument(f"--{name}", nargs="+" if name == "middleware" else None)
    for name in _IGNORED_SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    for short, name in (("-tp", "tp"), ("-pp", "pp"), ("-dp", "dp"), ("-q", "q"), ("-O", "O")):
        parser.add_argument(short, dest=f"short_{name}")
    return parser.parse_args([_hyphenated(part) for part in arguments])


def _hyphenated(argument: str) -> str:
    """VLLM takes --max_loras for --max-loras."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _adapter(text: str) -> tuple[str, str]:
    """Parse `name=path`, or JSON with the two."""
    if text.startswith("{"):
        members = json.loads(text)
        return members["name"], members["path"]
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: wanted NAME=PATH")
    return name, path


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _length(text: str) -> int | None:
    """Parse a number of tokens, 32k for 32000 and 32K for 32768; auto is the model's own."""
    if text in ("auto", "-1"):
        return None
    units = {"k": 1000, "K": 1024}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else _positive(text)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""`heliostat engine`: engine stand-ins on vLLM's wire, one or several in a process."""

import argparse
import asyncio
import gc
import json
import signal
import sys
from dataclasses import replace

import uvloop

from heliostat_sim.engine import PROFILES
from heliostat_sim.standin.options import DEFAULT_MODEL, EngineOptions
from heliostat_sim.standin.server import running_engines


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="first port; 0: any free ones")
    parser.add_argument("--count", type=_positive, default=1, help="engines, on consecutive ports")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="served model name")
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="l4-llama-8b", help="step times and memory"
    )
    parser.add_argument("--kv-tokens", type=_positive, help="KV cache capacity in tokens")
    parser.add_argument("--block-size", type=_positive, help="tokens per KV block")
    parser.add_argument("--max-num-seqs", type=_positive, help="requests in the batch at once")
    parser.add_argument("--max-num-batched-tokens", type=_positive, help="token budget of a step")
    parser.add_argument(
        "--prefill-tokens-per-second", type=_positive_number, help="prompt throughput"
    )
    parser.add_argument(
        "--speed",
        type=_positive_number,
        default=1.0,
        help="divides every time; 10 is ten times as fast",
    )
    parser.add_argument("--max-model-len", type=_positive, help="prompt and output tokens together")
    parser.add_argument(
        "--max-num-queued-reqs",
        type=_positive,
        help="unfinished requests beyond which new ones get 503",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Prints one JSON line when ready."""
    first = EngineOptions(
        host=args.host,
        port=args.port,
        model=args.model,
        profile=args.profile,
        kv_tokens=args.kv_tokens,
        block_tokens=args.block_size,
        max_running_requests=args.max_num_seqs,
        max_step_tokens=args.max_num_batched_tokens,
        prefill_tokens_per_second=args.prefill_tokens_per_second,
        speed_ratio=args.speed,
        max_model_tokens=args.max_model_len,
        max_unfinished_requests=args.max_num_queued_reqs,
    )
    options = [
        replace(first, port=first.port and first.port + index) for index in range(args.count)
    ]
    try:
        uvloop.run(_serve(options))
    except OSError as error:
        sys.stderr.write(f"heliostat engine: {error}\n")
        return 1
    return 0


async def _serve(options: list[EngineOptions]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    gc.collect()
    gc.freeze()  # what is loaded stays: a full collection over it would stall the loop by 20 ms
    async with running_engines(options) as engines:
        ready = {"model": options[0].model, "addresses": [engine.address for engine in engines]}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value

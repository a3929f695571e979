"""What clients see of several gateways of one region, beside one gateway before the same engines.

Gateways, routers and engine stand-ins are real processes on this machine; the gateways share a
secret and one view. New connections go to the gateways in turn, as a Service's do. The two runs get
the same chats at the same times. Needs no root.
"""

import asyncio
import contextlib
import itertools
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from heliostat_cli.loading import LoadOptions, LoadReport, run_load
from heliostat_cluster.child_process import ChildProcess
from heliostat_sim.workload.conversations import ConversationSettings, conversations
from heliostat_sim.workload.session import with_poisson_arrivals

GATEWAYS = 3
ENGINES = 6
SPEED_RATIO = 0.5
CHATS_PER_SECOND = 0.8
PROFILE, MODEL = "l4-llama-8b", "demo"
FIRST_PORT = 18_400
READY_SECONDS = 180.0
_POLL_SECONDS = 0.1
_CHUNK_BYTES = 64 * 1024
_engine_ports = [FIRST_PORT + 50 + number for number in range(ENGINES)]


async def measure_siblings(seconds: float, seeds: Sequence[int]) -> dict[str, object]:
    """Time to first token and throughput of several gateways over those of one, run by turns."""
    runs = []
    for seed in seeds:
        one = await _run(1, seconds, seed)
        several = await _run(GATEWAYS, seconds, seed)
        runs.append({"seed": seed, "one": _brief(one), "several": _brief(several)})
        runs[-1]["ratios"] = _ratios(one, several)
    return {"gateways": GATEWAYS, "engines": ENGINES, "seconds": seconds, "runs": runs}


async def _run(gateways: int, seconds: float, seed: int) -> LoadReport:
    workload = with_poisson_arrivals(conversations(ConversationSettings(), seed), CHATS_PER_SECOND)
    async with _running(gateways) as url:
        engine_url = f"http://127.0.0.1:{_engine_ports[0]}"
        options = LoadOptions(url, MODEL, engine_url, seconds=seconds)
        return await run_load(options, workload, lambda _progress: None)


@asynccontextmanager
async def _running(gateways: int) -> AsyncIterator[str]:
    """Fresh engines and gateways, and the one address for all of them."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hs-")))
        _write_pool(folder)
        ports = [FIRST_PORT + 10 * number for number in range(gateways)]
        processes = [_engines(folder), *(_gateway(folder, port, ports) for port in ports)]
        for process in processes:
            stack.push_async_callback(process.stop)
            process.start()
        async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as session:
            for port in ports:
                while not await _is_ready(session, port, gateways):
                    for process in processes:
                        process.check()
                    await asyncio.sleep(_POLL_SECONDS)
        yield await stack.enter_async_context(_in_turn(ports))


def _write_pool(folder: Path) -> None:
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": MODEL},
        "spec": {
            "model": {"name": MODEL},
            "endpoints": [{"address": f"127.0.0.1:{port}"} for port in _engine_ports],
        },
    }
    (folder / "pools").mkdir()
    (folder / "pools" / "pool.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    (folder / "secret").write_text(secrets.token_hex(32), encoding="utf-8")


def _engines(folder: Path) -> ChildProcess:
    return _heliostat(
        folder, "engines", "engine",
        *("--port", _engine_ports[0], "--count", ENGINES, "--model", MODEL),
        *("--profile", PROFILE, "--speed", SPEED_RATIO),
    )  # fmt: skip


def _gateway(folder: Path, port: int, ports: Sequence[int]) -> ChildProcess:
    """The gateway of this port; its admin port is the next, its federation port the one after."""
    siblings = (f"us-{other}=127.0.0.1:{other + 2}" for other in ports if other != port)
    together = (
        *("--region", "us", "--router-name", f"us-{port}", "--federation-port", port + 2),
        *("--region-secret-file", folder / "secret"),
        *itertools.chain.from_iterable(("--sibling", it) for it in siblings),
    )
    return _heliostat(
        folder, f"gateway-{port}", "gateway",
        *("--pools", folder / "pools", "--port", port, "--admin-port", port + 1),
        *(together if len(ports) > 1 else ()),
    )  # fmt: skip


def _heliostat(folder: Path, name: str, *options: object) -> ChildProcess:
    command = [sys.executable, "-m", "heliostat_federation.gateway", *map(str, options)]
    return ChildProcess(name, command, folder / f"{name}.log")


async def _is_ready(session: aiohttp.ClientSession, port: int, gateways: int) -> bool:
    """Whether the gateway serves the model and is heard by all its siblings."""
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get(f"http://127.0.0.1:{port}/v1/models") as response:
            serves = response.status == 200 and MODEL in await response.text()
        async with session.get(f"http://127.0.0.1:{port + 1}/peers") as response:
            siblings = (await response.json())["siblings"]
        connected = sum(it["state"] == "Connected" for it in siblings)
        return serves and connected == gateways - 1
    return False


@asynccontextmanager
async def _in_turn(ports: Sequence[int]) -> AsyncIterator[str]:
    """An address whose connections go to these ports in turn."""
    turn = itertools.cycle(ports)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", next(turn))
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()
    sink.write_eof()


def _brief(report: LoadReport) -> dict[str, object]:
    return {
        "requests": report.requests,
        "failed": report.failed,
        "errors": report.errors,
        "ttft_p50_seconds": report.ttft_seconds["p50"],
        "ttft_p90_seconds": report.ttft_seconds["p90"],
        "output_tokens_per_second": report.output_tokens_per_second,
        "hit_ratio": report.hit_ratio,
        "load_tool_lag_p99_seconds": report.event_loop_lag_seconds["p99"],
        "engine_lag_p99_seconds": report.engine_lag_p99_seconds,
        "valid": report.valid,
    }


def _ratios(one: LoadReport, several: LoadReport) -> dict[str, float]:
    def ratio(percentile: str) -> float:
        return (several.ttft_seconds[percentile] or 0.0) / (one.ttft_seconds[percentile] or 1.0)

    throughput = several.output_tokens_per_second / one.output_tokens_per_second
    return {"ttft_p50": ratio("p50"), "ttft_p90": ratio("p90"), "throughput": throughput}

"""What is compared: the same load through Heliostat's gateway, through the floor, past both."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from gateway_bench.engines import Answer
from gateway_bench.floor_envoy import floor_envoy_json
from gateway_bench.load import Bodies, Load, Tally
from gateway_bench.processes import (
    child_named,
    cpu_seconds,
    find_free_port,
    running_envoy,
    running_gateway,
    running_script,
)

MOST_ENDPOINTS_OF_A_POOL = 1000
HELD_MODEL = "held"
_WARM_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to the engines."""

    name: str
    port: int
    envoy: int
    """Process ids."""
    picker: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What one arm took for what it served within a few seconds."""

    requests: int
    failed: int
    requests_per_second: float
    picker_us: float
    """CPU of one request."""
    envoy_us: float
    p50_ms: float
    p99_ms: float


async def take_sample(
    arm: Arm, bodies: Sequence[Bodies], answer: Answer, concurrency: int, seconds: float
) -> Sample:
    """Load an arm and measure it once it runs evenly."""
    load = Load(arm.port, bodies, answer)
    streamed = answer in (Answer.STREAM, Answer.SLOW)
    spread_seconds = 0.6 if streamed else 0.05
    await load.start(concurrency, spread_seconds)
    await asyncio.sleep(spread_seconds + _WARM_SECONDS)
    before = _cpu(arm)
    tally = await load.measure(seconds)
    after = _cpu(arm)
    await load.stop()
    return _sample(tally, seconds, after[0] - before[0], after[1] - before[1])


def _cpu(arm: Arm) -> tuple[float, float]:
    return (0.0 if arm.picker is None else cpu_seconds(arm.picker)), cpu_seconds(arm.envoy)


def _sample(tally: Tally, seconds: float, picker: float, envoy: float) -> Sample:
    count = max(1, len(tally.seconds))
    return Sample(
        requests=len(tally.seconds),
        failed=tally.failed,
        requests_per_second=len(tally.seconds) / seconds,
        picker_us=picker / count * 1e6,
        envoy_us=envoy / count * 1e6,
        p50_ms=tally.latency_ms(0.5),
        p99_ms=tally.latency_ms(0.99),
    )


@contextmanager
def running_engines(folder: Path) -> Iterator[int]:
    """Run the engines; gives their port."""
    port = find_free_port()
    with running_script("engines.py", folder / "engines.log", "--port", str(port)):
        yield port


@contextmanager
def running_floor(folder: Path, engine_port: int) -> Iterator[tuple[Arm, Arm]]:
    """Run the floor and its Envoy; gives the arm through it and the one past it."""
    endpoint, socket = f"127.0.1.1:{engine_port}", folder / "floor.sock"
    ports = find_free_port(), find_free_port()
    with ExitStack() as stack:
        arguments = "--socket", str(socket), "--endpoint", endpoint
        floor = stack.enter_context(running_script("floor.py", folder / "floor.log", *arguments))
        configuration = floor_envoy_json(socket, *ports, endpoint)
        envoy = stack.enter_context(running_envoy(configuration, ports[0], folder)).pid
        yield Arm("floor", ports[0], envoy, floor.pid), Arm("direct", ports[1], envoy)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway of Heliostat's."""

    arm: Arm
    admin_port: int


@contextmanager
def running_heliostat(folder: Path, engine_port: int, endpoints: int) -> Iterator[Gateway]:
    """Run the gateway with one model at so many endpoints, and one whose requests are held."""
    pools = folder / f"pools-{endpoints}"
    pools.mkdir()
    addresses = [f"127.1.{slot >> 8}.{slot & 255}:{engine_port}" for slot in range(endpoints)]
    for start in range(0, endpoints, MOST_ENDPOINTS_OF_A_POOL):
        some = addresses[start : start + MOST_ENDPOINTS_OF_A_POOL]
        _write_pool(pools, f"bench-{start}", "bench", some, prefillTokensPerSecond=100_000_000)
    _write_pool(
        pools,
        HELD_MODEL,
        HELD_MODEL,
        [f"127.2.0.1:{engine_port}"],
        prefillTokensPerSecond=1,
        queueLimit=100_000,
        queueTimeout="1h",
        ageBound="1h",
    )
    port, admin_port = find_free_port(), find_free_port()
    with running_gateway(pools, port, admin_port, folder, endpoints + 1) as process:
        envoy = child_named(process.pid, "envoy")
        yield Gateway(Arm("heliostat", port, envoy, process.pid), admin_port)


def _write_pool(
    folder: Path, name: str, model: str, addresses: Sequence[str], **routing: object
) -> None:
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": model},
            "endpoints": [{"address": address} for address in addresses],
            "routing": routing,
        },
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(manifest))

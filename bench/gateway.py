"""What the gateway costs: CPU of router and Envoy for a request, latency, memory, beside the floor.

The same load goes by turns through Heliostat's gateway (`heliostat gateway`, as it is shipped),
through an Envoy that asks the floor (`gateway_bench/floor.py`: the least a picker on the same
libraries can do), and through an Envoy that asks nobody. CPU is that of each process by the
kernel's account, so engines and load may share the cores. The router's includes all it does: its
scrapes, its access logs, its index. Each number is the median of the rounds.

    python bench/gateway.py --json cost.json
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from gateway_bench.arms import (
    HELD_MODEL,
    Arm,
    Sample,
    running_engines,
    running_floor,
    running_heliostat,
    take_sample,
)
from gateway_bench.core import measure_core, measure_index
from gateway_bench.engines import Answer
from gateway_bench.load import Bodies, Load
from gateway_bench.place import describe_place
from gateway_bench.processes import cpu_seconds, resident_bytes
from gateway_bench.tables import core_table, cost_table, facts

BODY_BYTES = (4_800, 48_000, 220_000, 420_000)
ENDPOINTS = (10, 100, 1_000, 10_000)
CONCURRENCY = {Answer.PLAIN: 8, Answer.STREAM: 16, Answer.SLOW: 16}
HELD_REQUESTS = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    body_bytes: tuple[int, ...]
    endpoints: tuple[int, ...]
    core_requests: int
    index_endpoints: tuple[int, ...]


FULL = Plan(3, 2.0, BODY_BYTES, ENDPOINTS, 2_000, (10, 1_000))
QUICK = Plan(2, 1.5, (4_800, 220_000), (10, 1_000), 500, (10,))


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    endpoints: int
    body_bytes: int
    answer: Answer


def main() -> None:
    """Measure, print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases, in two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    report = uvloop.run(measure(QUICK if args.quick else FULL))
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    for lines in (facts(report), cost_table(report), core_table(report)):
        print("\n".join(lines), end="\n\n")


async def measure(plan: Plan) -> dict[str, object]:
    """Run all parts, each pool size with a gateway of its own."""
    report: dict[str, object] = describe_place()
    report["core"] = [
        {"endpoints": endpoints, "body_bytes": size}
        | measure_core(endpoints, size, plan.core_requests)
        for endpoints in plan.endpoints
        for size in plan.body_bytes
    ]
    report["index"] = [
        {"endpoints": endpoints} | measure_index(endpoints, 1_000)
        for endpoints in plan.index_endpoints
    ]
    costs: list[dict[str, object]] = []
    memory: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        folder = Path(name)
        with running_engines(folder) as port, running_floor(folder, port) as (floor, direct):
            for endpoints in plan.endpoints:
                with running_heliostat(folder, port, endpoints) as gateway:
                    arms = [floor, gateway.arm]
                    if endpoints == plan.endpoints[0]:
                        arms = [direct, *arms]
                        report["latency"] = await measure_latency(arms, plan)
                        report["held"] = await measure_held(gateway.arm, floor)
                    idle = await measure_idle(gateway.arm)
                    costs += await measure_costs(arms, endpoints, plan)
                    memory.append({"endpoints": endpoints} | idle | _memory(arms))
    report["cost"], report["memory"] = costs, memory
    return report


async def measure_costs(arms: Sequence[Arm], endpoints: int, plan: Plan) -> list[dict[str, object]]:
    """Every body size and kind of answer, all of them once a round."""
    cases = [
        Case(endpoints, size, answer)
        for size in plan.body_bytes
        for answer in (Answer.PLAIN, Answer.STREAM, Answer.SLOW)
        if answer is not Answer.SLOW or size == plan.body_bytes[0]
    ]
    bodies = {size: [Bodies(size)] for size in plan.body_bytes}
    samples: dict[tuple[Case, str], list[Sample]] = defaultdict(list)
    for _ in range(plan.rounds):
        for case in cases:
            for arm in arms:
                if arm.name == "direct" and case.answer is not Answer.PLAIN:
                    continue
                concurrency = CONCURRENCY[case.answer]
                sample = await take_sample(
                    arm, bodies[case.body_bytes], case.answer, concurrency, plan.seconds
                )
                samples[case, arm.name].append(sample)
    return [
        {"arm": name, **asdict(case)} | _medians(taken) for (case, name), taken in samples.items()
    ]


async def measure_latency(arms: Sequence[Arm], plan: Plan) -> list[dict[str, object]]:
    """One request after the other: what the way itself takes."""
    taken: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    for _ in range(plan.rounds):
        for size in plan.body_bytes:
            bodies = [Bodies(size)]
            for arm in arms:
                sample = await take_sample(arm, bodies, Answer.PLAIN, 1, plan.seconds / 2)
                taken[size, arm.name].append(sample)
    return [
        {"arm": name, "body_bytes": size} | _medians(samples)
        for (size, name), samples in taken.items()
    ]


async def measure_held(gateway: Arm, floor: Arm) -> dict[str, float]:
    """The memory of router and Envoy for each request that is held.

    The floor holds none: there as many streams stay open that it has answered.
    """
    router_each, envoy_each = await _memory_each(gateway, HELD_MODEL)
    floor_each, _ = await _memory_each(floor, HELD_MODEL)
    return {
        "requests": HELD_REQUESTS,
        "body_bytes": BODY_BYTES[0],
        "router_bytes_each": router_each,
        "envoy_bytes_each": envoy_each,
        "floor_bytes_each": floor_each,
    }


async def _memory_each(arm: Arm, model: str) -> tuple[float, float]:
    """What picker and Envoy grow by with each request that stays open."""
    size = BODY_BYTES[0]
    await take_sample(arm, [Bodies(size)], Answer.PLAIN, CONCURRENCY[Answer.PLAIN], 1.0)
    assert arm.picker is not None
    before = resident_bytes(arm.picker), resident_bytes(arm.envoy)
    load = Load(arm.port, [Bodies(size, model)], Answer.NEVER)
    await load.start(HELD_REQUESTS + 1)
    await asyncio.sleep(3.0)
    after = resident_bytes(arm.picker), resident_bytes(arm.envoy)
    await load.stop()
    return (after[0] - before[0]) / HELD_REQUESTS, (after[1] - before[1]) / HELD_REQUESTS


async def measure_idle(arm: Arm) -> dict[str, float]:
    """What the router takes of a core while nobody asks for anything: its scrapes."""
    assert arm.picker is not None
    seconds, before = 3.0, cpu_seconds(arm.picker)
    await asyncio.sleep(seconds)
    return {"idle_core_ratio": (cpu_seconds(arm.picker) - before) / seconds}


def _memory(arms: Sequence[Arm]) -> dict[str, float]:
    found: dict[str, float] = {}
    for arm in arms:
        found[f"{arm.name}_envoy_bytes"] = resident_bytes(arm.envoy)
        if arm.picker is not None:
            found[f"{arm.name}_bytes"] = resident_bytes(arm.picker)
    return found


def _medians(samples: Sequence[Sample]) -> dict[str, float]:
    rows = [asdict(sample) for sample in samples]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    began_at = time.monotonic()
    main()
    print(f"It took {time.monotonic() - began_at:.0f} s.")

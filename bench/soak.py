"""Half an hour at half of what the gateway can do: memory and latency must stay flat, nothing fail.

First the highest rate is found, with as many requests under way as the gateway likes. Then half of
it comes at even intervals: bodies of all sizes, answers at once and streamed. Memory of router and
Envoy and the latency are sampled; over the second half, when index and pools are full, the line
through the samples may rise by so much of their mean at most.

    python bench/soak.py --minutes 30
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from gateway_bench.arms import Gateway, running_engines, running_heliostat, take_sample
from gateway_bench.engines import Answer
from gateway_bench.load import Bodies, Pacer, Tally
from gateway_bench.place import describe_place
from gateway_bench.processes import cpu_seconds, resident_bytes

BODY_BYTES = (4_800, 4_800, 4_800, 48_000)
STREAMED = 20
"""One request in so many is streamed."""
ENDPOINTS = 10
SAMPLES = 180
GROWTH_LIMITS = {"router_bytes": 0.03, "envoy_bytes": 0.05, "p50_ms": 0.5, "p99_ms": 1.0}
"""What each may rise over the second half, as a share of its mean."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One sample."""

    at_seconds: float
    router_bytes: float
    envoy_bytes: float
    p50_ms: float
    p99_ms: float
    requests: int
    failed: int
    failures_by_status: dict[int, int]
    router_core_ratio: float


def main() -> int:
    """Run, print, and say by the exit status whether all was flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, help="requests per second; default: half the highest")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    report = uvloop.run(soak(args.minutes * 60, args.rate))
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    problems = report["problems"]
    assert isinstance(problems, list)
    summary = {name: value for name, value in report.items() if name != "moments"}
    print(json.dumps(summary, indent=2))
    return 1 if problems else 0


async def soak(seconds: float, rate: float | None) -> dict[str, object]:
    """Load one gateway and watch it."""
    report: dict[str, object] = describe_place()
    with tempfile.TemporaryDirectory(prefix="heliostat-soak-") as name:
        folder = Path(name)
        with (
            running_engines(folder) as port,
            running_heliostat(folder, port, ENDPOINTS) as gateway,
        ):
            bodies = [Bodies(size, seed=str(number)) for number, size in enumerate(BODY_BYTES)]
            if rate is None:
                best = await take_sample(gateway.arm, bodies, Answer.PLAIN, 32, 5.0)
                report["highest_rate"] = best.requests_per_second
                rate = best.requests_per_second / 2
            report["rate"] = rate
            moments, rest = await _watch(gateway, bodies, rate, seconds)
    tallies = [*(Counter(it.failures_by_status) for it in moments), rest.failures]
    failures = sum(tallies, Counter[int]())
    failed = failures.total()
    growth = {name: growth_ratio(moments, name) for name in GROWTH_LIMITS}
    return report | {
        "requests": sum(it.requests for it in moments) + rest.served,
        "failed": failed,
        "failures_by_status": dict(failures),
        "load_average_after": os.getloadavg()[0],
        "growth_ratio_of_second_half": growth,
        "limits": GROWTH_LIMITS,
        "router_core_ratio": statistics.median(it.router_core_ratio for it in moments),
        "first": asdict(moments[0]),
        "last": asdict(moments[-1]),
        "problems": _problems(growth, failed),
        "moments": [asdict(it) for it in moments],
    }


async def _watch(
    gateway: Gateway, bodies: Sequence[Bodies], rate: float, seconds: float
) -> tuple[list[Moment], Tally]:
    """Sample while the load runs; give what has ended after the last sample too."""
    arm = gateway.arm
    assert arm.picker is not None
    interval_seconds = seconds / SAMPLES
    pacer = Pacer(arm.port, bodies, STREAMED)
    pacing = asyncio.create_task(pacer.run(rate, seconds))
    began_at, moments = time.monotonic(), []
    for number in range(SAMPLES):
        before = cpu_seconds(arm.picker)
        due_at = began_at + (number + 1) * interval_seconds
        await asyncio.sleep(max(0.0, due_at - time.monotonic()))
        tally = pacer.take_tally()
        moments.append(
            Moment(
                at_seconds=time.monotonic() - began_at,
                router_bytes=resident_bytes(arm.picker),
                envoy_bytes=resident_bytes(arm.envoy),
                p50_ms=tally.latency_ms(0.5),
                p99_ms=tally.latency_ms(0.99),
                requests=tally.served,
                failed=tally.failed,
                failures_by_status=dict(tally.failures),
                router_core_ratio=(cpu_seconds(arm.picker) - before) / interval_seconds,
            )
        )
        if sys.stderr.isatty() or number % 30 == 0:
            print(asdict(moments[-1]), file=sys.stderr, flush=True)
    await pacing
    return moments, pacer.take_tally()


def growth_ratio(moments: Sequence[Moment], name: str) -> float:
    """How much the line through the second half rises, as a share of the mean."""
    half = moments[len(moments) // 2 :]
    times = [it.at_seconds for it in half]
    values = [float(getattr(it, name)) for it in half]
    slope = statistics.linear_regression(times, values).slope
    return slope * (times[-1] - times[0]) / statistics.mean(values)


def _problems(growth: dict[str, float], failed: int) -> list[str]:
    problems = [
        f"{name} rises by {ratio:.1%} over the second half; {GROWTH_LIMITS[name]:.0%} are allowed"
        for name, ratio in growth.items()
        if ratio > GROWTH_LIMITS[name]
    ]
    return [*problems, f"{failed} requests failed"] if failed else problems


if __name__ == "__main__":
    sys.exit(main())

"""Federation on a real network of processes: what a hop costs, and what it brings a hot region.

Three regions (gateway and engine stand-ins each) in network namespaces, as in `e2e/federation`;
needs root. `overhead` compares a request that us forwards to eu with one that is sent to eu's
gateway itself, beyond the network's round trip. `hot` asks us for 1.3 times of what it can serve
and the others for so much that all together are asked for three quarters, with and without
federation, and has the simulator predict both from the same arrivals.
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heliostat_federation.clients import Clients, Ending, Prompt, Request, percentile
from heliostat_federation.federation import (
    REGIONS,
    Federation,
    FederationSettings,
    running_federation,
)
from heliostat_federation.network import ROUND_TRIPS_SECONDS
from heliostat_federation.region import DEAD_ENGINES, FEDERATION_PORT, RegionSettings
from heliostat_sim.demand.planned import PlannedSession
from heliostat_sim.engine import PROFILES
from heliostat_sim.simulation import run_world
from heliostat_sim.workload.session import Session, Turn
from heliostat_sim.workload.text import TextPart
from heliostat_sim.world.demand import Arrival, Demand
from heliostat_sim.world.records import Records
from heliostat_sim.world.settings import RegionSettings as WorldRegion
from heliostat_sim.world.settings import WorldSettings

HOT, TOTAL = 1.3, 0.75
ENGINES = 2
PROFILE = "l4-llama-8b"
PROMPT = Prompt(tokens=1000, output_tokens=8)
_CHECKOUT = Path(__file__).parents[1]
_CONNECT = """
import socket, sys, time
took = []
for _ in range(50):
    at = time.perf_counter()
    socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
    took.append(time.perf_counter() - at)
print(sorted(took)[25])
"""


@dataclass(frozen=True, slots=True)
class Planned:
    """One request of the hot scenario."""

    at_seconds: float
    region: str


def main() -> None:
    """Run the parts that are asked for; print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["overhead", "hot"], help="overhead, hot")
    parser.add_argument("--requests", type=int, default=200, help="of each way, for the overhead")
    parser.add_argument("--minutes", type=float, default=3.0, help="of load, for each run of hot")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    report: dict[str, object] = {"command": " ".join(sys.argv), **_place()}
    if "overhead" in args.parts:
        report["overhead"] = asyncio.run(measure_overhead(args.requests))
    if "hot" in args.parts:
        report["hot"] = asyncio.run(measure_hot(args.minutes * 60, args.seed))
    text = json.dumps(report, indent=2)
    if args.json is not None:
        args.json.write_text(text + "\n")
    print(text)


async def measure_overhead(requests: int) -> dict[str, float]:
    """Times to first token of the two ways by turns, with the network's own round trip."""
    fast = RegionSettings(engines=1, speed_ratio=200.0)
    settings = FederationSettings(region=fast, loss_ratio=0.0)
    direct, forwarded = [], []
    async with running_federation(settings) as federation:
        federation["us"].write_pool(endpoints=DEAD_ENGINES)
        federation["asia"].write_pool(federation={"mode": "None"})
        network = await _network_seconds(federation, "us", "eu")
        async with Clients(federation, Prompt(tokens=50, output_tokens=1)) as clients:
            for _ in range(20):
                await clients.ask("us")  # opens connections, and finds the engines dead
            for _ in range(requests):
                direct.append(await clients.ask("eu"))
                forwarded.append(await clients.ask("us"))
        tally = await federation.tally()
    one, two = (
        statistics.median(
            it.ttft_seconds for it in ways if set(tally.get(it.request_id, ())) == {"eu"}
        )
        for ways in (direct, forwarded)
    )
    return {
        "network_round_trip_ms": network * 1000,
        "direct_p50_ms": one * 1000,
        "forwarded_p50_ms": two * 1000,
        "beyond_the_network_p50_ms": (two - one - network) * 1000,
    }


async def measure_hot(seconds: float, seed: int) -> dict[str, object]:
    """Real and simulated, federated and each region for itself."""
    capacity = await _capacity()
    rates = hot_rates(capacity)
    plan = list(planned(rates, seconds, seed))
    real = {
        "local": await _run_real(plan, seconds, federated=False),
        "federated": await _run_real(plan, seconds, federated=True),
    }
    simulated = {
        "local": _run_simulated(plan, seconds, "region-local", seed),
        "federated": _run_simulated(plan, seconds, "heliostat", seed),
    }
    return {
        "capacity_requests_per_second": capacity,
        "rates_requests_per_second": rates,
        "requests": len(plan),
        "real": real,
        "simulated": simulated,
        "p90_ratio_real": _ratio(real["federated"], real["local"]),
        "p90_ratio_simulated": _ratio(simulated["federated"], simulated["local"]),
        "federated_p90_real_to_simulated": _ratio(real["federated"], simulated["federated"]),
    }


def hot_rates(capacity: float) -> dict[str, float]:
    """Requests per second of each region, from what one can serve."""
    others = (TOTAL * len(REGIONS) - HOT) / (len(REGIONS) - 1)
    return {name: capacity * (HOT if name == "us" else others) for name in REGIONS}


def planned(rates: dict[str, float], seconds: float, seed: int) -> Iterator[Planned]:
    """Poisson arrivals of all regions, in order."""
    found = []
    for region, rate in rates.items():
        chance, at = random.Random(f"{region}/{seed}"), 0.0
        while (at := at + chance.expovariate(rate)) < seconds:
            found.append(Planned(at, region))
    yield from sorted(found, key=lambda it: it.at_seconds)


async def _capacity() -> float:
    """What a region alone serves of these requests while more always wait."""
    async with (
        running_federation(_settings(federated=False)) as federation,
        Clients(federation, PROMPT) as clients,
    ):
        clients.hold("us", 12 * ENGINES)
        await clients.ended(24 * ENGINES)
        started_at, before = time.monotonic(), len(_served(clients))
        await clients.ended(60 * ENGINES, within_seconds=120)
        return (len(_served(clients)) - before) / (time.monotonic() - started_at)


async def _run_real(plan: list[Planned], seconds: float, *, federated: bool) -> dict[str, float]:
    async with running_federation(_settings(federated=federated)) as federation:
        async with Clients(federation, PROMPT) as clients:
            began_at = time.monotonic()
            for request in plan:
                await asyncio.sleep(began_at + request.at_seconds - time.monotonic())
                clients.send(request.region)
        served = _served(clients)
        forwarded = sum(
            count
            for asked, by in (await clients.served_by()).items()
            for name, count in by.items()
            if name != asked
        )
        return {
            **_ttft([it.ttft_seconds for it in served]),
            "hot_ttft_p90_seconds": clients.ttft_seconds(90, "us"),
            "lost": len(clients.requests) - len(served),
            "served_elsewhere": forwarded,
        }


def _run_simulated(plan: list[Planned], seconds: float, policy: str, seed: int) -> dict[str, float]:
    arrivals = (
        Arrival(request.at_seconds, request.region, PlannedSession(_session(number), 16))
        for number, request in enumerate(plan)
    )
    settings = WorldSettings(
        regions=tuple(WorldRegion(name, ENGINES) for name in REGIONS),
        profile=PROFILES[PROFILE],
        round_trips=ROUND_TRIPS_SECONDS if policy == "heliostat" else _FAR,
        duration_seconds=seconds + 600.0,
        queue_timeout_seconds=3600.0,
    )
    records = run_world(settings, Demand(arrivals=arrivals), "heliostat", seed)
    return _simulated_report(records)


_FAR = dict.fromkeys(ROUND_TRIPS_SECONDS, 7200.0)
"""Round trips that no request is worth: each region for itself."""


def _session(number: int) -> Session:
    """The request as the real clients send it: 1,000 tokens and a little around them."""
    text = TextPart(f"own {number}", PROMPT.tokens + 12)
    return Session((Turn((text,), PROMPT.output_tokens),))


def _simulated_report(records: Records) -> dict[str, float]:
    served = [it for it in records.requests if it.ttft_seconds is not None]
    hot = [it.ttft_seconds for it in served if it.region == "us" and it.ttft_seconds is not None]
    return {
        **_ttft([it.ttft_seconds for it in served if it.ttft_seconds is not None]),
        "hot_ttft_p90_seconds": percentile(hot, 90),
        "lost": records.sent - len(served),
        "served_elsewhere": sum(it.forwarded for it in served),
    }


def _settings(*, federated: bool) -> FederationSettings:
    region = RegionSettings(engines=ENGINES, profile=PROFILE, queue_timeout="10m")
    return FederationSettings(region=region, federated=federated)


def _served(clients: Clients) -> list[Request]:
    return [it for it in clients.requests if it.ending is Ending.SERVED]


def _ttft(values: list[float]) -> dict[str, float]:
    return {
        "served": len(values),
        "ttft_p50_seconds": percentile(values, 50),
        "ttft_p90_seconds": percentile(values, 90),
    }


def _ratio(one: dict[str, float], other: dict[str, float]) -> float:
    return one["ttft_p90_seconds"] / other["ttft_p90_seconds"]


async def _network_seconds(federation: Federation, here: str, there: str) -> float:
    """The round trip of the network alone: half of 50 connections took at most so long."""
    place, target = federation[here].place, federation[there].place.wan_address
    command = place.command(sys.executable, "-c", _CONNECT, target, str(FEDERATION_PORT))
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _place() -> dict[str, str]:
    commit = subprocess.run(
        ["git", "-C", str(_CHECKOUT), "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {"commit": commit, "machine": f"{platform.machine()}, {platform.python_version()}"}


if __name__ == "__main__":
    main()

"""Federation on a real network of processes: what a hop costs, and what it brings a hot region.

Three regions (gateway and engine stand-ins each) in network namespaces, as in `e2e/federation`;
needs root. `overhead` compares a request that us forwards to eu with one that is sent to eu's
gateway itself, beyond the network's round trip: over the network that a program plays, whose own
cost for each packet is then in it, and between gateways side by side. `hot` asks us for 1.3 times
of what it can serve and the others for so much that all together are asked for three quarters, with
and without federation, and has the simulator predict both from the same arrivals.
`siblings`, which runs where it is named, compares several gateways of one region with one; it needs
no root.
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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sibling_gateways import measure_siblings

from heliostat_federation.clients import Clients, Ending, Prompt, Request, percentile
from heliostat_federation.federation import (
    REGIONS,
    Federation,
    FederationSettings,
    running_federation,
)
from heliostat_federation.network import ROUND_TRIPS_SECONDS
from heliostat_federation.region import DEAD_ENGINES, FEDERATION_PORT, RegionSettings
from heliostat_federation.timed_gateway import FLUSH_SECONDS, Passage, read_passages
from heliostat_sim.demand.planned import PlannedSession
from heliostat_sim.engine import PROFILES
from heliostat_sim.simulation import run_world
from heliostat_sim.workload.session import Session, Turn
from heliostat_sim.workload.text import TextPart
from heliostat_sim.world.demand import Arrival, Demand
from heliostat_sim.world.records import Records
from heliostat_sim.world.settings import RegionSettings as WorldRegion
from heliostat_sim.world.settings import WorldSettings

PARTS = ("overhead", "hot", "siblings")
HOT, TOTAL = 1.3, 0.75
ENGINES = 2
PROFILE = "l4-llama-8b"
PROMPT = Prompt(tokens=1000, output_tokens=8)
_TIMED = ("-m", "heliostat_federation.timed_gateway")
_PAUSE_SECONDS = 0.1
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
    parser.add_argument("parts", nargs="*", default=["overhead", "hot"], help=", ".join(PARTS))
    parser.add_argument("--requests", type=int, default=200, help="of each way, for the overhead")
    parser.add_argument("--minutes", type=float, default=3.0, help="of load, for each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    report: dict[str, object] = {"command": " ".join(sys.argv), **_place()}
    if "overhead" in args.parts:
        report["overhead"] = asyncio.run(measure_overhead(args.requests))
    if "hot" in args.parts:
        report["hot"] = asyncio.run(measure_hot(args.minutes * 60, args.seed))
    if "siblings" in args.parts:
        report["siblings"] = asyncio.run(measure_siblings(args.minutes * 60, [args.seed]))
    text = json.dumps(report, indent=2)
    if args.json is not None:
        args.json.write_text(text + "\n")
    print(text)


async def measure_overhead(requests: int) -> dict[str, object]:
    """What forwarding adds: on the played network, and between gateways side by side."""
    return {
        "far": await _measure_addition(requests, near=False),
        "near": await _measure_addition(requests, near=True),
    }


async def _measure_addition(requests: int, *, near: bool) -> dict[str, float]:
    """Times to first token of the two ways by turns, with the network's own round trip.

    Each request comes after a pause: eu has then done with the one before, whichever way it came.
    """
    fast = RegionSettings(engines=1, speed_ratio=200.0, gateway_program=_TIMED)
    settings = FederationSettings(region=fast, loss_ratio=0.0, near=near)
    direct: list[Request] = []
    forwarded: list[Request] = []
    async with running_federation(settings) as federation:
        federation["us"].write_pool(endpoints=DEAD_ENGINES)
        federation["asia"].write_pool(federation={"mode": "None"})
        async with Clients(federation, Prompt(tokens=50, output_tokens=1)) as clients:
            for _ in range(20):
                await clients.ask("us")  # opens connections, and finds the engines dead
            network = await _network_seconds(federation, "us", "eu", near=near)
            since = time.time()
            for _ in range(requests):
                for region, ways in (("eu", direct), ("us", forwarded)):
                    await asyncio.sleep(_PAUSE_SECONDS)
                    ways.append(await clients.ask(region))
        tally = await federation.tally()
        await asyncio.sleep(FLUSH_SECONDS + 1.0)
        parts = _parts(federation, since)
    one, two = (
        statistics.median(
            it.ttft_seconds for it in ways if set(tally.get(it.request_id, ())) == {"eu"}
        )
        for ways in (direct, forwarded)
    )
    seconds = {
        "network_round_trip": network,
        "direct": one,
        "forwarded": two,
        "beyond_the_network": two - one - network,
        **parts,
    }
    return {f"{name}_p50_ms": value * 1000 for name, value in seconds.items()}


def _parts(federation: Federation, since: float) -> dict[str, float]:
    """Where the two gateways' time went, by their Envoys' clocks, at the median."""

    def passages(region: str, entrance: str) -> list[Passage]:
        folder = federation[region].temporary_folder
        return [it for it in read_passages(folder, entrance) if it.begun_at > since]

    at_peer, direct = passages("eu", "federation"), passages("eu", "gateway")
    pairs = []
    for here in passages("us", "gateway"):
        there = next((it for it in at_peer if here.sent_at < it.begun_at < here.answered_at), None)
        if there is not None:
            pairs.append((here, there))
    return {
        "ingress_until_read": statistics.median(it.read_at - it.begun_at for it, _ in pairs),
        "ingress_router": statistics.median(it.sent_at - it.read_at for it, _ in pairs),
        "way_there": statistics.median(b.begun_at - a.sent_at for a, b in pairs),
        "peer_until_read": statistics.median(it.read_at - it.begun_at for _, it in pairs),
        "peer_router": statistics.median(it.sent_at - it.read_at for _, it in pairs),
        "direct_until_read": statistics.median(it.read_at - it.begun_at for it in direct),
        "direct_router": statistics.median(it.sent_at - it.read_at for it in direct),
        "way_back": statistics.median(a.answered_at - b.told_at for a, b in pairs),
        "ingress_back": statistics.median(it.told_at - it.answered_at for it, _ in pairs),
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


async def _run_real(plan: list[Planned], seconds: float, *, federated: bool) -> dict[str, Any]:
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
            "lost_how": _endings(clients),
            "served_elsewhere": forwarded,
        }


def _endings(clients: Clients) -> dict[str, int]:
    """What came of the requests that were not served."""
    others = (it for it in clients.requests if it.ending is not Ending.SERVED)
    return dict(Counter(f"{it.ending} {it.detail}".strip()[:200] for it in others).most_common(20))


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


async def _network_seconds(federation: Federation, here: str, there: str, *, near: bool) -> float:
    """The round trip of the network alone: half of 50 connections took at most so long."""
    place, there_place = federation[here].place, federation[there].place
    target = there_place.address if near else there_place.wan_address
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

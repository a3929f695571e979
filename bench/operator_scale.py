"""The operator at scale: how soon a changed pool's objects are applied, and what it costs.

Runs a real control plane with nodes whose pods have a status and no processes, installs the chart,
applies the pools, then changes one pool after another and watches its Deployment. Prints a table.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from heliostat_cluster.cluster import Cluster, ClusterSettings
from heliostat_cluster.pod_process import process_of_pod
from heliostat_cluster.region import Region, eventually, pool_manifest
from heliostat_kube.api import KubeApi
from heliostat_kube.informer import Informer
from heliostat_kube.resource import (
    DEPLOYMENTS,
    INFERENCE_POOLS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    Json,
)

POOLS_NAMESPACE = "many"
_ENGINE_ENV = "BENCH_CHANGE"
_LISTED = ("inferencepools", "pods", "deployments", "services", "poddisruptionbudgets")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run measured; seconds, MiB, counts."""

    all_ready_seconds: float
    applied_seconds: list[float]
    leader_rss_mib: float
    standby_rss_mib: float
    lists_during_changes: int
    operator_cpu_ms_per_change: float


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument(
        "--replicas", type=int, default=4, help="pods a pool (default: %(default)s)"
    )
    parser.add_argument("--changes", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument(
        "--one-at-a-time",
        action="store_true",
        help="let each change's rollout end before the next; else one follows the other at once",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    figures = asyncio.run(
        _measure(args.pools, args.replicas, args.changes, one_at_a_time=args.one_at_a_time)
    )
    print(_table(figures, args.pools, args.replicas))
    if args.json is not None:
        args.json.write_text(json.dumps({k: getattr(figures, k) for k in Figures.__slots__}))


async def _measure(pools: int, replicas: int, changes: int, *, one_at_a_time: bool) -> Figures:
    pods = pools * (replicas + 1)  # a rollout's surge has room
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as state:
        async with (
            Cluster(Path(state), ClusterSettings(nodes=1)) as cluster,
            KubeApi.connect(cluster.kubeconfig) as api,
        ):
            region = Region(cluster, api)
            await region.install()  # before there are nodes that run no processes
            for number in range(4):
                await cluster.add_node(
                    f"many-{number}", gpus=pods // 4 + 1, status_only=True, pods=pods // 4 + 1
                )
            return await _run(region, pools, replicas, changes, one_at_a_time=one_at_a_time)


async def _run(
    region: Region, pools: int, replicas: int, changes: int, *, one_at_a_time: bool
) -> Figures:
    names = [f"pool-{number:03d}" for number in range(pools)]
    await region.api.create(
        NAMESPACES,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": POOLS_NAMESPACE}},
    )
    started_at = time.monotonic()
    for name in names:
        manifest = pool_manifest(
            POOLS_NAMESPACE,
            name,
            replicas=replicas,
            podTemplate={"metadata": {"annotations": {"e2e.heliostat.dev/status-only": "true"}}},
        )
        await region.api.create(INFERENCE_POOLS, manifest, POOLS_NAMESPACE)
    await eventually(lambda: _all_ready(region, pools), "all pools are ready", within_seconds=400)
    all_ready_seconds = time.monotonic() - started_at

    processes = {name: process_of_pod(name, "operator") for name in await _operator_names(region)}
    leader = processes.pop(await region.leader())
    lists, cpu = await _lists(region), _cpu_seconds(leader)
    applied = await _change_pools(region, names, changes, replicas if one_at_a_time else None)
    return Figures(
        all_ready_seconds=all_ready_seconds,
        applied_seconds=applied,
        leader_rss_mib=_rss_mib(leader),
        standby_rss_mib=max(map(_rss_mib, processes.values())),
        lists_during_changes=await _lists(region) - lists,
        operator_cpu_ms_per_change=1000 * (_cpu_seconds(leader) - cpu) / changes,
    )


async def _change_pools(
    region: Region, names: list[str], changes: int, settled: int | None
) -> list[float]:
    """Change a random pool's environment and its budget; time both objects' new versions.

    `settled` is how many replicas must be of the newest spec before the next change, if any.
    """
    chosen = random.Random(1)
    seen = asyncio.Event()
    informers = [
        Informer(
            region.api,
            resource,
            namespace=POOLS_NAMESPACE,
            trim=trim,
            on_change=lambda _key, _old, _new: seen.set(),
        )
        for resource, trim in ((DEPLOYMENTS, _env_of), (POD_DISRUPTION_BUDGETS, _budget_of))
    ]
    watches = [asyncio.create_task(informer.run()) for informer in informers]
    try:
        for informer in informers:
            await informer.synced.wait()
        seconds = []
        for number in range(changes):
            name = chosen.choice(names)
            key, value = f"{POOLS_NAMESPACE}/{name}", f"change-{number}"
            started_at = time.monotonic()
            env = [{"name": _ENGINE_ENV, "value": value}]
            budget = number % 4 + 2
            spec = {"engine": {"env": env}, "disruption": {"maxUnavailable": budget}}
            await region.patch_pool(POOLS_NAMESPACE, name, spec)
            wanted = [value, str(budget)]
            async with asyncio.timeout(30):
                while [informer.items.get(key) for informer in informers] != wanted:
                    seen.clear()
                    await seen.wait()
            seconds.append(time.monotonic() - started_at)
            if settled is not None:
                await region.until_settled(POOLS_NAMESPACE, name, settled)
        return seconds
    finally:
        for watch in watches:
            watch.cancel()


def _env_of(deployment: Json) -> str:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    env = {entry["name"]: entry.get("value", "") for entry in container.get("env", ())}
    return str(env.get(_ENGINE_ENV, ""))


def _budget_of(budget: Json) -> str:
    return str(budget["spec"].get("maxUnavailable"))


async def _all_ready(region: Region, pools: int) -> bool:
    listed = await region.api.list(INFERENCE_POOLS, POOLS_NAMESPACE)
    ready = [
        pool
        for pool in listed.items
        for condition in pool.get("status", {}).get("conditions", ())
        if condition["type"] == "Ready" and condition["reason"] == "AllReady"
    ]
    return len(ready) == pools


async def _operator_names(region: Region) -> list[str]:
    return [pod["metadata"]["name"] for pod in await region.component_pods("operator")]


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def _lists(region: Region) -> int:
    """Count the list requests for the kinds that the operator follows, by whomever they came."""
    metrics = await region.cluster.kubectl("get", "--raw", "/metrics")
    total = 0.0
    for line in metrics.splitlines():
        if line.startswith("apiserver_request_total{") and 'verb="LIST"' in line:
            total += any(f'resource="{it}"' in line for it in _LISTED) * float(line.split()[-1])
    return round(total)


def _table(figures: Figures, pools: int, replicas: int) -> str:
    applied = sorted(figures.applied_seconds)
    p99 = statistics.quantiles(applied, n=100)[98] if len(applied) > 1 else applied[0]
    rows: list[tuple[str, str]] = [
        (
            f"{pools} pools x {replicas} pods, applied to all ready",
            f"{figures.all_ready_seconds:.1f} s",
        ),
        ("a change of one pool -> its objects applied, p50", f"{statistics.median(applied):.3f} s"),
        (f"... p99 of {len(applied)}", f"{p99:.3f} s"),
        ("operator memory, leading", f"{figures.leader_rss_mib:.0f} MiB"),
        ("operator memory, standing by", f"{figures.standby_rss_mib:.0f} MiB"),
        (
            "operator CPU a change, rollout of its pods included",
            f"{figures.operator_cpu_ms_per_change:.0f} ms",
        ),
        ("list requests during all changes", str(figures.lists_during_changes)),
    ]
    return "\n".join(f"{what:<55} {value:>10}" for what, value in rows)


if __name__ == "__main__":
    main()

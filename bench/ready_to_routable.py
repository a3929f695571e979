"""How soon an engine pod that became Ready can be picked: watch, snapshot, and Envoy's word.

On a cluster of local processes with the chart installed, one pool grows by a replica at a time.
Measured from the pod's Ready condition, as a watch tells it, to the router's report that Envoy has
acknowledged the endpoint (phase `ready` in `GET /endpoints`).
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from heliostat_cluster.cluster import Cluster
from heliostat_cluster.region import POOL_LABEL, Region, pool_manifest
from heliostat_kube.api import KubeApi
from heliostat_kube.informer import Informer
from heliostat_kube.resource import PODS, Json

_POLL_SECONDS = 0.005


def main() -> None:
    """Run the benchmark and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=12, help="(default: %(default)s)")
    args = parser.parse_args()
    seconds = asyncio.run(_measure(args.pods))
    print(
        f"pod Ready -> Envoy has the endpoint, {len(seconds)} pods:"
        f" p50 {statistics.median(seconds):.3f} s, max {max(seconds):.3f} s"
    )


async def _measure(pods: int) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as state:
        async with (
            Cluster(Path(state)) as cluster,
            KubeApi.connect(cluster.kubeconfig) as api,
            aiohttp.ClientSession() as session,
        ):
            region = Region(cluster, api)
            await region.install()
            async with region.namespace("bench"):
                return await _grow(region, session, pods)


async def _grow(region: Region, session: aiohttp.ClientSession, pods: int) -> list[float]:
    ready_at: dict[str, float] = {}
    changed = asyncio.Event()

    def on_change(_key: str, _old: Any, address: str | None) -> None:
        if address:
            ready_at.setdefault(address, time.monotonic())
            changed.set()

    informer: Informer[str] = Informer(
        region.api,
        PODS,
        namespace="bench",
        label_selector=POOL_LABEL,
        trim=_ready_address,
        on_change=on_change,
    )
    watch = asyncio.create_task(informer.run())
    [gateway] = await region.component_pods("gateway")
    url = f"http://{gateway['status']['podIP']}:9090/endpoints"
    await region.apply(pool_manifest("bench", "growing", replicas=0))
    seconds = []
    for replicas in range(1, pods + 1):
        changed.clear()
        await region.patch_pool("bench", "growing", {"replicas": replicas})
        async with asyncio.timeout(60):
            await changed.wait()
            address = max(ready_at, key=ready_at.__getitem__)
            while not await _is_routable(session, url, address):  # noqa: ASYNC110 - a report is polled
                await asyncio.sleep(_POLL_SECONDS)
        seconds.append(time.monotonic() - ready_at[address])
    watch.cancel()
    return seconds


def _ready_address(pod: Json) -> str:
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)
    return f"{pod['status']['podIP']}:8000" if ready else ""


async def _is_routable(session: aiohttp.ClientSession, url: str, address: str) -> bool:
    async with session.get(url) as response:
        found = (await response.json())["endpoints"].get(address)
    return found is not None and found["phase"] == "ready"


if __name__ == "__main__":
    main()

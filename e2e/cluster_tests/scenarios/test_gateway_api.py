"""Pools of the Gateway API: ours are exported, and foreign ones that name our router are served."""

import asyncio
from typing import Any

import pytest
import yaml

from heliostat_cluster.gateway_api import inference_pool_definition
from heliostat_cluster.region import (
    RELEASE,
    Region,
    eventually,
    foreign_engines,
    pool_manifest,
)
from heliostat_kube.resource import UPSTREAM_INFERENCE_POOLS

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICKER = f"{RELEASE}-picker"


async def test_pools_are_exported_and_foreign_ones_served(region: Region, namespace: str) -> None:
    """A pool shows as an upstream one with our router as its picker, and stays one pool; an
    upstream pool that names our router is served under its own name."""
    definition = await asyncio.to_thread(inference_pool_definition)
    await region.cluster.kubectl("apply", "--server-side", "-f", str(definition))
    await region.apply(pool_manifest(namespace, "exported"))
    await region.until_settled(namespace, "exported", 1)
    spec = (await _upstream_pool(region, namespace, "exported"))["spec"]
    assert spec["selector"]["matchLabels"] == {"heliostat.dev/pool": "exported"}
    assert [port["number"] for port in spec["targetPorts"]] == [8000]
    assert spec["endpointPickerRef"]["kind"] == "Service"

    await region.apply(foreign_engines(namespace, "theirs", replicas=1))
    await region.apply(upstream_pool(namespace, "theirs", {"app": "engines"}))
    await region.until_served("theirs")
    await region.until_served("exported")
    assert (await region.models()).count("exported") == 1
    await region.cluster.kubectl("delete", "hpool", "exported", "-n", namespace)

    async def taken_back() -> bool:
        found = await region.api.get(UPSTREAM_INFERENCE_POOLS, "exported", namespace)
        return found is None

    await eventually(taken_back, "the export goes with its pool")
    assert await region.api.get(UPSTREAM_INFERENCE_POOLS, "theirs", namespace) is not None


async def _upstream_pool(region: Region, namespace: str, name: str) -> Any:
    async def exported() -> Any:
        return await region.api.get(UPSTREAM_INFERENCE_POOLS, name, namespace)

    return await eventually(exported, "the pool is exported")


def upstream_pool(namespace: str, name: str, labels: dict[str, str]) -> Any:
    """Give a pool of the Gateway API whose endpoints our router picks."""
    return yaml.safe_load(f"""
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {labels}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: {PICKER}, port: {{number: 9002}}}}
""")

"""One installed region for all scenarios; each scenario has a namespace of its own."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from heliostat_cluster.cluster import ClusterProvider
from heliostat_cluster.region import Region
from heliostat_kube.api import KubeApi


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def region(cluster: ClusterProvider) -> AsyncIterator[Region]:
    """Give the cluster with the chart installed and its gateway within reach."""
    async with KubeApi.connect(cluster.kubeconfig) as api:
        region = Region(cluster, api)
        await region.install()
        async with region.proxied_gateway():
            yield region


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(region: Region, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Give a namespace named after the scenario, deleted when it ends."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    async with region.namespace(name[:50].strip("-")) as name:
        yield name

"""The cluster that all scenarios share: our own, or kind's (E2E_CLUSTER=kind)."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from heliostat_cluster.cluster import Cluster, ClusterProvider
from heliostat_cluster.kind import KindCluster, is_wanted


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster() -> AsyncIterator[ClusterProvider]:
    """Return a running cluster of two nodes with eight GPUs each; E2E_STATE keeps its logs."""
    if is_wanted():
        async with KindCluster() as kind:
            yield kind
        return
    kept = os.environ.get("E2E_STATE")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    state = Path(kept, worker) if kept else Path(tempfile.mkdtemp(prefix="heliostat-e2e-"))
    async with Cluster(state) as running:
        yield running
    if not kept:
        shutil.rmtree(state, ignore_errors=True)

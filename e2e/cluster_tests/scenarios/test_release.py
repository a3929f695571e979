"""The release itself: upgraded under load, uninstalled, installed anew; nothing wedges."""

import pytest

from heliostat_cluster.region import NAMESPACE, Region, eventually, pool_manifest
from heliostat_kube.resource import INFERENCE_POOLS

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_upgrade_under_load_loses_nothing(region: Region, namespace: str) -> None:
    """A value that replaces the gateway's and the operator's pods costs no request."""
    await region.apply(pool_manifest(namespace, "upgraded", replicas=2))
    await region.until_settled(namespace, "upgraded", 2)
    await region.until_served("upgraded")
    before = {pod["metadata"]["uid"] for pod in await region.component_pods("gateway")}
    async with region.traffic("upgraded", clients=8) as traffic:
        await traffic.answered(8)
        await region.install("--set", "log.level=debug")

        async def replaced() -> bool:
            pods = await region.component_pods("gateway")
            return len(pods) == 1 and not {p["metadata"]["uid"] for p in pods} & before

        await eventually(replaced, "the gateway's pod is replaced", within_seconds=90)
        await traffic.answered(8)
        await region.install()
        await traffic.answered(8)
    traffic.expect_no_failures()


async def test_uninstall_leaves_pools_and_engines_alone(region: Region, namespace: str) -> None:
    """Without the release the CRDs, pools and engine pods stay; a new install takes them over."""
    await region.apply(pool_manifest(namespace, "survivor"))
    await region.until_settled(namespace, "survivor", 1)
    uids = {pod["metadata"]["uid"] for pod in await region.pods(namespace, "survivor")}
    await region.uninstall()
    try:
        await eventually(lambda: _nothing_is_left(region), "the release's namespace is empty")
        assert await region.api.get(INFERENCE_POOLS, "survivor", namespace) is not None
        assert {pod["metadata"]["uid"] for pod in await region.pods(namespace, "survivor")} == uids
        async with region.namespace("orphaned") as orphaned:
            await region.apply(pool_manifest(orphaned, "ownerless"))
        await region.until_gone("orphaned")
    finally:
        await region.install()
    await region.until_served("survivor")
    assert {pod["metadata"]["uid"] for pod in await region.pods(namespace, "survivor")} == uids


async def _nothing_is_left(region: Region) -> bool:
    """Whether the release has left nothing but what every namespace has."""
    left = await region.cluster.kubectl(
        "get", "all,sa,role,rolebinding,cm,secret,lease,pdb,netpol", "-n", NAMESPACE, "-o", "name"
    )
    cluster_wide = await region.cluster.kubectl(
        "get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/name=heliostat",
        "-o", "name",
    )  # fmt: skip
    return not cluster_wide.split() and set(left.split()) == {
        "serviceaccount/default",
        "configmap/kube-root-ca.crt",
    }

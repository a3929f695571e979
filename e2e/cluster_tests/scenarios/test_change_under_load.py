"""Rollouts and scaling while clients stream: nothing that was accepted is lost."""

import pytest

from heliostat_cluster.region import Region, pool_manifest

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = "vllm/vllm-openai"


async def test_a_new_image_rolls_out_without_a_failed_request(
    region: Region, namespace: str
) -> None:
    """Surge: every replica is replaced under load, and every stream runs to its end."""
    await region.apply(pool_manifest(namespace, "rolled", replicas=3))
    await region.until_settled(namespace, "rolled", 3)
    await region.until_served("rolled")
    async with region.traffic("rolled", clients=12) as traffic:
        await traffic.answered(12)
        await region.patch_pool(namespace, "rolled", {"engine": {"image": f"{IMAGE}:v2"}})
        await region.until_settled(namespace, "rolled", 3, within_seconds=120)
        await traffic.answered(12)
    traffic.expect_no_failures()
    images = {p["spec"]["containers"][0]["image"] for p in await region.pods(namespace, "rolled")}
    assert images == {f"{IMAGE}:v2"}


async def test_a_spec_that_cannot_start_takes_no_capacity_away(
    region: Region, namespace: str
) -> None:
    """Surge: an image that is missing or exits while loading leaves every ready replica serving."""
    await region.apply(pool_manifest(namespace, "kept", replicas=2))
    await region.until_settled(namespace, "kept", 2)
    await region.until_served("kept")
    async with region.traffic("kept", clients=6) as traffic:
        for tag, reason in (("missing", "ImagePullFailed"), ("broken", "ModelLoadFailed")):
            await region.patch_pool(namespace, "kept", {"engine": {"image": f"{IMAGE}:{tag}"}})
            await region.until_condition(namespace, "kept", "Degraded", reason)
            conditions = await region.conditions(namespace, "kept")
            assert conditions["Ready"]["status"] == "True", conditions
            await traffic.answered(6)
        await region.patch_pool(namespace, "kept", {"engine": {"image": f"{IMAGE}:good"}})
        await region.until_settled(namespace, "kept", 2, within_seconds=120)
        await region.until_condition(namespace, "kept", "Degraded", "AsExpected")
    traffic.expect_no_failures()


async def test_a_full_cluster_is_told_and_replace_gets_through(
    region: Region, namespace: str
) -> None:
    """Surge without a spare GPU keeps what serves and says so; Replace needs none."""
    manifest = pool_manifest(namespace, "full", replicas=2, accelerator={"count": 8})
    await region.apply(manifest)
    await region.until_settled(namespace, "full", 2)
    await region.patch_pool(namespace, "full", {"engine": {"image": f"{IMAGE}:v2"}})
    await region.until_condition(
        namespace, "full", "Degraded", "InsufficientCapacity", within_seconds=30
    )
    conditions = await region.conditions(namespace, "full")
    assert conditions["Ready"]["status"] == "True", conditions
    await region.patch_pool(namespace, "full", {"rollout": {"strategy": "Replace"}})
    await region.until_settled(namespace, "full", 2, within_seconds=120)


async def test_replace_needs_no_spare_gpu_and_stops_at_the_first_failure(
    region: Region, namespace: str
) -> None:
    """Replace: one replica at a time, within the GPUs there are; a bad spec costs one of them."""
    manifest = pool_manifest(namespace, "replaced", replicas=2, rollout={"strategy": "Replace"})
    await region.apply(manifest)
    await region.until_settled(namespace, "replaced", 2)
    await region.until_served("replaced")
    async with region.traffic("replaced", clients=4) as traffic:
        await traffic.answered(4)
        await region.patch_pool(namespace, "replaced", {"engine": {"image": f"{IMAGE}:v2"}})
        await region.until_settled(namespace, "replaced", 2, within_seconds=120)
        await region.patch_pool(namespace, "replaced", {"engine": {"image": f"{IMAGE}:broken"}})
        await region.until_condition(namespace, "replaced", "Degraded", "ModelLoadFailed")
        ready = [pod for pod in await region.pods(namespace, "replaced") if is_ready(pod)]
        assert len(ready) == 1
        await traffic.answered(4)
    traffic.expect_no_failures()


async def test_scaling_from_eight_to_two_loses_nothing(region: Region, namespace: str) -> None:
    """Six of eight replicas leave under load, drained first, and every stream runs to its end."""
    await region.apply(pool_manifest(namespace, "shrunk", replicas=8))
    await region.until_settled(namespace, "shrunk", 8, within_seconds=120)
    await region.until_served("shrunk")
    async with region.traffic("shrunk", clients=16) as traffic:
        await traffic.answered(16)
        await region.cluster.kubectl("scale", "hpool", "shrunk", "--replicas=2", "-n", namespace)
        await region.until_settled(namespace, "shrunk", 2, within_seconds=120)
        await traffic.answered(8)
    traffic.expect_no_failures()


async def test_an_evicted_pod_finishes_its_requests(region: Region, namespace: str) -> None:
    """What `kubectl drain` does to an engine pod loses no request, and a pod takes its place."""
    await region.apply(pool_manifest(namespace, "evicted", replicas=2))
    await region.until_settled(namespace, "evicted", 2)
    await region.until_served("evicted")
    async with region.traffic("evicted", clients=8) as traffic:
        await traffic.answered(8)
        victim = (await region.pods(namespace, "evicted"))[0]["metadata"]["name"]
        await region.evict(namespace, victim)
        await region.until_pod_gone(namespace, victim)
        await region.until_settled(namespace, "evicted", 2)
        await traffic.answered(8)
    traffic.expect_no_failures()


def is_ready(pod: dict[str, object]) -> bool:
    """Whether the pod's Ready condition is true and it does not leave."""
    conditions = pod.get("status", {}).get("conditions", ())  # type: ignore[attr-defined]
    leaving = "deletionTimestamp" in pod["metadata"]  # type: ignore[operator]
    return not leaving and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

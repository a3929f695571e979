"""Nodes, engines, the API server and the operator fail; what serves goes on serving."""

import random

import pytest

from heliostat_cluster.region import Region, eventually, pool_manifest
from heliostat_cluster.traffic import Traffic

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = "vllm/vllm-openai"


async def test_a_lack_of_gpus_is_told_at_once(region: Region, namespace: str) -> None:
    """Replicas beyond the GPUs there are make InsufficientCapacity within 30 s; the rest serve."""
    await region.apply(pool_manifest(namespace, "greedy", replicas=2, accelerator={"count": 8}))
    await region.until_served("greedy", within_seconds=60)
    await region.patch_pool(namespace, "greedy", {"replicas": 9})
    condition = await region.until_condition(
        namespace, "greedy", "Ready", "InsufficientCapacity", within_seconds=30
    )
    assert condition["status"] == "False"
    await region.until_served("greedy")


async def test_a_crash_while_loading_is_told_from_slow_loading(
    region: Region, namespace: str
) -> None:
    """An engine that exits while loading is ModelLoadFailed; one that loads long is Loading."""
    await region.apply(pool_manifest(namespace, "crashing", engine={"image": f"{IMAGE}:broken"}))
    slow = {"env": [{"name": "HELIOSTAT_E2E_LOAD_SECONDS", "value": "600"}]}
    await region.apply(pool_manifest(namespace, "slow", engine=slow))
    await region.until_condition(namespace, "crashing", "Ready", "ModelLoadFailed")
    await region.until_condition(namespace, "slow", "Ready", "Loading")


async def test_a_lost_node_costs_its_pods_only(region: Region, namespace: str) -> None:
    """A node that vanishes is routed around, and its pods are replaced elsewhere."""
    await region.apply(pool_manifest(namespace, "spread", replicas=2, accelerator={"count": 1}))
    await region.until_settled(namespace, "spread", 2)
    name = await region.cluster.add_node("doomed", gpus=1)  # last: its one GPU is for the other
    await region.apply(
        pool_manifest(
            namespace, "lost", placement={"nodeSelector": {"kubernetes.io/hostname": name}}
        )
    )
    await region.until_settled(namespace, "lost", 1)
    await region.until_served("lost")
    await region.cluster.fail_node(name)
    condition = await region.until_condition(
        namespace, "lost", "Ready", "PodsNotReady", "InsufficientCapacity", within_seconds=60
    )
    assert condition["status"] == "False"
    async with region.traffic("spread", clients=4) as traffic:
        await traffic.answered(8)
    traffic.expect_no_failures()
    await region.cluster.recover_node(name)
    await region.until_condition(namespace, "lost", "Ready", "AllReady", within_seconds=90)
    await region.until_served("lost")
    await region.cluster.remove_node(name)


async def test_an_api_server_away_for_a_minute_costs_no_request(
    region: Region, namespace: str
) -> None:
    """Routing goes on with the last good view, and changes are taken up when it is back."""
    await region.apply(pool_manifest(namespace, "steady", replicas=2))
    await region.until_settled(namespace, "steady", 2)
    await region.until_served("steady")
    async with region.traffic("steady", clients=8) as traffic:
        await traffic.answered(8)
        async with region.cluster.api_server_away():
            await traffic.keeps_answering(seconds=60)
        await region.patch_pool(namespace, "steady", {"replicas": 3})
        await region.until_settled(namespace, "steady", 3, within_seconds=90)
        await traffic.answered(8)
    traffic.expect_no_failures()


async def test_the_leaders_death_costs_less_than_twenty_seconds(
    region: Region, namespace: str
) -> None:
    """The other operator takes over, and a pool applied meanwhile is reconciled within 20 s."""
    holder = await region.lease_holder()
    await region.kill_leader()
    await region.apply(pool_manifest(namespace, "orphan"))

    async def made() -> bool:
        return bool(await region.pods(namespace, "orphan"))

    await eventually(made, "the pool's pods are there", within_seconds=20)
    assert await region.lease_holder() != holder


async def test_an_operator_killed_anywhere_leaves_the_same_state(
    region: Region, namespace: str
) -> None:
    """Scaling and rollouts under load end as asked for, wherever their operator dies."""
    moments = random.Random(7)  # the same moments each run, relative to each change
    await region.apply(pool_manifest(namespace, "hardy", replicas=3))
    await region.until_settled(namespace, "hardy", 3)
    await region.until_served("hardy")
    async with region.traffic("hardy", clients=6) as traffic:
        await traffic.answered(6)
        for change, replicas in (
            ({"replicas": 1}, 1),
            ({"replicas": 2, "engine": {"image": f"{IMAGE}:v2"}}, 2),
        ):
            await region.patch_pool(namespace, "hardy", change)
            await _kill_after_answers(region, traffic, moments.randrange(1, 12))
            await region.until_settled(namespace, "hardy", replicas, within_seconds=120)
        await traffic.answered(6)
    traffic.expect_no_failures()


async def _kill_after_answers(region: Region, traffic: Traffic, answers: int) -> None:
    await traffic.answered(answers)
    await region.kill_leader()

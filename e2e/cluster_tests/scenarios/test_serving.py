"""A user's first hour: a pool, a request, more replicas, more models, adapters, foreign pods."""

import json

import pytest

from heliostat_cluster.region import Region, eventually, foreign_engines, pool_manifest
from heliostat_kube.resource import DEPLOYMENTS, INFERENCE_POOLS, SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_applied_pool_becomes_ready_and_is_served(region: Region, namespace: str) -> None:
    """Apply one manifest, and its model answers through Envoy; `kubectl get hpool` tells so."""
    await region.apply(pool_manifest(namespace, "first"))
    await region.until_condition(namespace, "first", "Ready", "AllReady")
    assert "completion" in await region.until_served("first")
    assert "first" in await region.models()
    shown = await region.cluster.kubectl("get", "hpool", "-n", namespace)
    assert "AllReady" in shown
    assert "1 of 1" in shown


async def test_kubectl_scales_and_explains(region: Region, namespace: str) -> None:
    """`kubectl scale hpool` adds replicas and takes them away; `kubectl explain` explains."""
    await region.apply(pool_manifest(namespace, "scaled"))
    await region.until_settled(namespace, "scaled", 1)
    for replicas in (3, 0, 1):
        await region.cluster.kubectl(
            "scale", "hpool", "scaled", f"--replicas={replicas}", "-n", namespace
        )
        await region.until_settled(namespace, "scaled", replicas)
    explained = await region.cluster.kubectl("explain", "hpool.spec.rollout.strategy")
    assert "Surge" in explained


async def test_a_pool_scaled_to_zero_is_told_and_answered(region: Region, namespace: str) -> None:
    """A pool without replicas is ScaledToZero, and its clients are told that nobody serves."""
    await region.apply(pool_manifest(namespace, "empty", replicas=0))
    await region.until_condition(namespace, "empty", "Ready", "ScaledToZero")

    async def refused() -> bool:
        return (await region.ask("empty"))[0] == 503

    await eventually(refused, "503 for a pool without endpoints")


async def test_two_models_are_served_side_by_side(region: Region, namespace: str) -> None:
    """Each model is answered by its own pool's engines."""
    for name in ("alpha", "beta"):
        await region.apply(pool_manifest(namespace, name))
    for name in ("alpha", "beta"):
        await region.until_settled(namespace, name, 1)
        assert json.loads(await region.until_served(name))["model"] == name


async def test_two_pools_of_one_model_serve_it_together(region: Region, namespace: str) -> None:
    """Both pools' engines take a share; when one pool is deleted the other goes on."""
    shared = {"name": "shared-model"}
    for name in ("older", "newer"):
        await region.apply(pool_manifest(namespace, name, model=shared))
        await region.until_settled(namespace, name, 1)
    await region.until_served("shared-model")
    async with region.traffic("shared-model", clients=8) as traffic:
        await traffic.answered(20)
        await eventually(lambda: _both_have_served(region, namespace), "both pools serve")
        await region.cluster.kubectl("delete", "hpool", "older", "-n", namespace, "--wait=false")
        await _until_no_pods(region, namespace, "older")
        await traffic.answered(20)
    traffic.expect_no_failures()


async def test_an_adapter_comes_and_goes_without_a_restart(region: Region, namespace: str) -> None:
    """An adapter added to the spec is served, one taken away is not; no pod is replaced."""
    adapters = [{"name": "base-lora", "uri": "/adapters/base"}]
    await region.apply(pool_manifest(namespace, "lora", engine={"adapters": adapters}))
    await region.until_settled(namespace, "lora", 1)
    await region.until_served("base-lora")
    before = {pod["metadata"]["uid"] for pod in await region.pods(namespace, "lora")}

    adapters.append({"name": "second-lora", "uri": "/adapters/second"})
    await region.patch_pool(namespace, "lora", {"engine": {"adapters": adapters}})
    await region.until_served("second-lora")
    await region.patch_pool(namespace, "lora", {"engine": {"adapters": adapters[:1]}})

    async def gone() -> bool:
        return (await region.ask("second-lora"))[0] == 404

    await eventually(gone, "404 for the adapter that was taken away")
    await region.until_served("base-lora")
    assert {pod["metadata"]["uid"] for pod in await region.pods(namespace, "lora")} == before


async def test_foreign_edits_are_repaired(region: Region, namespace: str) -> None:
    """What someone changes or deletes of a pool's objects comes back."""
    await region.apply(pool_manifest(namespace, "edited"))
    await region.until_settled(namespace, "edited", 1)
    [engine] = (await region.deployment(namespace, "edited"))["spec"]["template"]["spec"][
        "containers"
    ]
    edit = region.cluster.kubectl
    await edit("set", "image", "deploy/edited", "engine=vllm/vllm-openai:foreign", "-n", namespace)
    await edit("scale", "deploy/edited", "--replicas=3", "-n", namespace)
    await region.api.delete(SERVICES, "edited", namespace)

    async def repaired() -> bool:
        spec = (await region.deployment(namespace, "edited"))["spec"]
        service = await region.api.get(SERVICES, "edited", namespace)
        containers = spec["template"]["spec"]["containers"]
        return (
            service is not None
            and "deletionTimestamp" not in service["metadata"]
            and spec["replicas"] == 1
            and containers[0]["image"] == engine["image"]
        )

    await eventually(repaired, "the Deployment and the Service are as the pool says")
    await region.until_settled(namespace, "edited", 1)


async def test_a_selector_adopts_pods_that_exist(region: Region, namespace: str) -> None:
    """A pool that is only a selector serves somebody else's pods, and makes none."""
    await region.apply(foreign_engines(namespace, "adopted", replicas=2))
    await region.apply(
        pool_manifest(namespace, "adopted", selector={"matchLabels": {"app": "engines"}})
    )
    await region.until_condition(namespace, "adopted", "Ready", "AllReady")
    await region.until_served("adopted")
    assert await region.api.get(DEPLOYMENTS, "adopted", namespace) is None
    await region.cluster.kubectl("delete", "hpool", "adopted", "-n", namespace)
    assert len(await region.pods(namespace)) == 2


async def test_deleting_a_pool_deletes_its_pods(region: Region, namespace: str) -> None:
    """All that was made for a pool goes with it, and its model is no longer listed."""
    await region.apply(pool_manifest(namespace, "deleted"))
    await region.until_settled(namespace, "deleted", 1)
    await region.until_served("deleted")
    await region.cluster.kubectl("delete", "hpool", "deleted", "-n", namespace)

    async def gone() -> bool:
        left = await region.cluster.kubectl(
            "get", "deploy,rs,svc,pdb,pods", "-n", namespace, "-l", "heliostat.dev/pool=deleted",
            "-o", "name",
        )  # fmt: skip
        return not left.strip() and (await region.ask("deleted"))[0] == 404

    await eventually(gone, "everything of the pool is gone")
    assert await region.api.get(INFERENCE_POOLS, "deleted", namespace) is None


async def _both_have_served(region: Region, namespace: str) -> bool:
    pods = [pod for name in ("older", "newer") for pod in await region.pods(namespace, name)]
    served = [await region.served_requests(pod) for pod in pods]
    return len(served) == 2 and all(served)


async def _until_no_pods(region: Region, namespace: str, pool: str) -> None:
    async def none() -> bool:
        return not await region.pods(namespace, pool)

    await eventually(none, f"no pods of {pool}")

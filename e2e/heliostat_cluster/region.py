"""One installed Heliostat, handled as its user would: helm, manifests, requests, conditions."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from heliostat_cluster.cluster import ClusterProvider
from heliostat_cluster.service_proxy import ServiceProxy
from heliostat_cluster.traffic import Traffic
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import UnavailableError
from heliostat_kube.resource import (
    DEPLOYMENTS,
    INFERENCE_POOLS,
    LEASES,
    NAMESPACES,
    PODS,
    Json,
)

RELEASE = "heliostat"
NAMESPACE = "heliostat-system"
CHART = Path(__file__).parents[2] / "charts" / "heliostat"
POOL_LABEL = "heliostat.dev/pool"
_POLL_SECONDS = 0.1
_ASK_SECONDS = 10.0


class NotYetError(AssertionError):
    """A condition did not become true in time."""


async def eventually(
    probe: Callable[[], Awaitable[Any]], what: str, *, within_seconds: float = 60.0
) -> Any:
    """Ask until the answer is true, and give it; NotYetError tells the last answer."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer: Any = None
        with contextlib.suppress(UnavailableError, aiohttp.ClientError, TimeoutError):
            answer = await probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise NotYetError(f"not within {within_seconds:.0f} s: {what}")
        await asyncio.sleep(_POLL_SECONDS)


def pool_manifest(namespace: str, name: str, **spec: Any) -> Json:
    """Give a small managed pool that serves the model of its own name."""
    spec = {"model": {"name": name}, **spec}
    return {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def foreign_engines(namespace: str, model: str, *, replicas: int) -> Json:
    """Give a Deployment of engines that Heliostat does not manage, labelled `app: engines`."""
    labels = {"app": "engines"}
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:latest",
        "args": ["--model", model, "--port", "8000"],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "engines", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


class Region:
    """A cluster with the chart installed. `api` has an administrator's rights.

    home -- the namespace of the release
    """

    def __init__(self, cluster: ClusterProvider, api: KubeApi, home: str = NAMESPACE) -> None:
        self.cluster = cluster
        self.api = api
        self.home = home
        self._gateway: str | None = None

    @property
    def url(self) -> str:
        """Where clients find the gateway."""
        if self._gateway is None:
            raise RuntimeError("the gateway's Service is not proxied")
        return f"http://{self._gateway}"

    async def install(self, *options: str) -> None:
        """Install the chart with further helm options, or upgrade to them; waits until it is up."""
        await self.cluster.helm(
            "upgrade", "--install", RELEASE, str(CHART), "--namespace", self.home,
            "--create-namespace", "--wait", "--timeout", "120s", *options,
        )  # fmt: skip

    async def uninstall(self) -> None:
        """Uninstall the release and wait until its pods are gone."""
        await self.cluster.helm("uninstall", RELEASE, "--namespace", self.home, "--wait")

    @asynccontextmanager
    async def proxied_gateway(self, gateways: int = 1) -> AsyncIterator[None]:
        """Reach the Service of so many gateway pods as a client in the cluster would."""
        proxy = ServiceProxy(self.api, self.home, f"{RELEASE}-gateway", "http")
        async with proxy.serve() as address:
            self._gateway = address
            try:
                await proxy.wait_for_endpoints(gateways)
                yield
            finally:
                self._gateway = None

    @asynccontextmanager
    async def namespace(self, name: str, *, wait_gone: bool = False) -> AsyncIterator[str]:
        """Make a namespace for one scenario, deleted at its end with all that is in it."""
        await self.api.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
        try:
            yield name
        finally:
            await self.api.delete(NAMESPACES, name)
            if wait_gone:
                await self.until_gone(name)

    async def until_gone(self, namespace: str, *, within_seconds: float = 60.0) -> None:
        """Wait until the namespace is deleted."""

        async def gone() -> bool:
            return await self.api.get(NAMESPACES, namespace) is None

        await eventually(gone, f"{namespace} is gone", within_seconds=within_seconds)

    async def apply(self, manifest: Json) -> None:
        """Apply a manifest with kubectl."""
        await self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    async def patch_pool(self, namespace: str, name: str, spec: Mapping[str, Any]) -> None:
        """Merge a change into the pool's spec."""
        await self.api.merge_patch(INFERENCE_POOLS, name, {"spec": spec}, namespace)

    async def conditions(self, namespace: str, name: str) -> dict[str, Json]:
        """Give the pool's conditions by type; none while they tell of an older spec."""
        pool = await self.api.get(INFERENCE_POOLS, name, namespace)
        if pool is None:
            return {}
        status = pool.get("status", {})
        if status.get("observedGeneration") != pool["metadata"]["generation"]:
            return {}
        return {condition["type"]: condition for condition in status.get("conditions", ())}

    async def until_condition(
        self,
        namespace: str,
        name: str,
        kind: str,
        *reasons: str,
        within_seconds: float = 60.0,
    ) -> Json:
        """Wait until the pool's condition has one of these reasons."""
        last: dict[str, Json] = {}

        async def reached() -> Json | None:
            nonlocal last
            last = await self.conditions(namespace, name)
            found = last.get(kind)
            return found if found is not None and found["reason"] in reasons else None

        try:
            condition: Json = await eventually(reached, kind, within_seconds=within_seconds)
        except NotYetError:
            told = {k: (c["reason"], c["message"]) for k, c in last.items()}
            raise NotYetError(
                f"{namespace}/{name}: {kind} not {reasons} in {within_seconds:.0f} s: {told}"
            ) from None
        return condition

    async def until_settled(
        self, namespace: str, name: str, ready: int, *, within_seconds: float = 90.0
    ) -> None:
        """Wait until exactly so many replicas are there, ready and of the newest spec."""
        last: Json = {}

        async def settled() -> bool:
            nonlocal last
            pool = await self.api.get(INFERENCE_POOLS, name, namespace) or {}
            last = status = pool.get("status", {})
            pods = await self.pods(namespace, name)
            counts = [status.get(k, 0) for k in ("replicas", "readyReplicas", "updatedReplicas")]
            fresh = status.get("observedGeneration") == pool["metadata"]["generation"]
            return fresh and counts == [ready] * 3 and len(pods) == ready

        try:
            await eventually(settled, "settled", within_seconds=within_seconds)
        except NotYetError:
            raise NotYetError(
                f"{namespace}/{name}: no {ready} replicas in {within_seconds:.0f} s: {last}"
            ) from None

    async def pods(self, namespace: str, pool: str | None = None) -> list[Json]:
        """List a pool's pods, leaving ones too; without pool, all of the namespace."""
        selector = None if pool is None else f"{POOL_LABEL}={pool}"
        return list((await self.api.list(PODS, namespace, label_selector=selector)).items)

    async def evict(self, namespace: str, pod: str) -> None:
        """Ask for the pod's eviction, as `kubectl drain` does, until the budget allows it."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        await self.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    async def until_pod_gone(
        self, namespace: str, pod: str, *, within_seconds: float = 60.0
    ) -> None:
        """Wait until the pod is deleted."""

        async def gone() -> bool:
            return await self.api.get(PODS, pod, namespace) is None

        await eventually(gone, f"pod {pod} is gone", within_seconds=within_seconds)

    async def served_requests(self, pod: Json) -> int:
        """Ask the pod's engine how many requests it has finished."""
        url = f"http://{pod['status']['podIP']}:8000/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            lines = (await response.text()).splitlines()
        finished = (line for line in lines if line.startswith("vllm:request_success_total{"))
        return round(sum(float(line.rsplit(" ", 1)[1]) for line in finished))

    async def component_pods(self, component: str) -> list[Json]:
        """List the release's pods of a component, such as `operator` or `gateway`."""
        selector = f"app.kubernetes.io/component={component}"
        return list((await self.api.list(PODS, self.home, label_selector=selector)).items)

    async def lease_holder(self) -> str:
        """Give the identity in the operator's Lease; empty where nobody leads."""
        lease = await self.api.get(LEASES, "heliostat-operator", self.home) or {}
        return lease.get("spec", {}).get("holderIdentity") or ""

    async def leader(self) -> str:
        """Wait until an operator holds the Lease and is there; gives its pod's name."""

        async def holder() -> str | None:
            identity = await self.lease_holder()
            names = {pod["metadata"]["name"] for pod in await self.component_pods("operator")}
            return next((name for name in names if identity.startswith(name)), None)

        name: str = await eventually(holder, "an operator leads", within_seconds=40)
        return name

    async def kill_leader(self) -> str:
        """Kill the leading operator, which keeps its Lease; gives its pod's name."""
        name = await self.leader()
        await self.cluster.kill(name, "operator")
        return name

    async def deployment(self, namespace: str, name: str) -> Json:
        """Read a Deployment that exists."""
        found = await self.api.get(DEPLOYMENTS, name, namespace)
        assert found is not None, f"no Deployment {namespace}/{name}"
        return found

    def traffic(self, model: str, **options: Any) -> Traffic:
        """Make clients of this model."""
        return Traffic(self.url, model, **options)

    async def until_served(self, model: str, *, within_seconds: float = 30.0) -> str:
        """Ask until the gateway answers with this model; gives the answer's text."""
        last = ""

        async def served() -> str | None:
            nonlocal last
            status, answer = await self.ask(model)
            last = f"{status}: {answer}"
            return answer if status == 200 else None

        try:
            text: str = await eventually(served, model, within_seconds=within_seconds)
        except NotYetError:
            raise NotYetError(f'model "{model}" is not served: {last[:300]}') from None
        return text

    async def ask(self, model: str) -> tuple[int, str]:
        """Ask once, without streaming; gives the status and the body."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": 4,
        }
        timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{self.url}/v1/chat/completions", json=body) as response,
        ):
            return response.status, await response.text()

    async def models(self) -> list[str]:
        """List the models that the gateway serves."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/v1/models") as response,
        ):
            answer = await response.json()
        return [model["id"] for model in answer["data"]]

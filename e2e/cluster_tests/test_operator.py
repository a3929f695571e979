"""The operator as a process against a real control plane, without nodes: what it keeps and how."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from heliostat_cluster.child_process import ChildProcess
from heliostat_cluster.control_plane import ControlPlane, ControlPlaneSettings, open_control_plane
from heliostat_cluster.images.wheel import CHECKOUT
from heliostat_cluster.tools import build_tools
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import KubeError
from heliostat_kube.resource import (
    DEPLOYMENTS,
    INFERENCE_POOLS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    SERVICES,
    Json,
    Resource,
)

ADDRESS = "127.0.0.53"
TAKEOVER_SECONDS = 20.0
MADE = (DEPLOYMENTS, SERVICES, POD_DISRUPTION_BUDGETS)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def eventually(
    condition: Callable[[], Awaitable[object]], what: str, within_seconds: float = 15.0
) -> None:
    """Wait for a condition; an API server that is away makes it false."""
    started = time.monotonic()
    while True:
        try:
            if await condition():
                return
        except KubeError:
            pass
        assert time.monotonic() - started < within_seconds, f"never became true: {what}"
        await asyncio.sleep(0.05)


@dataclass
class Replica:
    """One operator process."""

    process: ChildProcess

    async def metric(self, pattern: str) -> float:
        """Sum the metrics whose line begins with a pattern; 0 while it does not answer."""
        port = re.search(r'"port": (\d+), "event": "serving-health"', self._log())
        if port is None:
            return 0.0
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port[1]}/metrics") as response,
            ):
                text = await response.text()
        except aiohttp.ClientError:
            return 0.0
        lines = [line for line in text.splitlines() if re.match(pattern, line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def _log(self) -> str:
        return self.process.log.read_text() if self.process.log.exists() else ""

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)

    async def leads(self) -> bool:
        """Whether this one leads."""
        return await self.metric(r"heliostat_operator_leader ") == 1.0


class Operators:
    """Starts operators, and reads and changes the cluster they work on."""

    def __init__(self, plane: ControlPlane, api: KubeApi, state: Path) -> None:
        self.plane = plane
        self.api = api
        self._state = state
        self._started = 0

    @asynccontextmanager
    async def running(self, count: int = 1) -> AsyncIterator[list[Replica]]:
        """Run replicas until the block ends; one leads when it begins."""
        async with AsyncExitStack() as stack:
            replicas = [self._start() for _ in range(count)]
            for replica in replicas:
                stack.push_async_callback(replica.process.stop)

            async def one_leads() -> bool:
                return any([await replica.leads() for replica in replicas])

            await eventually(one_leads, "an operator leads", 30)
            yield replicas

    def _start(self) -> Replica:
        self._started += 1
        name = f"operator-{self._started}"
        command = [Path(sys.executable).with_name("heliostat"), "operator", "--health-port=0"]
        process = ChildProcess(
            name,
            [*command, "--log-format=json", "--own-namespace=default"],
            self._state / f"{name}.log",
            {**os.environ, "KUBECONFIG": str(self.plane.access.kubeconfig), "HOSTNAME": name},
        )
        process.start()
        return Replica(process)

    async def create_pool(self, namespace: str, name: str, **spec: Any) -> None:
        pool = {
            "apiVersion": INFERENCE_POOLS.api_version,
            "kind": INFERENCE_POOLS.kind,
            "metadata": {"name": name},
            "spec": {"model": {"name": name}, **spec},
        }
        await self.api.create(INFERENCE_POOLS, pool, namespace)

    async def reason(self, namespace: str, name: str) -> str:
        """The reason of the pool's Ready condition, empty without one."""
        pool = await self.api.get(INFERENCE_POOLS, name, namespace) or {}
        conditions = pool.get("status", {}).get("conditions", [])
        return next((str(it["reason"]) for it in conditions if it["type"] == "Ready"), "")

    async def made(self, namespace: str, name: str) -> dict[Resource, Json]:
        """What exists of the objects that a pool gets."""
        found = {resource: await self.api.get(resource, name, namespace) for resource in MADE}
        return {resource: obj for resource, obj in found.items() if obj is not None}

    async def until_made(self, namespace: str, name: str, within_seconds: float = 15.0) -> None:
        async def complete() -> bool:
            return len(await self.made(namespace, name)) == len(MADE)

        await eventually(complete, f"{name} has all of its objects", within_seconds)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operators(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operators]:
    """A control plane of its own with the CRDs, and no operator yet."""
    state = tmp_path_factory.mktemp("operator")
    tools = build_tools()
    async with (
        open_control_plane(tools, state, ADDRESS, ControlPlaneSettings()) as plane,
        KubeApi.connect(plane.access.kubeconfig) as api,
    ):
        rendered = subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
            [tools.path("helm"), "template", CHECKOUT / "charts/heliostat-crds"],
            check=True,
            capture_output=True,
        ).stdout
        subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
            [tools.path("kubectl"), "apply", "--server-side", "-f", "-"],
            check=True,
            input=rendered,
            env={**os.environ, "KUBECONFIG": str(plane.access.kubeconfig)},
        )

        async def served() -> bool:
            return await api.serves(INFERENCE_POOLS)

        await eventually(served, "the CRDs are served")
        yield Operators(plane, api, state)


@pytest_asyncio.fixture(loop_scope="module")
async def namespace(operators: Operators, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A namespace of the test's own."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:50].strip("-")
    created = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await operators.api.create(NAMESPACES, created)
    yield name
    await operators.api.delete(NAMESPACES, name)


async def test_a_pool_gets_its_objects_and_then_rest(operators: Operators, namespace: str) -> None:
    """All objects and a status come of one pool, and once they are there nothing is written."""
    async with operators.running() as (operator,):
        await operators.create_pool(namespace, "llama", replicas=2)
        await operators.until_made(namespace, "llama")

        async def told() -> bool:
            return await operators.reason(namespace, "llama") == "InsufficientCapacity"

        await eventually(told, "the status says that no node has room", 30)
        writes = r"heliostat_operator_writes_total"

        async def at_rest() -> bool:
            before = await operator.metric(writes)
            await asyncio.sleep(3)
            return before == await operator.metric(writes) > 0

        await eventually(at_rest, "three seconds without a write", 30)
        assert await operator.metric(r"heliostat_operator_reconcile_errors_total") == 0


async def test_foreign_edits_are_undone(operators: Operators, namespace: str) -> None:
    """Edits, renamed items, stripped labels and deletions of what is ours are all repaired."""
    async with operators.running():
        await operators.create_pool(namespace, "llama", replicas=2)
        await operators.until_made(namespace, "llama")
        api = operators.api
        port = {"name": "theirs", "port": 9999, "targetPort": 9999}
        unlabelled = {"metadata": {"labels": None}, "spec": {"ports": [port]}}
        await api.merge_patch(SERVICES, "llama", unlabelled, namespace)
        await api.delete(POD_DISRUPTION_BUDGETS, "llama", namespace)
        container = {"name": "theirs", "image": "theirs:1"}
        template = {
            "metadata": {"annotations": {"theirs": "1"}},
            "spec": {"containers": [container]},
        }
        edit = {"spec": {"replicas": 5, "template": template}}
        await api.merge_patch(DEPLOYMENTS, "llama", edit, namespace)

        async def repaired() -> bool:
            made = await operators.made(namespace, "llama")
            if len(made) < len(MADE):
                return False
            service, deployment = made[SERVICES], made[DEPLOYMENTS]["spec"]
            containers = deployment["template"]["spec"]["containers"]
            return (
                service["metadata"].get("labels", {}).get("heliostat.dev/pool") == "llama"
                and [it["port"] for it in service["spec"]["ports"]] == [8000]
                and [it["name"] for it in containers] == ["engine"]
                and deployment["replicas"] == 2
                and deployment["template"]["metadata"]["annotations"]["theirs"] == "1"
            )

        await eventually(repaired, "everything of ours is as it was, their annotation stays")


async def test_an_object_of_somebody_else_is_left_alone(
    operators: Operators, namespace: str
) -> None:
    """A Service of the pool's name that is not ours stays, is named in the status, and may go."""
    service = {"metadata": {"name": "llama"}, "spec": {"ports": [{"port": 1234}]}}
    await operators.api.create(SERVICES, service, namespace)
    async with operators.running():
        await operators.create_pool(namespace, "llama")

        async def told() -> bool:
            return await operators.reason(namespace, "llama") == "InvalidSpec"

        await eventually(told, "the status tells of the name")
        made = await operators.made(namespace, "llama")
        assert [it["port"] for it in made[SERVICES]["spec"]["ports"]] == [1234]
        assert set(made) == set(MADE)
        await operators.api.delete(SERVICES, "llama", namespace)

        async def ours() -> bool:
            found = (await operators.made(namespace, "llama")).get(SERVICES)
            return found is not None and found["spec"]["ports"][0]["port"] == 8000

        await eventually(ours, "the Service is made once the name is free", 45)


async def test_a_deleted_pool_leaves_nothing(operators: Operators, namespace: str) -> None:
    """The garbage collector takes all objects of a pool, also while no operator runs."""
    async with operators.running():
        await operators.create_pool(namespace, "llama")
        await operators.until_made(namespace, "llama")
    await operators.api.delete(INFERENCE_POOLS, "llama", namespace)

    async def gone() -> bool:
        return not await operators.made(namespace, "llama")

    await eventually(gone, "nothing of the pool is left", 60)


async def test_another_replica_takes_over(operators: Operators, namespace: str) -> None:
    """A pool made at the moment of the leader's death has its objects within 20 s."""
    async with operators.running(2) as replicas:
        leaders = [replica for replica in replicas if await replica.leads()]
        assert len(leaders) == 1
        leaders[0].kill()
        await operators.create_pool(namespace, "llama")
        await operators.until_made(namespace, "llama", TAKEOVER_SECONDS)


async def test_an_outage_of_the_api_server_is_survived(
    operators: Operators, namespace: str
) -> None:
    """After an outage longer than the Lease the same process leads and works again."""
    async with operators.running() as (operator,):
        await operators.plane.api_server.stop()
        await asyncio.sleep(16)
        await operators.plane.api_server.start()
        await operators.create_pool(namespace, "llama")
        await operators.until_made(namespace, "llama", 30)
        operator.process.check()

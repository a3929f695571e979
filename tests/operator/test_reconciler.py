"""The reconciler and its stores against a small API server, without a queue: one look at a time."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heliostat_crds.wire_names import DRAIN_ANNOTATION
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_kube.errors import UnavailableError
from heliostat_kube.resource import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES
from heliostat_operator.adapters import AdapterKeeper
from heliostat_operator.applier import Applier
from heliostat_operator.events import EventRecorder
from heliostat_operator.health import Metrics
from heliostat_operator.reconciler import Reconciler
from heliostat_operator.routers import RouterReports
from heliostat_operator.settings import OperatorSettings, PickerService
from heliostat_operator.watches import Watches
from tests.kube.api_server import FakeApiServer, Json, running_api_server

POOL = "/apis/heliostat.dev/v1alpha1/namespaces/a/inferencepools/llama"
DEPLOYMENT = "/apis/apps/v1/namespaces/a/deployments/llama"
SERVICE = "/api/v1/namespaces/a/services/llama"
BUDGET = "/apis/policy/v1/namespaces/a/poddisruptionbudgets/llama"
PATHS = ((DEPLOYMENT, DEPLOYMENTS), (SERVICE, SERVICES), (BUDGET, POD_DISRUPTION_BUDGETS))
EVENTS = "/apis/events.k8s.io/v1/namespaces/a/events/"


class Operator:
    """The parts that look after pools, and the server they look at."""

    def __init__(
        self,
        server: FakeApiServer,
        api: KubeApi,
        session: aiohttp.ClientSession,
        picker: PickerService | None = None,
    ) -> None:
        self.server = server
        self.asked: list[str] = []
        metrics = Metrics()
        settings = OperatorSettings(own_namespace="h", identity="test", picker=picker)
        applier = Applier(api, metrics)
        self.watches = Watches(
            api,
            settings,
            on_pool=self.asked.append,
            on_pod=lambda _: None,
            on_gone=applier.forget,
        )
        self.reconciler = Reconciler(
            api,
            settings,
            self.watches,
            applier=applier,
            routers=RouterReports(session, 1),
            adapters=AdapterKeeper(api, self.watches, session, metrics, None),
            events=EventRecorder(api, "test"),
            metrics=metrics,
        )

    async def look(self, seen: Callable[[], bool] = lambda: True) -> int:
        """Look at the pool once the stores show what they should; gives the writes it took."""
        async with asyncio.timeout(5):
            await self.watches.wait_synced()
            while not seen():  # noqa: ASYNC110 - several stores
                await asyncio.sleep(0.002)
        before = self.writes()
        await self.reconciler.reconcile("a/llama")
        return self.writes() - before

    def writes(self) -> int:
        return sum(self.server.calls(method) for method in ("PATCH", "POST", "PUT", "DELETE"))

    def stored(self) -> bool:
        """Whether the stores show all that the server has."""
        versions = [int(it["metadata"]["resourceVersion"]) for it in self.server.objects.values()]
        pool = self.watches.pool("a/llama")
        known = [] if pool is None else [pool.version]
        for path, resource in PATHS:
            live = self.watches.owned(resource, "a/llama")
            if (live is not None) != (path in self.server.objects):
                return False
            known += [] if live is None else [live.version]
        return max(known, default=0) >= max(
            (
                v
                for v, (p, _) in zip(versions, self.server.objects.items(), strict=True)
                if not p.startswith(EVENTS) and "/pods/" not in p
            ),
            default=0,
        )

    def ready(self) -> Json:
        conditions = self.server.objects[POOL]["status"]["conditions"]
        return next(dict(it) for it in conditions if it["type"] == "Ready")

    def pool(self, **spec: Any) -> None:
        known = self.server.objects.get(POOL, {})
        metadata = dict(known.get("metadata") or {})
        metadata["generation"] = metadata.get("generation", 0) + 1
        metadata.setdefault("creationTimestamp", "2030-01-01T00:00:00Z")
        self.server.put(
            POOL,
            {
                "apiVersion": "heliostat.dev/v1alpha1",
                "kind": "InferencePool",
                "metadata": metadata,
                "spec": {"model": {"name": "llama"}, **spec},
                **({"status": known["status"]} if "status" in known else {}),
            },
        )


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    async with (
        running_api_server() as server,
        KubeApi(Connection(server=server.url)) as api,
        aiohttp.ClientSession() as session,
    ):
        made = Operator(server, api, session)
        watching = asyncio.create_task(made.watches.run())
        yield made
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_pool_gets_its_objects_and_status(operator: Operator) -> None:
    """One look makes everything, says so in the status, and in one event."""
    operator.pool(replicas=2)
    await operator.look(operator.stored)
    uid = operator.server.objects[POOL]["metadata"]["uid"]
    for path in (DEPLOYMENT, SERVICE, BUDGET):
        owners = operator.server.objects[path]["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners] == [uid]
    assert operator.server.objects[DEPLOYMENT]["spec"]["replicas"] == 2
    assert operator.ready()["status"] == "False"
    events = [it for path, it in operator.server.objects.items() if path.startswith(EVENTS)]
    assert [(it["type"], it["reason"], it["note"]) for it in events] == [
        ("Normal", "Scaling", "0 of 2 ready: 2 to be created")
    ]


async def test_a_pool_at_rest_costs_nothing(operator: Operator) -> None:
    """Once all is as it should be, looking again writes nothing, also after a restart."""
    operator.pool()
    await operator.look(operator.stored)
    await operator.look(operator.stored)
    assert await operator.look(operator.stored) == 0
    restarted = Reconciler(
        operator.reconciler._api,
        OperatorSettings(own_namespace="h", identity="other"),
        operator.watches,
        applier=Applier(operator.reconciler._api, Metrics()),
        routers=operator.reconciler._routers,
        adapters=operator.reconciler._adapters,
        events=operator.reconciler._events,
        metrics=Metrics(),
    )
    before = operator.writes()
    await restarted.reconcile("a/llama")
    assert operator.writes() == before


@pytest.mark.parametrize("path", [DEPLOYMENT, SERVICE, BUDGET])
async def test_a_deleted_object_is_made_again(operator: Operator, path: str) -> None:
    """Whoever deletes an object of a pool gets it back."""
    operator.pool()
    await operator.look(operator.stored)
    await operator.look(operator.stored)
    operator.server.remove(path)
    await operator.look(operator.stored)
    assert path in operator.server.objects


async def test_a_foreign_edit_is_undone(operator: Operator) -> None:
    """What others change of our fields is set again, lists as a whole; what they add stays."""
    operator.pool()
    await operator.look(operator.stored)
    await operator.look(operator.stored)
    edited = copy.deepcopy(operator.server.objects[SERVICE])
    edited["spec"]["ports"][0]["port"] = 9999
    edited["metadata"]["annotations"]["theirs"] = "1"
    operator.server.put(SERVICE, edited)
    await operator.look(operator.stored)
    service = operator.server.objects[SERVICE]
    assert [port["port"] for port in service["spec"]["ports"]] == [8000]
    assert service["metadata"]["annotations"]["theirs"] == "1"


async def test_what_is_not_ours_is_left_alone(operator: Operator) -> None:
    """An object of the same name without our owner is never touched; the status says why."""
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"type": "None"}}
    operator.server.put(SERVICE, theirs)
    operator.pool()
    await operator.look(lambda: operator.watches.pool("a/llama") is not None)
    assert operator.server.objects[SERVICE]["spec"] == {"type": "None"}
    assert DEPLOYMENT in operator.server.objects, "the others are made all the same"
    assert "Service llama exists" in operator.ready()["message"]


async def test_a_pool_that_comes_again_waits_for_what_is_left_of_the_one_before(
    operator: Operator,
) -> None:
    """What a deleted pool of the same name leaves is neither taken nor complained about."""
    operator.pool()
    await operator.look(operator.stored)
    before = copy.deepcopy(operator.server.objects[SERVICE])
    operator.server.remove(POOL)
    operator.pool()
    uid = operator.server.objects[POOL]["metadata"]["uid"]
    await operator.look(lambda: bool((it := operator.watches.pool("a/llama")) and it.uid == uid))
    assert operator.server.objects[SERVICE] == before
    assert operator.ready()["reason"] == "PodsNotReady"
    for path in (SERVICE, BUDGET, DEPLOYMENT):
        operator.server.remove(path)
    await operator.look(lambda: not any(operator.watches.owned(r, "a/llama") for _, r in PATHS))
    (owner,) = operator.server.objects[SERVICE]["metadata"]["ownerReferences"]
    assert owner["uid"] == uid


async def test_a_pool_replaced_unseen_claims_names_anew(operator: Operator) -> None:
    """A pool deleted and made again while nobody watched is another, at the same generation."""
    operator.pool()
    other = copy.deepcopy(operator.server.objects[POOL])
    created = "2030-01-02T00:00:00Z"
    other["metadata"] = {"name": "other", "generation": 1, "creationTimestamp": created}
    other["spec"]["model"] = {"name": "mistral", "aliases": ["llama"]}
    operator.server.put(POOL.replace("llama", "other"), other)
    await operator.look(lambda: len(list(operator.watches.pools())) == 2)
    assert operator.watches.conflicts("a/other")
    del operator.server.objects[POOL]
    operator.pool(model={"name": "renamed"})
    uid = operator.server.objects[POOL]["metadata"]["uid"]
    await operator.look(lambda: bool((it := operator.watches.pool("a/llama")) and it.uid == uid))
    assert not operator.watches.conflicts("a/other")


async def test_an_engine_that_loads_is_no_warning(operator: Operator) -> None:
    """Nobody is alarmed by a pool that starts; one that fails is told as a warning."""
    operator.pool()
    await operator.look(operator.stored)
    operator.server.refused = {SERVICE: (403, "Forbidden")}
    operator.pool(engine={"port": 9000})
    await operator.look(
        lambda: bool((it := operator.watches.pool("a/llama")) and it.generation == 2)
    )
    events = [it for path, it in operator.server.objects.items() if path.startswith(EVENTS)]
    assert {(it["type"], it["reason"]) for it in events} == {
        ("Normal", "Scaling"),
        ("Warning", "InvalidSpec"),
    }


async def test_a_spec_that_is_none_keeps_the_last_good_objects(operator: Operator) -> None:
    """A pool that this version cannot read keeps what runs, and says what is wrong."""
    operator.pool()
    await operator.look(operator.stored)
    deployment = copy.deepcopy(operator.server.objects[DEPLOYMENT])
    operator.pool(replicas="many")
    await operator.look(lambda: bool((it := operator.watches.pool("a/llama")) and it.problem))
    assert operator.server.objects[DEPLOYMENT] == deployment
    degraded = operator.server.objects[POOL]["status"]["conditions"]
    assert "InvalidSpec" in {condition["reason"] for condition in degraded}


@pytest.mark.parametrize(("code", "reason"), [(422, "Invalid"), (403, "Forbidden")])
async def test_a_refused_object_is_told(operator: Operator, code: int, reason: str) -> None:
    """What the API server will not take becomes a condition, and hinders no other object."""
    operator.server.refused = {SERVICE: (code, reason)}
    operator.pool()
    await operator.look(lambda: operator.watches.pool("a/llama") is not None)
    assert "the API server refuses: told to fail" in operator.ready()["message"]
    assert {DEPLOYMENT, BUDGET} <= operator.server.objects.keys()
    operator.server.refused.clear()
    await operator.look(lambda: operator.watches.pool("a/llama") is not None)
    assert SERVICE in operator.server.objects


async def test_a_namespace_that_is_deleted_gets_nothing_new(operator: Operator) -> None:
    """While a namespace ends its pools' objects vanish one by one: no failure, and no event."""
    operator.pool()
    await operator.look(operator.stored)
    await operator.look(operator.stored)
    operator.server.ending = {"a"}
    operator.server.remove(BUDGET)
    pool = copy.deepcopy(operator.server.objects[POOL])
    await operator.look(operator.stored)
    assert operator.server.objects[POOL] == pool
    assert BUDGET not in operator.server.objects


async def test_pods_are_told_of_though_objects_cannot_be_made(operator: Operator) -> None:
    """A server that fails to take an object does not freeze what the status says of the pods;
    the generation stays that of the spec carried out last."""
    operator.pool()
    await operator.look(operator.stored)
    await operator.look(operator.stored)
    operator.server.refused = {SERVICE: (500, "InternalError")}
    operator.server.put("/api/v1/namespaces/a/pods/one", engine_pod())
    operator.server.remove(SERVICE)
    operator.pool(engine={"port": 9000})
    with pytest.raises(UnavailableError):
        await operator.look(lambda: operator.stored() and len(pods(operator)) == 1)
    status = operator.server.objects[POOL]["status"]
    assert (status["readyReplicas"], status["observedGeneration"]) == (1, 1)
    operator.server.refused.clear()
    await operator.look()
    assert operator.server.objects[POOL]["status"]["observedGeneration"] == 2


async def test_a_server_that_fails_for_one_object_makes_the_others(operator: Operator) -> None:
    """A webhook that is down for Services keeps nobody from running engines."""
    operator.server.refused = {SERVICE: (500, "InternalError")}
    operator.pool()
    with pytest.raises(UnavailableError):
        await operator.look(lambda: operator.watches.pool("a/llama") is not None)
    assert {DEPLOYMENT, BUDGET} <= operator.server.objects.keys()


async def test_a_pod_template_that_cannot_be_merged_marks_no_pods(operator: Operator) -> None:
    """Pods are drained only where their replicas can be taken away afterwards."""
    operator.pool(replicas=2)
    await operator.look(operator.stored)
    for name in ("one", "two"):
        operator.server.put(f"/api/v1/namespaces/a/pods/{name}", engine_pod())
    operator.pool(replicas=1, podTemplate={"spec": {"$patch": "unknown"}})
    await operator.look(
        lambda: (
            bool((it := operator.watches.pool("a/llama")) and it.generation == 2)
            and len(pods(operator)) == 2
        )
    )
    assert "spec.podTemplate.spec.$patch" in operator.ready()["message"]
    for path in ("/api/v1/namespaces/a/pods/one", "/api/v1/namespaces/a/pods/two"):
        assert DRAIN_ANNOTATION not in operator.server.objects[path]["metadata"].get(
            "annotations", {}
        )


async def test_exports_come_and_go_with_the_picker() -> None:
    """Where the upstream kind is served a pool is exported, and taken back without a picker."""
    upstream = "/apis/inference.networking.k8s.io/v1"
    export = f"{upstream}/namespaces/a/inferencepools/llama"
    async with (
        running_api_server() as server,
        KubeApi(Connection(server=server.url)) as api,
        aiohttp.ClientSession() as session,
    ):
        server.served = {upstream}
        for picker in (PickerService("router", 9002, 9002), None):
            operator = Operator(server, api, session, picker)
            watching = asyncio.create_task(operator.watches.run())
            if picker is not None:
                operator.pool()
            watches = operator.watches
            await operator.look(lambda w=watches: w.exports and w.pool("a/llama") is not None)  # type: ignore[misc]
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            assert (export in server.objects) is (picker is not None)


async def test_fewer_replicas_mark_before_they_remove(operator: Operator) -> None:
    """Scaling down marks the pods that will go and keeps the replicas until they are drained."""
    operator.pool(replicas=2)
    await operator.look(operator.stored)
    for name in ("one", "two"):
        operator.server.put(f"/api/v1/namespaces/a/pods/{name}", engine_pod())
    # A router that does not answer: nobody knows what it has in flight.
    operator.server.put("/api/v1/namespaces/h/pods/gateway", router_pod())
    operator.pool(replicas=1)

    def seen() -> bool:
        pool = operator.watches.pool("a/llama")
        known = pool is not None and pool.generation == 2
        return known and len(operator.watches.routers()) == 1 and len(pods(operator)) == 2

    await operator.look(seen)
    marked = [
        path
        for path, obj in operator.server.objects.items()
        if "/pods/" in path and DRAIN_ANNOTATION in obj["metadata"].get("annotations", {})
    ]
    assert len(marked) == 1
    assert operator.server.objects[DEPLOYMENT]["spec"]["replicas"] == 2


async def test_load_counts_in_an_ipv6_cluster(operator: Operator) -> None:
    """What routers report of an IPv6 address counts: the idle pod goes, not the busy one."""

    async def endpoints(_: web.Request) -> web.Response:
        load = {"[fd00::1]:8000": 5, "[fd00::2]:8000": 0}
        told = {address: {"phase": "ready", "inflight": it} for address, it in load.items()}
        return web.json_response({"synced": True, "endpoints": told})

    app = web.Application()
    app.router.add_get("/endpoints", endpoints)
    async with TestServer(app, host="127.0.0.1") as router:
        operator.reconciler._routers._admin_port = router.port or 0
        operator.pool(replicas=2)
        await operator.look(operator.stored)
        for number in (1, 2):
            pod = engine_pod()
            pod["status"]["podIP"] = f"fd00::{number}"
            operator.server.put(f"/api/v1/namespaces/a/pods/pod-{number}", pod)
        operator.server.put("/api/v1/namespaces/h/pods/gateway", router_pod())
        operator.pool(replicas=1)
        await operator.look(
            lambda: (
                bool((it := operator.watches.pool("a/llama")) and it.generation == 2)
                and len(operator.watches.routers()) == 1
                and len(pods(operator)) == 2
            )
        )
    marked = [
        path.rsplit("/", 1)[1]
        for path, obj in operator.server.objects.items()
        if DRAIN_ANNOTATION in obj["metadata"].get("annotations", {})
    ]
    assert marked == ["pod-2"]


def pods(operator: Operator) -> tuple[Any, ...]:
    pool = operator.watches.pool("a/llama")
    return () if pool is None else operator.watches.pods(pool)


def engine_pod() -> Json:
    labels = {"heliostat.dev/pool": "llama", "pod-template-hash": "1"}
    return {
        "metadata": {"labels": labels},
        "spec": {"nodeName": "n", "containers": [{"name": "engine"}]},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def router_pod() -> Json:
    return {
        "metadata": {"labels": {"app.kubernetes.io/component": "gateway"}},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "containerStatuses": [{"name": "router", "state": {"running": {}}}],
        },
    }

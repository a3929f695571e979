"""One pool, looked at as a whole: what should be, what is, and the few writes between the two."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from heliostat_crds.duration import parse_duration
from heliostat_crds.inference_pool import InferencePool, PoolKind
from heliostat_crds.status import PoolStatus
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NamespaceTerminatingError,
    NotFoundError,
)
from heliostat_kube.resource import DEPLOYMENTS, INFERENCE_POOLS, PODS, Json
from heliostat_operator.adapters import AdapterKeeper
from heliostat_operator.applier import Applier, NotOursError
from heliostat_operator.desired.objects import desired_objects
from heliostat_operator.desired.settings import DesiredSettings, Picker
from heliostat_operator.desired.strategic_merge import PodTemplateError
from heliostat_operator.events import EventRecorder, transitions
from heliostat_operator.health import Metrics
from heliostat_operator.observed.deployment import DeploymentView
from heliostat_operator.observed.observation import Observation
from heliostat_operator.observed.pod import PodView
from heliostat_operator.observed.pool_status import observe
from heliostat_operator.pool_object import PoolObject, parse_conditions
from heliostat_operator.routers import Reports, RouterReports
from heliostat_operator.scale_down import ScalePlan, plan_scale_down, rollout_runs
from heliostat_operator.settings import OperatorSettings
from heliostat_operator.watches import Watches

REFUSED_RETRY_SECONDS = 30.0
"""How soon what the API server refused is tried again: a quota may have grown meanwhile."""

log = structlog.get_logger("heliostat.operator")


class Reconciler:
    """Looks at pools one by one; everything it must not forget is in the cluster."""

    def __init__(
        self,
        api: KubeApi,
        settings: OperatorSettings,
        watches: Watches,
        *,
        applier: Applier,
        routers: RouterReports,
        adapters: AdapterKeeper,
        events: EventRecorder,
        metrics: Metrics,
    ) -> None:
        self._api = api
        self._settings = settings
        self._watches = watches
        self._applier = applier
        self._routers = routers
        self._adapters = adapters
        self._events = events
        self._metrics = metrics
        self._written: dict[str, tuple[str, int, Json]] = {}

    async def reconcile(self, key: str) -> float | None:
        """Look at one pool; the result is after how many seconds to do so again.

        Raises KubeError where the API server cannot be asked.
        """
        obj = self._watches.pool(key)
        if obj is None:
            self._written.pop(key, None)
            return None
        if obj.deleting or not self._watches.pods_read(obj):
            return None
        with self._metrics.reconcile_seconds.time():
            return await self._reconcile(obj)

    async def _reconcile(self, obj: PoolObject) -> float | None:
        pods = self._watches.pods(obj)
        problem, recheck_seconds = obj.problem, None
        failure: KubeError | None = None
        if obj.pool is not None:
            try:
                problem, recheck_seconds = await self._make(obj, obj.pool, pods)
            except PodTemplateError as error:
                problem = str(error)
            except NamespaceTerminatingError:
                return None  # the pool goes with its namespace
            except KubeError as error:
                failure = error
        if failure is not None and not failure.status:
            raise failure  # nobody answers
        # What is seen of the pods is told also where their objects could not be made.
        await self._publish_status(obj, pods, problem, carried_out=failure is None)
        if failure is not None:
            raise failure
        return recheck_seconds

    async def _make(
        self, obj: PoolObject, pool: InferencePool, pods: tuple[PodView, ...]
    ) -> tuple[str, float | None]:
        """Make the pool's objects and mark its pods; give what could not be, and when to look
        again."""
        plan = None
        if pool.pool_kind is PoolKind.MANAGED:
            plan = await self._plan(obj, pool, pods)
        desired = desired_objects(
            pool,
            replicas=pool.spec.replicas if plan is None else plan.replicas,
            settings=self._desired_settings(),
        )
        if plan is not None:
            await self._annotate_pods(pods, plan.annotations(datetime.now(UTC)))
        problems = await self._apply_all(obj, desired)
        await self._applier.delete_others(self._watches, obj, desired)
        again = [None if plan is None else plan.recheck_seconds]
        again += [REFUSED_RETRY_SECONDS] if problems else []
        soonest = min((seconds for seconds in again if seconds is not None), default=None)
        return (problems[0] if problems else ""), soonest

    async def _apply_all(self, obj: PoolObject, desired: tuple[Json, ...]) -> list[str]:
        """Make all objects; what hinders one hinders none of the others."""
        problems: list[str] = []
        failure: KubeError | None = None
        for wanted in desired:
            try:
                problems.append(await self._apply(obj, wanted))
            except NamespaceTerminatingError:
                raise
            except KubeError as error:
                if not error.status:
                    raise  # nobody answers
                failure = failure or error
        if failure is not None:
            raise failure
        return [problem for problem in problems if problem]

    async def _apply(self, obj: PoolObject, wanted: Json) -> str:
        """Make one object; give what the spec, or somebody else's object, hinders."""
        try:
            await self._applier.apply(self._watches, obj, wanted)
        except NotOursError as error:
            return str(error)
        except NamespaceTerminatingError:
            raise
        except (InvalidError, ForbiddenError) as error:
            return f"the API server refuses: {error.message}"
        return ""

    async def _plan(
        self, obj: PoolObject, pool: InferencePool, pods: tuple[PodView, ...]
    ) -> ScalePlan:
        pods = tuple(pod for pod in pods if pod.revision is not None)
        deployment = self._deployment(obj)
        desired = pool.spec.replicas
        current = desired if deployment is None else deployment.replicas
        rolling = rollout_runs(pods)
        reports = Reports(())
        if rolling or current > desired or any(pod.draining for pod in pods):
            reports = await self._routers.fetch(self._watches.routers())
        port = pool.spec.engine.port
        addresses = {pod.name: it for pod in pods if (it := pod.address(port)) is not None}
        return plan_scale_down(
            desired=desired,
            current=current,
            pods=pods,
            inflight={name: reports.inflight(it) for name, it in addresses.items()},
            drained={name for name, it in addresses.items() if reports.drained(it)},
            rolling=rolling,
            now=datetime.now(UTC),
            drain_timeout_seconds=parse_duration(pool.spec.engine.drain_timeout),
        )

    async def _annotate_pods(
        self, pods: tuple[PodView, ...], annotations: Mapping[str, Mapping[str, str | None]]
    ) -> None:
        by_name = {pod.name: pod for pod in pods}
        patched = (
            self._annotate_pod(by_name[name], changes) for name, changes in annotations.items()
        )
        await asyncio.gather(*patched)

    async def _annotate_pod(self, pod: PodView, changes: Mapping[str, str | None]) -> None:
        patch = {"metadata": {"uid": pod.uid, "annotations": dict(changes)}}
        try:
            await self._api.merge_patch(PODS, pod.name, patch, pod.namespace)
        except (NotFoundError, ConflictError):
            return  # the pod is gone
        self._metrics.writes.labels(PODS.kind).inc()

    def _deployment(self, obj: PoolObject) -> DeploymentView | None:
        live = self._applier.live(self._watches, DEPLOYMENTS, obj.key)
        return None if live is None or live.owner_uid != obj.uid else live.deployment

    def _desired_settings(self) -> DesiredSettings:
        service, picker = self._settings.picker, None
        if service is not None and self._watches.exports:
            picker = Picker(
                service=service.name,
                namespace=self._settings.own_namespace,
                port=service.port,
                target_port=service.target_port,
                addresses=self._watches.routers(),
            )
        return DesiredSettings(engine_api_key=self._settings.engine_api_key, picker=picker)

    async def _publish_status(
        self, obj: PoolObject, pods: tuple[PodView, ...], problem: str, *, carried_out: bool
    ) -> None:
        """Write the status if it differs; one not carried out keeps the generation it was about."""
        present = self._present_status(obj)
        before = parse_conditions(present)
        generation = obj.generation if carried_out else int(present.get("observedGeneration", 0))
        status = observe(
            Observation(
                name=obj.name,
                generation=generation,
                pool=obj.pool,
                pods=pods,
                deployment=self._deployment(obj),
                previous=before,
                now=datetime.now(UTC),
                url=self._settings.gateway_url,
                spec_problem=problem,
                conflicts=self._watches.conflicts(obj.key),
                adapter_failures=self._adapters.failures(pods),
            )
        )
        wanted = _status_json(status)
        if wanted == present:
            return
        removed = dict.fromkeys(present.keys() - wanted.keys())
        try:
            answer = await self._api.merge_patch(
                INFERENCE_POOLS,
                obj.name,
                {"status": {**wanted, **removed}},
                obj.namespace,
                subresource="status",
            )
        except NotFoundError:
            return
        self._metrics.writes.labels(INFERENCE_POOLS.kind).inc()
        version = int(answer["metadata"]["resourceVersion"])
        self._written[obj.key] = obj.uid, version, wanted
        for condition in transitions(before, status.conditions):
            log.info(
                "pool-condition",
                pool=obj.key,
                type=condition.type,
                status=condition.status.value,
                reason=condition.reason,
                message=condition.message,
            )
        await self._events.publish_changes(obj.reference, before, status.conditions)

    def _present_status(self, obj: PoolObject) -> Mapping[str, Any]:
        """Give the newest status known: what was watched, or what we wrote since."""
        written = self._written.get(obj.key)
        if written is not None and written[0] == obj.uid and written[1] > obj.version:
            return written[2]
        return obj.status


def _status_json(status: PoolStatus) -> Json:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)

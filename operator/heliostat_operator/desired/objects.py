"""From a pool to every object that should exist for it."""

from heliostat_crds.inference_pool import InferencePool, PoolKind
from heliostat_kube.resource import Json
from heliostat_operator.desired.disruption import desired_disruption_budget
from heliostat_operator.desired.service import desired_service
from heliostat_operator.desired.settings import DesiredSettings
from heliostat_operator.desired.upstream_pool import desired_export
from heliostat_operator.desired.workload import desired_deployment


def desired_objects(
    pool: InferencePool, *, replicas: int, settings: DesiredSettings
) -> tuple[Json, ...]:
    """Give the objects of a pool, complete and in the order in which to apply them.

    `replicas` is what the Deployment gets: more than the spec asks for while pods drain. A pool of
    pods that are not ours gets no workload, no Service and no budget, only the export to other
    gateways; a pool of fixed addresses gets nothing. PodTemplateError tells what is wrong with
    `spec.podTemplate`.
    """
    match pool.pool_kind:
        case PoolKind.MANAGED:
            return (
                desired_service(pool),
                desired_disruption_budget(pool),
                desired_deployment(pool, replicas=replicas, settings=settings),
                *desired_export(pool, settings.picker),
            )
        case PoolKind.ADOPTED:
            return desired_export(pool, settings.picker)
        case PoolKind.FIXED:
            return ()

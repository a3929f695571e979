"""The PodDisruptionBudget of a pool: how many engines evictions may take at once."""

from heliostat_crds.inference_pool import InferencePool
from heliostat_kube.resource import Json
from heliostat_operator.desired.naming import object_metadata, pod_selector


def desired_disruption_budget(pool: InferencePool) -> Json:
    """Give the budget. A pod that is not ready may always be evicted: it serves nobody, and a
    crash loop must not hold up the maintenance of its node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": object_metadata(pool, pool.metadata.name),
        "spec": {
            "maxUnavailable": pool.spec.disruption.max_unavailable,
            "selector": {"matchLabels": pod_selector(pool)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }

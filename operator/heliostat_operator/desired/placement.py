"""Which nodes an engine's pod may run on, as its PodSpec says it."""

from heliostat_crds.inference_pool import InferencePool
from heliostat_kube.resource import Json
from heliostat_operator.desired.naming import pod_selector

NODE_LOST_SECONDS = 60
"""How long a pod stays with a node that has gone silent. Kubernetes' own 300 s keep the capacity
away for longer than a model takes to load elsewhere."""

_NODE_LOST_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def desired_placement(pool: InferencePool) -> Json:
    """Give the fields of the PodSpec that choose its node and its rank among other pods."""
    placement = pool.spec.placement
    fields = {
        "nodeSelector": placement.node_selector,
        "tolerations": _tolerations(pool),
        "affinity": placement.affinity,
        "topologySpreadConstraints": [
            _with_selector(pool, constraint) for constraint in placement.topology_spread
        ],
        "runtimeClassName": placement.runtime_class_name,
        "priorityClassName": placement.priority_class_name,
    }
    return {name: value for name, value in fields.items() if value}


def _tolerations(pool: InferencePool) -> list[Json]:
    """Give the user's tolerations, and ours for taints that they do not speak of.

    Nodes with accelerators usually bear a taint of the resource's name, to keep others away.
    """
    given: list[Json] = [
        it.model_dump(mode="json", by_alias=True, exclude_none=True)
        for it in pool.spec.placement.tolerations
    ]
    spoken_of = {toleration.get("key") for toleration in given}
    ours: list[Json] = []
    if pool.spec.accelerator.count:
        resource = pool.spec.accelerator.resource
        ours.append({"key": resource, "operator": "Exists", "effect": "NoSchedule"})
    ours += [
        {
            "key": taint,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": NODE_LOST_SECONDS,
        }
        for taint in _NODE_LOST_TAINTS
    ]
    return [*given, *(it for it in ours if it["key"] not in spoken_of)]


def _with_selector(pool: InferencePool, constraint: Json) -> Json:
    """Let a constraint that names no pods count this pool's, each version of them for itself:
    otherwise a rollout, in which two versions live, ends unevenly spread."""
    if "labelSelector" in constraint:
        return constraint
    return {
        **constraint,
        "labelSelector": {"matchLabels": pod_selector(pool)},
        "matchLabelKeys": ["pod-template-hash"],
    }

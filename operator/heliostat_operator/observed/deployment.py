"""A Deployment, cut down to what the operator decides by."""

from dataclasses import dataclass

from heliostat_kube.resource import Json


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A pool's Deployment.

    `replicas` is what it asks for, `updated_replicas` how many pods run its present template,
    None while its controller has not seen the present spec; `counted_replicas` is how many it
    counted then, of any template, 0 while it has not counted. `creation_failure` is why pods
    cannot even be created (quota, admission), else empty. `stalled` is true where a rollout has
    not moved for longer than its deadline.
    """

    namespace: str
    name: str
    uid: str
    replicas: int
    updated_replicas: int | None
    counted_replicas: int
    creation_failure: str
    stalled: bool


def parse_deployment(obj: Json) -> DeploymentView:
    """Read a Deployment from the API."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    seen = status.get("observedGeneration", 0) >= meta.get("generation", 0)
    conditions = {it.get("type"): it for it in status.get("conditions") or ()}
    failure = conditions.get("ReplicaFailure", {})
    progress = conditions.get("Progressing", {})
    return DeploymentView(
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        replicas=spec.get("replicas", 1),
        updated_replicas=status.get("updatedReplicas", 0) if seen else None,
        counted_replicas=status.get("replicas", 0),
        creation_failure=(
            failure.get("message") or failure.get("reason") or ""
            if failure.get("status") == "True"
            else ""
        ),
        stalled=progress.get("reason") == "ProgressDeadlineExceeded",
    )

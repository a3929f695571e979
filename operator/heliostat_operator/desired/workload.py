"""The Deployment of a pool and its pods.

Nothing of the pool's routing, replicas, disruption or list of adapters is in the pod template: a
change of those restarts no engine.
"""

import math

from heliostat_crds.duration import parse_duration
from heliostat_crds.engine import OPERATOR_ENV, TOKEN_ENV, KvEvents
from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.placement import RolloutStrategy
from heliostat_crds.wire_names import (
    COMPONENT_LABEL,
    ENGINE_CONTAINER,
    ENGINE_PORT_NAME,
    POOL_LABEL,
)
from heliostat_kube.resource import Json
from heliostat_operator.desired.engine_args import (
    KV_EVENTS_PORT,
    KV_REPLAY_PORT,
    desired_args,
    serves_adapters,
)
from heliostat_operator.desired.lifecycle import desired_lifecycle, grace_seconds
from heliostat_operator.desired.naming import object_metadata, pod_selector, pool_labels
from heliostat_operator.desired.placement import desired_placement
from heliostat_operator.desired.probes import desired_probes
from heliostat_operator.desired.settings import DesiredSettings
from heliostat_operator.desired.strategic_merge import merge_pod_template
from heliostat_operator.desired.volumes import CACHE_FOLDER, desired_mounts, desired_volumes

ENGINE_COMPONENT = "engine"
"""Value of the component label on engine pods."""

IMAGE_PULL_SECONDS = 15 * 60
"""What a rollout grants a pod besides the startup timeout before it counts as stalled."""


def desired_deployment(pool: InferencePool, *, replicas: int, settings: DesiredSettings) -> Json:
    """Give the Deployment; PodTemplateError tells what is wrong with `spec.podTemplate`."""
    startup_seconds = math.ceil(parse_duration(pool.spec.engine.startup_timeout))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": object_metadata(pool, pool.metadata.name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": pod_selector(pool)},
            "strategy": _strategy(pool.spec.rollout.strategy),
            "progressDeadlineSeconds": startup_seconds + IMAGE_PULL_SECONDS,
            "revisionHistoryLimit": 3,
            "template": _patched_template(pool, settings),
        },
    }


def _strategy(strategy: RolloutStrategy) -> Json:
    """Both stop at the first new pod that fails: `Surge` takes no ready pod away before the new
    one is ready, `Replace` takes one and waits for its successor."""
    surge = strategy is RolloutStrategy.SURGE
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": int(surge), "maxUnavailable": int(not surge)},
    }


def _patched_template(pool: InferencePool, settings: DesiredSettings) -> Json:
    """Merge `spec.podTemplate` over the template; only the label that finds the pods stays."""
    patch = pool.spec.pod_template.model_dump(mode="json", by_alias=True)
    template = merge_pod_template(_template(pool, settings), patch)
    template["metadata"]["labels"][POOL_LABEL] = pool.metadata.name
    return template


def _template(pool: InferencePool, settings: DesiredSettings) -> Json:
    engine = pool.spec.engine
    return {
        "metadata": {
            "labels": {**pool_labels(pool), COMPONENT_LABEL: ENGINE_COMPONENT},
            "annotations": {"kubectl.kubernetes.io/default-container": ENGINE_CONTAINER},
        },
        "spec": {
            **desired_placement(pool),
            "containers": [_container(pool, settings)],
            "volumes": desired_volumes(engine),
            **(
                {"imagePullSecrets": [{"name": name} for name in engine.image_pull_secrets]}
                if engine.image_pull_secrets
                else {}
            ),
            "terminationGracePeriodSeconds": grace_seconds(engine),
            "automountServiceAccountToken": False,
            # A Service named "vllm" would set VLLM_PORT, which vLLM takes for its own option.
            "enableServiceLinks": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        },
    }


def _container(pool: InferencePool, settings: DesiredSettings) -> Json:
    engine = pool.spec.engine
    return {
        "name": ENGINE_CONTAINER,
        "image": engine.image,
        "imagePullPolicy": engine.image_pull_policy.value,
        "args": desired_args(pool),
        "env": _env(pool, settings),
        "ports": _ports(pool),
        "resources": _resources(pool),
        "volumeMounts": desired_mounts(),
        **desired_probes(engine),
        "lifecycle": desired_lifecycle(engine),
        # The last lines of the log become the reason that the pool's status gives for a crash.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # vLLM's image runs as root, and needs none of what root may do on the machine.
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _ports(pool: InferencePool) -> list[Json]:
    engine = pool.spec.engine
    ports = [{"name": ENGINE_PORT_NAME, "containerPort": engine.port, "protocol": "TCP"}]
    if engine.kv_events is KvEvents.ENABLED:
        ports += [
            {"name": "kv-events", "containerPort": KV_EVENTS_PORT, "protocol": "TCP"},
            {"name": "kv-replay", "containerPort": KV_REPLAY_PORT, "protocol": "TCP"},
        ]
    return ports


def _env(pool: InferencePool, settings: DesiredSettings) -> list[Json]:
    """Give the environment: what we set first, so that the user's variables may refer to it."""
    engine = pool.spec.engine
    home, adapters, api_key = OPERATOR_ENV
    env: list[Json] = [{"name": home, "value": CACHE_FOLDER}]
    if engine.hugging_face_token is not None:
        token = engine.hugging_face_token
        env.append(_secret_env(TOKEN_ENV, token.secret_name, token.key))
    if serves_adapters(engine):
        env.append({"name": adapters, "value": "True"})
    if settings.engine_api_key is not None:
        secret = settings.engine_api_key
        env.append(_secret_env(api_key, secret.name, secret.key))
    return [
        *env,
        *(it.model_dump(mode="json", by_alias=True, exclude_none=True) for it in engine.env),
    ]


def _secret_env(name: str, secret: str, key: str) -> Json:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _resources(pool: InferencePool) -> Json:
    """Give what the container asks for, its accelerators included: those need limits."""
    accelerator, resources = pool.spec.accelerator, pool.spec.engine.resources
    requests = {name: str(amount) for name, amount in resources.requests.items()}
    limits = {name: str(amount) for name, amount in resources.limits.items()}
    if accelerator.count:
        requests[accelerator.resource] = str(accelerator.count)
        limits[accelerator.resource] = str(accelerator.count)
    return {
        **({"requests": requests} if requests else {}),
        **({"limits": limits} if limits else {}),
    }

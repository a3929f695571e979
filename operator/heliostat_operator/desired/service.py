"""The Service of a pool: its engines under one name, for whoever goes around the gateway."""

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.wire_names import ENGINE_PORT_NAME
from heliostat_kube.resource import Json
from heliostat_operator.desired.naming import object_metadata, pod_selector


def desired_service(pool: InferencePool) -> Json:
    """Give the Service, named like the pool."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(pool, pool.metadata.name),
        "spec": {
            "type": "ClusterIP",
            "selector": pod_selector(pool),
            "ports": [
                {
                    "name": ENGINE_PORT_NAME,
                    "port": pool.spec.engine.port,
                    "targetPort": ENGINE_PORT_NAME,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }

"""Every name that Heliostat's parts find each other by in the Kubernetes API."""

GROUP = "heliostat.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

POOL_LABEL = "heliostat.dev/pool"
"""Label: name of the pool that an engine pod, or an object made for a pool, belongs to."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""Label: who keeps the object as it is."""
MANAGED_BY = "heliostat"
"""Value of MANAGED_BY_LABEL on everything that the operator makes."""

DRAIN_ANNOTATION = "heliostat.dev/drain"
"""Annotation of a pod: the RFC 3339 instant since which routers send it nothing new."""
ADAPTERS_ANNOTATION = "heliostat.dev/adapters"
"""Annotation of a pod: the LoRA adapters that its engine has loaded, as JSON
`{"container": CONTAINER_ID, "adapters": [NAME, ...]}`; true only for that very container."""
MODELS_ANNOTATION = "heliostat.dev/models"
"""Annotation of an upstream InferencePool: the names of its models, separated by commas."""
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation of a pod: the lower, the sooner its ReplicaSet deletes it."""

FIELD_MANAGER = "heliostat-operator"
"""Field manager of everything that the operator applies."""
LEASE_NAME = "heliostat-operator"
"""Name of the Lease that the operator's leader holds."""

APP_LABEL = "app.kubernetes.io/name"
COMPONENT_LABEL = "app.kubernetes.io/component"
APP_NAME = "heliostat"
GATEWAY_COMPONENT = "gateway"
"""Value of COMPONENT_LABEL on the pods that hold a router."""

ENGINE_CONTAINER = "engine"
"""Name of the container that runs the model server."""
ENGINE_PORT_NAME = "http"
"""Name of the engine's port in pods and Services."""

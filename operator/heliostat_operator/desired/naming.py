"""Names, labels and owner of what is made for a pool."""

from heliostat_crds.inference_pool import KIND, InferencePool
from heliostat_crds.wire_names import API_VERSION, MANAGED_BY, MANAGED_BY_LABEL, POOL_LABEL
from heliostat_kube.resource import Json


def pool_labels(pool: InferencePool) -> dict[str, str]:
    """Give the labels of everything that is made for the pool."""
    return {POOL_LABEL: pool.metadata.name, MANAGED_BY_LABEL: MANAGED_BY}


def pod_selector(pool: InferencePool) -> dict[str, str]:
    """Give the labels that find the pool's pods: a Deployment's can never change."""
    if pool.spec.selector is not None:
        return dict(pool.spec.selector.match_labels)
    return {POOL_LABEL: pool.metadata.name}


def object_metadata(pool: InferencePool, name: str) -> Json:
    """Give the metadata of an object that lives and dies with the pool.

    `blockOwnerDeletion` is false: nothing that we make may hold up the deletion of a pool.
    """
    meta = pool.metadata
    return {
        "name": name,
        "namespace": meta.namespace or "default",
        "labels": pool_labels(pool),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": meta.name,
                "uid": meta.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }

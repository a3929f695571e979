"""The volumes of an engine: shared memory, and what it downloads."""

from heliostat_crds.engine import CacheType, Engine, ModelCache
from heliostat_kube.resource import Json

CACHE_FOLDER = "/root/.cache/huggingface"
"""Where vLLM's image keeps what it downloads (HF_HOME)."""

_CACHE = "model-cache"
_SHARED_MEMORY = "shared-memory"


def desired_volumes(engine: Engine) -> list[Json]:
    """Give the pod's volumes. The 64 MiB of /dev/shm that containers get by default are too little
    for engines of several processes."""
    shared = {"medium": "Memory", "sizeLimit": str(engine.shared_memory)}
    return [
        {"name": _SHARED_MEMORY, "emptyDir": shared},
        {"name": _CACHE, **_cache_source(engine.model_cache)},
    ]


def desired_mounts() -> list[Json]:
    """Give where the engine's container sees the volumes."""
    return [
        {"name": _SHARED_MEMORY, "mountPath": "/dev/shm"},  # noqa: S108 -- a mount, not a file
        {"name": _CACHE, "mountPath": CACHE_FOLDER},
    ]


def _cache_source(cache: ModelCache) -> Json:
    match cache.type:
        case CacheType.EMPTY_DIR:
            limit = {} if cache.size_limit is None else {"sizeLimit": str(cache.size_limit)}
            return {"emptyDir": limit}
        case CacheType.PERSISTENT_VOLUME_CLAIM:
            return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
        case CacheType.HOST_PATH:
            return {"hostPath": {"path": cache.path, "type": "DirectoryOrCreate"}}

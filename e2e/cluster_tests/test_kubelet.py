"""The fake kubelet against the real control plane: what pods may rely on as on any node."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat_cluster.cluster import Cluster, CommandError
from heliostat_kube.api import KubeApi
from heliostat_kube.errors import ForbiddenError
from heliostat_kube.resource import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, NODES, PODS, SECRETS

DEADLINE_SECONDS = 15.0
Pod = dict[str, Any]


async def eventually(condition: Callable[[], Awaitable[object]], what: str) -> Any:
    """Wait for a condition and return what it gave; fail with its description."""
    found: object = None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (found := await condition()):  # noqa: ASYNC110 - the server can only be asked
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"never became true: {what}; last seen: {found!r}")
    return found


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[KubeApi]:
    """An administrator's client."""
    async with KubeApi.connect(cluster.kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(api: KubeApi, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A namespace of the test's own with its default service account; deleted afterwards."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50].rstrip("-")
    await api.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    yield name
    await api.delete(NAMESPACES, name)


class Pods:
    """Makes and reads pods in one namespace."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def create(self, name: str, *containers: Pod, **spec: Any) -> None:
        """Create a pod; tries again until the namespace has its service account."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": list(containers), **spec},
        }

        async def created() -> bool:
            try:
                await self._api.create(PODS, pod, self._namespace)
            except ForbiddenError:
                return False
            return True

        await eventually(created, f"pod {name} is accepted")

    async def get(self, name: str) -> Pod | None:
        """Read a pod."""
        return await self._api.get(PODS, name, self._namespace)

    async def delete(self, name: str) -> None:
        """Delete a pod with its grace period."""
        await self._api.delete(PODS, name, self._namespace)

    async def until(self, name: str, what: str, condition: Callable[[Pod], object]) -> Pod:
        """Wait until a pod's status is as wanted; return the pod."""

        async def holds() -> Pod | None:
            pod = await self.get(name)
            return pod if pod and condition(pod.get("status", {})) else None

        try:
            found: Pod = await eventually(holds, f"{name}: {what}")
        except pytest.fail.Exception:
            status = (await self.get(name) or {}).get("status")
            pytest.fail(f"{name}: {what}; its status: {json.dumps(status)}")
        return found

    async def until_gone(self, name: str) -> None:
        """Wait until a pod is gone."""

        async def gone() -> bool:
            return await self.get(name) is None

        await eventually(gone, f"{name} is gone")


@pytest.fixture
def pods(api: KubeApi, namespace: str) -> Pods:
    """Pods of the test's namespace."""
    return Pods(api, namespace)


def shell(script: str, name: str = "main", **members: Any) -> Pod:
    """Return a container that runs a script."""
    return {"name": name, "image": "e2e/idle:1", "command": ["bash", "-c", script], **members}


def lingering(name: str = "main", **members: Any) -> Pod:
    """Return a container that ends at once when it is told, and says so."""
    return shell("trap 'date +%s.%N; exit 0' TERM; sleep infinity & wait", name, **members)


def is_ready(status: Pod) -> bool:
    """Whether the status says Ready."""
    return condition_of(status, "Ready") == "True"


def condition_of(status: Pod, kind: str) -> str | None:
    """Return the state of a condition."""
    states = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    return states.get(kind)


def waiting_reason(status: Pod) -> str | None:
    """Return why the first container waits."""
    containers = status.get("containerStatuses") or [{}]
    return containers[0].get("state", {}).get("waiting", {}).get("reason")


async def test_pods_of_a_deployment_become_ready_and_are_reached(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    """Pods are scheduled to GPUs, probed over the network, and go away when scaled to none."""
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    container = {
        **shell("exec python3 -m http.server 8000"),
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": probe,
        "resources": {"limits": {"nvidia.com/gpu": 2}},
    }
    await api.create(
        DEPLOYMENTS,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 4,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
                },
            },
        },
        namespace,
    )

    async def ready_replicas() -> bool:
        found = await api.get(DEPLOYMENTS, "web", namespace)
        return bool(found and found["status"].get("readyReplicas") == 4)

    await eventually(ready_replicas, "4 replicas are ready")
    listed = (await api.list(PODS, namespace)).items
    addresses = {pod["status"]["podIP"] for pod in listed}
    assert len(addresses) == 4
    reader, writer = await asyncio.open_connection(addresses.pop(), 8000)
    writer.close()
    assert reader.at_eof() is False
    assert "GET /" in await cluster.kubectl("logs", "-n", namespace, "deploy/web")
    patch = {"spec": {"replicas": 0}}
    await api.merge_patch(DEPLOYMENTS, "web", patch, namespace)

    async def none_left() -> bool:
        return not (await api.list(PODS, namespace)).items

    await eventually(none_left, "all pods are gone")


async def test_a_crashing_container_is_restarted_with_growing_waits(pods: Pods) -> None:
    """Each crash counts a restart, keeps the last state and leads to CrashLoopBackOff."""
    await pods.create("crash", shell("echo no >/dev/termination-log; exit 3"))
    pod = await pods.until(
        "crash",
        "the second wait",
        lambda status: (
            waiting_reason(status) == "CrashLoopBackOff"
            and status["containerStatuses"][0]["restartCount"] >= 2
        ),
    )
    container = pod["status"]["containerStatuses"][0]
    ended = container["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "no\n")
    assert container["state"]["waiting"]["message"].startswith("back-off 2s restarting")
    assert pod["status"]["phase"] == "Running"
    assert not is_ready(pod["status"])


async def test_a_pod_that_completes_succeeds_or_fails(pods: Pods) -> None:
    """With restartPolicy Never the phase follows the exit codes."""
    await pods.create("good", shell("exit 0"), restartPolicy="Never")
    await pods.create("bad", shell("exit 1"), restartPolicy="Never")
    await pods.until("good", "it succeeds", lambda status: status.get("phase") == "Succeeded")
    await pods.until("bad", "it fails", lambda status: status.get("phase") == "Failed")


async def test_the_pre_stop_hook_comes_before_the_signal(
    cluster: Cluster, pods: Pods, namespace: str
) -> None:
    """The program gets SIGTERM only after the hook has ended."""
    hook = {"preStop": {"exec": {"command": ["bash", "-c", "sleep 1; date +%s.%N > /shared/hook"]}}}
    script = "trap 'cat /shared/hook; date +%s.%N; exit 0' TERM; sleep infinity & wait"
    container = shell(
        script, lifecycle=hook, volumeMounts=[{"name": "shared", "mountPath": "/shared"}]
    )
    await pods.create("stop", container, volumes=[{"name": "shared", "emptyDir": {}}])
    await pods.until("stop", "it is ready", is_ready)
    await pods.delete("stop")
    await pods.until_gone("stop")
    hook_at, signal_at = map(float, (await cluster.logs("stop", "main", namespace)).split())
    assert signal_at >= hook_at


async def test_a_program_that_ignores_the_signal_is_killed_after_the_grace_period(
    pods: Pods,
) -> None:
    """SIGKILL comes at the end of the grace period, not before."""
    await pods.create(
        "deaf", shell("trap '' TERM; sleep infinity"), terminationGracePeriodSeconds=3
    )
    await pods.until("deaf", "it is ready", is_ready)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await pods.delete("deaf")
    await pods.until_gone("deaf")
    assert 2.5 < loop.time() - began_at < 8


async def test_sidecars_start_before_and_end_after_the_main_container(
    pods: Pods, tmp_path: Path
) -> None:
    """Init containers run in order; a sidecar's startup probe holds the next one back."""
    shared = [{"name": "order", "mountPath": "/order"}]
    stay = "trap 'sleep {1}; echo {0} ends >> /order/log; exit 0' TERM; sleep infinity & wait"

    def part(name: str, before: str = "", after: str = "", **members: Any) -> Pod:
        script = f"{before} echo {name} >> /order/log; {after}"
        return shell(script, name, volumeMounts=shared, **members)

    probe = {"exec": {"command": ["test", "-e", "/up"]}, "periodSeconds": 1}
    sidecar = part(
        "sidecar",
        "sleep 1; touch /up;",
        stay.format("sidecar", 0),
        restartPolicy="Always",
        startupProbe=probe,
    )
    await pods.create(
        "ordered",
        part("main", after=stay.format("main", 1)),
        initContainers=[part("first"), sidecar, part("last")],
        volumes=[{"name": "order", "hostPath": {"path": str(tmp_path)}}],
    )
    await pods.until("ordered", "it is ready", is_ready)
    await pods.delete("ordered")
    await pods.until_gone("ordered")
    order = (tmp_path / "log").read_text().splitlines()
    assert order == ["first", "sidecar", "last", "main", "main ends", "sidecar ends"]


async def test_readiness_follows_the_probe(pods: Pods, tmp_path: Path) -> None:
    """A failing readiness probe takes Ready away without a restart, and a good one gives it."""
    up = tmp_path / "up"
    up.touch()
    probe = {"exec": {"command": ["test", "-e", "/state/up"]}, "periodSeconds": 1}
    container = lingering(
        readinessProbe=probe | {"failureThreshold": 1},
        volumeMounts=[{"name": "state", "mountPath": "/state"}],
    )
    volumes = [{"name": "state", "hostPath": {"path": str(tmp_path)}}]
    await pods.create("probed", container, volumes=volumes)
    await pods.until("probed", "ready", is_ready)
    up.unlink()
    await pods.until("probed", "not ready", lambda status: not is_ready(status))
    up.touch()
    pod = await pods.until("probed", "ready again", is_ready)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_failing_liveness_probe_restarts_the_container(pods: Pods) -> None:
    """The container is replaced; its identity changes with the restart."""
    script = "touch /alive; (sleep 2; rm /alive) & trap 'exit 7' TERM; sleep infinity & wait"
    probe = {"exec": {"command": ["test", "-e", "/alive"]}, "periodSeconds": 1}
    await pods.create("alive", shell(script, livenessProbe=probe | {"failureThreshold": 1}))
    first = await pods.until("alive", "ready", is_ready)
    pod = await pods.until(
        "alive",
        "restarted and running",
        lambda status: (
            status["containerStatuses"][0]["restartCount"] == 1
            and "running" in status["containerStatuses"][0]["state"]
        ),
    )
    container = pod["status"]["containerStatuses"][0]
    assert container["lastState"]["terminated"]["exitCode"] == 7
    assert container["containerID"] != first["status"]["containerStatuses"][0]["containerID"]


async def test_an_image_that_there_is_not_is_waited_for(pods: Pods) -> None:
    """The pod stays Pending and says why."""
    container = {"name": "main", "image": "vllm/vllm-openai:missing-1"}
    await pods.create("missing", container)
    pod = await pods.until(
        "missing",
        "it backs off",
        lambda status: waiting_reason(status) == "ImagePullBackOff",
    )
    assert pod["status"]["phase"] == "Pending"
    await pods.delete("missing")
    await pods.until_gone("missing")


async def test_environment_and_files_come_from_where_the_pod_says(
    cluster: Cluster, api: KubeApi, pods: Pods, namespace: str
) -> None:
    """Secrets, ConfigMaps and the pod's own fields appear as variables and as files."""
    for kind, data in (
        ("ConfigMap", {"data": {"color": "blue"}}),
        ("Secret", {"stringData": {"key": "s3"}}),
    ):
        obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "source"}, **data}
        await api.create(CONFIG_MAPS if kind == "ConfigMap" else SECRETS, obj, namespace)
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}}},
        {"name": "BOTH", "value": "$(POD)-$(color)-$(NONE)"},
    ]
    container = shell(
        'echo "$BOTH $KEY $(cat /files/color) $(id -u)"; touch /refused || echo read-only',
        env=env,
        envFrom=[{"configMapRef": {"name": "source"}}],
        volumeMounts=[{"name": "files", "mountPath": "/files"}],
        securityContext={"runAsUser": 1234, "readOnlyRootFilesystem": True},
    )
    volumes = [{"name": "files", "configMap": {"name": "source"}}]
    await pods.create("source", container, volumes=volumes, restartPolicy="Never")
    await pods.until("source", "it succeeds", lambda status: status.get("phase") == "Succeeded")
    lines = (await cluster.logs("source", "main", namespace)).splitlines()
    assert lines[0] == "source-blue-$(NONE) s3 blue 1234"
    assert lines[-1] == "read-only"


async def test_the_service_account_of_a_pod_may_what_its_role_says(
    cluster: Cluster, pods: Pods, namespace: str
) -> None:
    """The pod reaches the API server with its own token, and RBAC decides."""
    await cluster.kubectl(
        "create", "role", "reader", "-n", namespace, "--verb=list", "--resource=configmaps"
    )
    account = f"{namespace}:default"
    await cluster.kubectl(
        *("create", "rolebinding", "reader", "-n", namespace),
        *("--role=reader", f"--serviceaccount={account}"),
    )
    script = """
    server=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT
    folder=/var/run/secrets/kubernetes.io/serviceaccount
    for kind in configmaps secrets; do
      curl -s -o /dev/null -w '%{http_code}\n' --cacert $folder/ca.crt \
        -H "Authorization: Bearer $(cat $folder/token)" \
        $server/api/v1/namespaces/$(cat $folder/namespace)/$kind
    done
    """
    await pods.create("client", shell(script), restartPolicy="Never")
    await pods.until("client", "it succeeds", lambda status: status.get("phase") == "Succeeded")
    assert (await cluster.logs("client", "main", namespace)).split() == ["200", "403"]


async def test_pod_security_refuses_what_a_namespace_does_not_want(
    cluster: Cluster, namespace: str
) -> None:
    """A namespace labelled restricted takes no pod that runs as root."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    await cluster.kubectl("label", "namespace", namespace, label)
    with pytest.raises(CommandError, match="violates PodSecurity"):
        await cluster.kubectl("run", "bad", "-n", namespace, "--image=e2e/idle:1")


async def test_the_api_server_can_be_away(cluster: Cluster, api: KubeApi, pods: Pods) -> None:
    """Pods go on while it is down, and what happened is told when it is back."""
    await pods.create("lasting", lingering())
    before = await pods.until("lasting", "ready", is_ready)
    async with cluster.api_server_away():
        pass
    after = await pods.until("lasting", "ready", is_ready)
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]


async def test_pods_of_a_lost_node_are_evicted_and_the_node_comes_back(
    cluster: Cluster, api: KubeApi, pods: Pods
) -> None:
    """A silent node turns Unknown, its pods not Ready and Terminating; back again, they go."""
    await cluster.add_node("doomed", gpus=1)
    try:
        await pods.create("victim", lingering(), nodeName="doomed")
        await pods.until("victim", "ready", is_ready)
        await cluster.fail_node("doomed")

        async def unknown() -> bool:
            node = await api.get(NODES, "doomed")
            return condition_of((node or {})["status"], "Ready") == "Unknown"

        await eventually(unknown, "the node is Unknown")

        async def evicted() -> bool:
            pod = await pods.get("victim")
            return pod is not None and "deletionTimestamp" in pod["metadata"]

        await eventually(evicted, "the pod is evicted")
        pod = await pods.until("victim", "not ready", lambda status: not is_ready(status))
        assert pod["status"]["containerStatuses"][0]["state"].get("running")
        await cluster.recover_node("doomed")
        await pods.until_gone("victim")
    finally:
        await cluster.remove_node("doomed")


async def test_pods_without_processes_are_ready_at_once_and_go(
    cluster: Cluster, api: KubeApi, pods: Pods
) -> None:
    """A node for status-only pods makes many of them Ready, whatever their image."""
    await cluster.add_node("paper", gpus=0, status_only=True, pods=500)
    try:
        container = {"name": "main", "image": "nobody/has:this"}
        await pods.create("paper", container, nodeName="paper")
        await pods.until("paper", "ready", is_ready)
        await pods.delete("paper")
        await pods.until_gone("paper")
    finally:
        await cluster.remove_node("paper")


async def test_a_ready_that_another_took_away_comes_back(
    api: KubeApi, pods: Pods, namespace: str
) -> None:
    """What the node controller writes about a pod of a living node is corrected at once."""
    await pods.create("right", lingering())
    pod = await pods.until("right", "ready", is_ready)
    conditions = [
        each | {"status": "False"} if each["type"] == "Ready" else each
        for each in pod["status"]["conditions"]
    ]
    patch = {"status": {"conditions": conditions}}
    wrong = await api.merge_patch(PODS, "right", patch, namespace, subresource="status")
    assert not is_ready(wrong["status"])
    await pods.until("right", "ready again", is_ready)

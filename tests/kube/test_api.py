"""The client's verbs and errors, over real HTTP."""

import json
from pathlib import Path

import pytest

from heliostat_kube import connection as connections
from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection, find_connection
from heliostat_kube.errors import (
    ConfigurationError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    UnavailableError,
)
from heliostat_kube.resource import (
    LEASES,
    NODES,
    PODS,
    SERVICES,
    UPSTREAM_INFERENCE_POOLS,
    key_of,
    resource_of,
)
from tests.kube.api_server import FakeApiServer

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "llama", "namespace": "a"},
    "spec": {"type": "ClusterIP"},
}


def test_paths_are_those_of_the_api() -> None:
    """Core and named groups, one namespace, all of them, cluster-wide kinds and subresources."""
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("a", "one", "status") == "/api/v1/namespaces/a/pods/one/status"
    assert LEASES.path("a") == "/apis/coordination.k8s.io/v1/namespaces/a/leases"
    assert NODES.path("ignored", "n1") == "/api/v1/nodes/n1"
    assert resource_of(SERVICE) is SERVICES
    assert key_of(SERVICE) == "a/llama"


async def test_an_object_lives_from_create_to_delete(api: KubeApi) -> None:
    """Create, read, patch, replace, apply and delete one object."""
    created = await api.create(SERVICES, SERVICE, "a")
    assert created["metadata"]["uid"]
    patched = await api.merge_patch(SERVICES, "llama", {"metadata": {"labels": {"x": "1"}}}, "a")
    assert patched["metadata"]["labels"] == {"x": "1"}
    replaced = await api.replace(SERVICES, "llama", {**patched, "spec": {"type": "None"}}, "a")
    assert replaced["spec"] == {"type": "None"}
    await api.apply(SERVICE, field_manager="tests")
    assert (await api.get(SERVICES, "llama", "a") or {})["spec"] == {"type": "ClusterIP"}
    listing = await api.list(SERVICES)
    assert [key_of(item) for item in listing.items] == ["a/llama"]
    assert listing.items[0]["kind"] == "Service"
    await api.delete(SERVICES, "llama", "a")
    assert await api.get(SERVICES, "llama", "a") is None


async def test_an_apply_names_its_manager(api: KubeApi, server: FakeApiServer) -> None:
    """Server-side apply is a PATCH that says who owns the fields, and wins by force."""
    await api.apply(SERVICE, field_manager="heliostat-operator", subresource="status")
    method, path, query = server.requests[-1]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/a/services/llama/status")
    assert query == {"fieldManager": "heliostat-operator", "force": "true"}


async def test_stale_and_double_writes_are_conflicts(api: KubeApi) -> None:
    """A second create, an old resource version and another uid are all ConflictError."""
    first = await api.create(SERVICES, SERVICE, "a")
    with pytest.raises(ConflictError):
        await api.create(SERVICES, SERVICE, "a")
    await api.replace(SERVICES, "llama", first, "a")
    with pytest.raises(ConflictError):
        await api.replace(SERVICES, "llama", first, "a")
    with pytest.raises(ConflictError):
        await api.delete(SERVICES, "llama", "a", uid="another")


async def test_deleting_nothing_is_fine(api: KubeApi) -> None:
    """An object that is gone already is deleted without an error."""
    await api.delete(SERVICES, "absent", "a")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, InvalidError),
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, ExpiredError),
        (422, InvalidError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_answers_become_errors_by_kind(
    api: KubeApi, server: FakeApiServer, code: int, kind: type[KubeError]
) -> None:
    """Each status is the error that tells the caller what to do, with the server's own words."""
    server.faults = [(code, "SomeReason")]
    with pytest.raises(kind, match="told to fail") as caught:
        await api.list(PODS)
    assert (caught.value.status, caught.value.reason) == (code, "SomeReason")


async def test_no_server_is_unavailable() -> None:
    """A refused connection is UnavailableError with status 0, and says where it went."""
    async with KubeApi(Connection(server="http://127.0.0.1:1")) as api:
        with pytest.raises(UnavailableError, match="GET /api/v1/pods") as caught:
            await api.list(PODS)
    assert caught.value.status == 0


async def test_it_knows_which_kinds_are_served(api: KubeApi, server: FakeApiServer) -> None:
    """A kind is served if its group and version are, and list it."""
    server.missing = {"/apis/inference.networking.k8s.io/v1"}
    assert not await api.serves(UPSTREAM_INFERENCE_POOLS)
    server.missing.clear()
    server.served = {"/apis/inference.networking.k8s.io/v1"}
    assert await api.serves(UPSTREAM_INFERENCE_POOLS)


async def test_a_renewed_service_account_token_is_used(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token file is read again, so that requests outlive the token that was there first."""
    token = tmp_path / "token"
    token.write_text("first\n")
    monkeypatch.setattr(connections, "TOKEN_REFRESH_SECONDS", 0.0)
    account = connections.ServiceAccountToken(token)
    async with KubeApi(Connection(server=server.url, authorize=account.authorize)) as api:
        await api.list(PODS)
        token.write_text("second\n")
        await api.list(PODS)
        token.unlink()
        await api.list(PODS)
    assert server.authorizations == ["Bearer first", "Bearer second", "Bearer second"]


async def test_a_kubeconfig_tells_server_token_and_namespace(
    server: FakeApiServer, tmp_path: Path
) -> None:
    """The current context's cluster, user and namespace are used."""
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(json.dumps(kubeconfig_of(server.url)))
    async with KubeApi.connect(kubeconfig) as api:
        await api.list(PODS)
        assert api.namespace == "team"
    assert server.authorizations == ["Bearer secret"]


def kubeconfig_of(url: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}
        ],
        "clusters": [{"name": "c", "cluster": {"server": url + "/"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }


async def test_no_configuration_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without kubeconfig and service account the error names both ways."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(connections, "DEFAULT_KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="set KUBECONFIG"):
        await find_connection()
    with pytest.raises(ConfigurationError, match="no such kubeconfig"):
        await find_connection(tmp_path / "absent")

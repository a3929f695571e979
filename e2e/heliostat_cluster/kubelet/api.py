"""The few calls to the API server that only a kubelet makes."""

from typing import Any

from heliostat_kube.api import KubeApi
from heliostat_kube.resource import PODS, Json, Resource

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class KubeletApi(KubeApi):
    """Adds to the client what touches the status of pods and nodes."""

    async def patch_status(
        self,
        resource: Resource,
        name: str,
        status: Json,
        namespace: str | None = None,
        uid: str = "",
    ) -> Json:
        """Merge into a status, conditions by their type. ConflictError where the uid differs."""
        body: dict[str, Any] = {"status": status}
        if uid:
            body["metadata"] = {"uid": uid}
        path = resource.path(namespace, name, "status")
        return await self._request("PATCH", path, body=body, content_type=_STRATEGIC_MERGE_PATCH)

    async def remove_pod(self, namespace: str, name: str, uid: str) -> None:
        """Let a pod that has ended disappear."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await self._request("DELETE", PODS.path(namespace, name), body=options)

    async def request_token(self, namespace: str, account: str, spec: Json) -> str:
        """Have a token made for a service account."""
        path = SERVICE_ACCOUNTS.path(namespace, account, "token")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._request("POST", path, body=body)
        return str(answer["status"]["token"])

"""Writes one pod's status when it has changed, and only then."""

import asyncio
from collections.abc import Callable

from heliostat_cluster.kubelet.api import KubeletApi
from heliostat_cluster.kubelet.instants import now_text
from heliostat_cluster.kubelet.pod_status import PodView, desired_status
from heliostat_kube.errors import ConflictError, KubeError, NotFoundError
from heliostat_kube.resource import PODS, Json

_RETRY_SECONDS = 0.5


class StatusWriter:
    """One pod's status.

    online -- while it is not set, nothing is written: the node is cut off
    """

    def __init__(
        self, api: KubeletApi, pod: Json, online: asyncio.Event, view: Callable[[], PodView]
    ) -> None:
        self._api = api
        self._name = pod["metadata"]["name"]
        self._namespace = pod["metadata"]["namespace"]
        self._uid = pod["metadata"]["uid"]
        self._online = online
        self._view = view
        self._written: Json = {}
        self._before: Json = pod.get("status") or {}
        self._written_version = 0
        self._dirty = asyncio.Event()

    def observe(self, pod: Json) -> None:
        """Take a newer version of the pod; what another has changed of ours is written again.

        The node controller does so when it believes the node lost.
        """
        if int(pod["metadata"]["resourceVersion"]) > self._written_version:
            seen = pod.get("status") or {}
            if self._written and _states(seen, self._written) != _states(self._written):
                self._before, self._written = seen, {}
        self._dirty.set()

    def note_change(self) -> None:
        """Have the status written soon."""
        self._dirty.set()

    async def run(self) -> None:
        """Write whenever something has changed, until cancelled or the pod is gone."""
        while True:
            await self._dirty.wait()
            await self._online.wait()
            self._dirty.clear()
            try:
                await self.write()
            except (NotFoundError, ConflictError):
                return
            except KubeError:
                self._dirty.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def write(self) -> None:
        """Write the present status if it is news. Raises KubeError."""
        status = desired_status(self._view(), self._written or self._before, now_text())
        if status != self._written:
            pod = await self._api.patch_status(PODS, self._name, status, self._namespace, self._uid)
            self._written = status
            self._written_version = int(pod["metadata"]["resourceVersion"])


def _states(status: Json, like: Json | None = None) -> dict[str, str]:
    """Return the state of each condition; with `like`, only of those that it has too."""
    conditions = status.get("conditions") or ()
    states = {each["type"]: each["status"] for each in conditions}
    return states if like is None else {kind: states.get(kind, "") for kind in _states(like)}

"""How a test talks to the kubelet's process: a few orders over a Unix socket."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from heliostat_cluster.errors import ClusterError
from heliostat_cluster.kubelet.kubelet import Kubelet, UnknownNodeError
from heliostat_cluster.kubelet.node import NodeSpec
from heliostat_cluster.kubelet.settings import control_socket
from heliostat_kube.errors import KubeError

_ORDER_SECONDS = 30.0


def control_app(kubelet: Kubelet) -> web.Application:
    """Return the application that takes orders."""

    async def add(request: web.Request) -> web.Response:
        await kubelet.add_node(NodeSpec(**await request.json()))
        return web.Response()

    async def remove(request: web.Request) -> web.Response:
        await kubelet.remove_node(request.match_info["name"])
        return web.Response()

    async def fail(request: web.Request) -> web.Response:
        await kubelet.fail_node(request.match_info["name"])
        return web.Response()

    async def recover(request: web.Request) -> web.Response:
        await kubelet.recover_node(request.match_info["name"])
        return web.Response()

    app = web.Application(middlewares=[_errors])
    app.add_routes(
        [
            web.post("/nodes", add),
            web.delete("/nodes/{name}", remove),
            web.post("/nodes/{name}/fail", fail),
            web.post("/nodes/{name}/recover", recover),
        ]
    )
    return app


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except UnknownNodeError as error:
        return web.Response(status=404, text=f"no node {error.args[0]}")
    except KubeError as error:
        return web.Response(status=502, text=str(error))
    return response


class KubeletControl:
    """Gives orders to a kubelet's process, from any event loop."""

    def __init__(self, state: Path) -> None:
        self._socket = control_socket(state)

    async def add_node(self, spec: NodeSpec) -> None:
        """Register a node. Raises ClusterError."""
        await self._order("POST", "/nodes", json.dumps(asdict(spec)))

    async def remove_node(self, name: str) -> None:
        """Take a node away for good. Raises ClusterError."""
        await self._order("DELETE", f"/nodes/{name}")

    async def fail_node(self, name: str) -> None:
        """Cut a node off without a word to anyone. Raises ClusterError."""
        await self._order("POST", f"/nodes/{name}/fail")

    async def recover_node(self, name: str) -> None:
        """Bring a node back. Raises ClusterError."""
        await self._order("POST", f"/nodes/{name}/recover")

    async def _order(self, method: str, path: str, body: str | None = None) -> None:
        connector = aiohttp.UnixConnector(path=str(self._socket))
        timeout = aiohttp.ClientTimeout(total=_ORDER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://kubelet{path}", data=body) as response,
            ):
                if response.status != 200:
                    raise ClusterError(f"kubelet: {await response.text()}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterError(f"the kubelet does not answer: {error}") from error

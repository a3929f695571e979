"""Serves `kubectl logs`, as a kubelet does for the API server."""

import asyncio
from pathlib import Path

from aiohttp import web

KUBELET_PORT = 10250
_FOLLOW_SECONDS = 0.2


def log_app(state: Path) -> web.Application:
    """Return the application; logs are files below the state folder."""

    async def logs(request: web.Request) -> web.StreamResponse:
        match = request.match_info
        files = find_logs(state, match["namespace"], match["pod"], match["container"])
        if request.query.get("previous") == "true":
            files = files[:-1]
        if not files:
            return web.Response(status=404, text="there is no such log\n")
        return await _send(request, files[-1])

    app = web.Application()
    app.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", logs)])
    return app


def find_logs(state: Path, namespace: str, pod: str, container: str) -> list[Path]:
    """Return the logs of a container's runs in the newest pod of this name, oldest first."""
    folders = list((state / "pod-logs").glob(f"{namespace}_{pod}_*"))
    if not folders:
        return []
    newest = max(folders, key=lambda folder: folder.stat().st_ctime)
    return sorted((newest / container).glob("*.log"), key=lambda path: int(path.stem))


async def _send(request: web.Request, path: Path) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    with path.open("rb") as file:
        content = file.read()
        if (tail := request.query.get("tailLines")) is not None:
            content = b"".join(content.splitlines(keepends=True)[-int(tail) :] if int(tail) else [])
        await response.write(content)
        while request.query.get("follow") == "true":
            await asyncio.sleep(_FOLLOW_SECONDS)
            if more := file.read():
                await response.write(more)
    await response.write_eof()
    return response

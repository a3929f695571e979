"""An API server small enough for a unit test: real HTTP, list pages, watches, and faults on demand.

Objects are kept by collection path (`/api/v1/namespaces/a/pods`). What it does not know of
Kubernetes (validation, admission, field ownership) is proven on the real one.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Json = dict[str, Any]

TERMINATING = {"reason": "NamespaceTerminating", "field": "metadata.namespace"}


def status(code: int, reason: str, message: str = "told to fail") -> Json:
    """A Status object, as the API server answers failures."""
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


@dataclass
class FakeApiServer:
    """State, history and scripted faults of one server."""

    objects: dict[str, Json] = field(default_factory=dict)
    history: list[tuple[int, str, str, Json]] = field(default_factory=list)
    version: int = 100
    oldest_version: int = 0
    url: str = ""
    served: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    faults: list[tuple[int, str]] = field(default_factory=list)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    watch_errors: list[Json] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    mute_watches: bool = False
    watch_responses: list[web.StreamResponse] = field(default_factory=list)

    def calls(self, method: str, *, watch: bool | None = None) -> int:
        """How many requests of that method came, watches only, or all but watches."""
        return sum(
            1
            for called, _, query in self.requests
            if called == method and (watch is None or ("watch" in query) is watch)
        )

    def put(self, path: str, obj: Json, event: str | None = None) -> Json:
        """Store an object at its full path and tell the watchers."""
        self.version += 1
        known = self.objects.get(path)
        stored = copy.deepcopy(obj)
        metadata = stored.setdefault("metadata", {})
        metadata.setdefault("name", path.rsplit("/", 1)[1])
        if "/namespaces/" in path:
            metadata.setdefault("namespace", path.split("/namespaces/")[1].split("/")[0])
        metadata["resourceVersion"] = str(self.version)
        metadata["uid"] = known["metadata"]["uid"] if known else f"uid-{self.version}"
        self.objects[path] = stored
        self._tell(event or ("MODIFIED" if known else "ADDED"), path, stored)
        return stored

    def remove(self, path: str) -> None:
        """Delete an object and tell the watchers."""
        self.version += 1
        gone = self.objects.pop(path)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", path, gone)

    def forget_history(self) -> None:
        """Make every resource version until now too old to watch from."""
        self.history.clear()
        self.version += 1
        self.oldest_version = self.version

    def cut_watches(self) -> None:
        """Break every connection that carries a watch."""
        for response in self.watch_responses:
            if response._req is not None and response._req.transport is not None:
                response._req.transport.abort()
        self.watch_responses.clear()

    def _tell(self, event: str, path: str, obj: Json) -> None:
        self.history.append((self.version, event, path, copy.deepcopy(obj)))
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        query = dict(request.query)
        self.requests.append((request.method, request.path, query))
        self.authorizations.append(request.headers.get("authorization"))
        if self.faults:
            code, reason = self.faults.pop(0)
            return web.json_response(status(code, reason), status=code)
        if request.method != "GET" and request.path in self.refused:
            code, reason = self.refused[request.path]
            return web.json_response(status(code, reason), status=code)
        if any(request.path.startswith(path) for path in self.missing):
            return web.json_response(status(404, "NotFound"), status=404)
        if request.path in self.served:
            return web.json_response({"resources": [{"name": "inferencepools"}]})
        if request.method == "GET" and "watch" in query:
            return await self._watch(request, query)
        answer, code = await self._answer(request, query)
        return web.json_response(answer, status=code)

    async def _answer(self, request: web.Request, query: dict[str, str]) -> tuple[Json, int]:
        path = request.path.removesuffix("/status")
        known = self.objects.get(path)
        body: Json = json.loads(await request.read() or b"{}")
        if request.method == "GET" and path.rsplit("/", 1)[1].endswith("s"):
            return self._page(path, query)
        if known is None and request.method in ("POST", "PATCH") and self._ends(path):
            return {**status(403, "Forbidden"), "details": {"causes": [TERMINATING]}}, 403
        if request.method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return status(409, "AlreadyExists"), 409
            return self.put(path, body), 201
        if request.method == "PATCH" and "apply" in request.headers["content-type"]:
            return self.put(path, merged(known or {}, body)), 200
        if known is None:
            return status(404, "NotFound"), 404
        return self._change(request.method, path, known, body)

    def _ends(self, path: str) -> bool:
        """Whether a path is in a namespace that is being deleted."""
        return any(f"/namespaces/{name}/" in path for name in self.ending)

    def _change(self, method: str, path: str, known: Json, body: Json) -> tuple[Json, int]:
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != known["metadata"]["resourceVersion"]:
            return status(409, "Conflict"), 409
        if method == "PUT":
            return self.put(path, body), 200
        if method == "PATCH":
            return self.put(path, merged(known, body)), 200
        if method == "DELETE":
            uid = body.get("preconditions", {}).get("uid")
            if uid is not None and uid != known["metadata"]["uid"]:
                return status(409, "Conflict"), 409
            self.remove(path)
        return known, 200

    def _page(self, path: str, query: dict[str, str]) -> tuple[Json, int]:
        found = [obj for key, obj in sorted(self.objects.items()) if in_collection(key, path)]
        start = int(query.get("continue", "0"))
        end = start + int(query.get("limit", "500"))
        metadata = {"resourceVersion": str(self.version)}
        if end < len(found):
            metadata["continue"] = str(end)
        return {"metadata": metadata, "items": found[start:end]}, 200

    async def _watch(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        self.watch_responses.append(response)
        since = int(query["resourceVersion"])
        if self.watch_errors:
            await write(response, {"type": "ERROR", "object": self.watch_errors.pop(0)})
            return response
        if since < self.oldest_version:
            await write(response, {"type": "ERROR", "object": status(410, "Expired")})
            return response
        deadline = asyncio.get_running_loop().time() + float(query["timeoutSeconds"])
        while not self.mute_watches:
            changed = self.changed
            for version, event, path, obj in list(self.history):
                if version > since and in_collection(path, request.path):
                    await write(response, {"type": event, "object": obj})
                since = max(since, version)
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                break
        if self.mute_watches:
            await asyncio.Event().wait()
        await write(response, {"type": "BOOKMARK", "object": bookmark(since)})
        return response


def bookmark(version: int) -> Json:
    """The object of a bookmark."""
    return {"kind": "Any", "metadata": {"resourceVersion": str(version)}}


def in_collection(path: str, collection: str) -> bool:
    """Whether an object's path is in a collection, of one namespace or of all."""
    if path.rsplit("/", 1)[0] == collection:
        return True
    group, _, plural = collection.rpartition("/")
    parts = path.removeprefix(group + "/").split("/")
    return path.startswith(group) and parts[:1] == ["namespaces"] and parts[2:3] == [plural]


def merged(known: Json, patch: Json) -> Json:
    """A JSON merge patch applied."""
    result = dict(known)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = value
    return result


async def write(response: web.StreamResponse, line: Json) -> None:
    """Send one line of a watch, in two pieces, as chunks may fall anywhere."""
    data = json.dumps(line).encode() + b"\n"
    await response.write(data[:7])
    await response.write(data[7:])


@asynccontextmanager
async def running_api_server() -> AsyncIterator[FakeApiServer]:
    """Serve on a free port of loopback."""
    server = FakeApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    http = TestServer(app)
    await http.start_server()
    server.url = f"http://127.0.0.1:{http.port}"
    try:
        yield server
    finally:
        server.cut_watches()
        await http.close()

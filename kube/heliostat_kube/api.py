"""The Kubernetes API over HTTP, in raw JSON: the few verbs that Heliostat needs.

The generated client's model classes cost memory and CPU per object, and hide from a server-side
apply which fields were meant.
"""

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from heliostat_kube.connection import Connection, find_connection
from heliostat_kube.errors import (
    NotFoundError,
    UnavailableError,
    error_of_status,
    parse_error,
)
from heliostat_kube.resource import Json, Resource, resource_of

PAGE_SIZE = 500
REQUEST_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 5.0
KEEPALIVE_IDLE_SECONDS = 5
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 2
"""A connection whose other end is gone without a word is given up after 15 s."""

JSON_TYPE = "application/json"
MERGE_PATCH_TYPE = "application/merge-patch+json"
APPLY_TYPE = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Listing:
    """Objects of one kind, all from the moment of `resource_version`."""

    items: tuple[Json, ...]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent:
    """One line of a watch: type is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Json


class KubeApi:
    """A client of one API server. Every method raises KubeError, by kind, where it fails.

    Use it as an async context manager, on one event loop.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path | None = None) -> AsyncIterator[Self]:
        """Connect by the kubeconfig, or as `find_connection` finds; ConfigurationError if none."""
        async with cls(await find_connection(kubeconfig)) as api:
            yield api

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=_keepalive_socket),
            timeout=aiohttp.ClientTimeout(
                total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def namespace(self) -> str | None:
        """The namespace we run in, or the kubeconfig's."""
        return self.connection.namespace

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Json | None:
        """Read one object; None where there is none."""
        try:
            return await self._request("GET", resource.path(namespace, name))
        except NotFoundError:
            return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        """Read all objects, in pages; ExpiredError where the pages took too long."""
        items: tuple[Json, ...] = ()
        version = ""
        async for page in self.list_pages(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        ):
            items += page.items
            version = page.resource_version
        return Listing(items, version)

    async def list_pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Listing]:
        """Read all objects page by page, so that no more than one page is held at a time."""
        params = _params(
            limit=str(page_size), labelSelector=label_selector, fieldSelector=field_selector
        )
        while True:
            answer = await self._request("GET", resource.path(namespace), params=params)
            metadata = answer["metadata"]
            items = tuple(answer.get("items") or ())
            for item in items:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield Listing(items, str(metadata.get("resourceVersion", "")))
            following = metadata.get("continue")
            if not following:
                return
            params["continue"] = following

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        timeout_seconds: float,
        read_timeout_seconds: float,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Follow changes since a resource version, until the server's timeout ends the stream.

        A silence longer than `read_timeout_seconds` raises UnavailableError; a resource version
        that is too old raises ExpiredError.
        """
        params = _params(
            watch="true",
            resourceVersion=resource_version,
            allowWatchBookmarks="true",
            timeoutSeconds=str(max(1, round(timeout_seconds))),
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=read_timeout_seconds
        )
        path = resource.path(namespace)
        response = await self._send("GET", path, params=params, limits=limits)
        try:
            yield _watch_events(response, path)
        finally:
            response.close()

    async def apply(
        self, obj: Json, *, field_manager: str, force: bool = True, subresource: str | None = None
    ) -> Json:
        """Apply the fields of an object (server-side apply); its kind must be a known resource."""
        metadata = obj["metadata"]
        path = resource_of(obj).path(metadata.get("namespace"), metadata["name"], subresource)
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return await self._request("PATCH", path, params=params, body=obj, content_type=APPLY_TYPE)

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Json,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Json:
        """Change the fields named; null removes one. A resourceVersion in it guards the change."""
        path = resource.path(namespace, name, subresource)
        return await self._request("PATCH", path, body=patch, content_type=MERGE_PATCH_TYPE)

    async def create(self, resource: Resource, obj: Json, namespace: str | None = None) -> Json:
        """Create an object; ConflictError where one of that name exists."""
        return await self._request("POST", resource.path(namespace), body=obj)

    async def replace(
        self, resource: Resource, name: str, obj: Json, namespace: str | None = None
    ) -> Json:
        """Replace an object; ConflictError where its resourceVersion is not the current one."""
        return await self._request("PUT", resource.path(namespace, name), body=obj)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> None:
        """Delete an object; none to delete is fine. ConflictError where its uid is another."""
        options: Json = {"propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", resource.path(namespace, name), body=options)
        except NotFoundError:
            return

    async def serves(self, resource: Resource) -> bool:
        """Whether the server has this kind, in this version."""
        try:
            answer = await self._request("GET", resource.group_path)
        except NotFoundError:
            return False
        return any(served["name"] == resource.plural for served in answer.get("resources") or ())

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = JSON_TYPE,
    ) -> Json:
        data = None if body is None else msgspec.json.encode(body)
        response = await self._send(
            method, path, params=params, data=data, content_type=content_type
        )
        with _unreachable(method, path):
            async with response:
                answer: Any = msgspec.json.decode(await response.read())
        if not isinstance(answer, dict):
            raise UnavailableError(response.status, "Malformed", f"{path}: not a JSON object")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str = JSON_TYPE,
        limits: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request; an answer that is not a success is raised."""
        session = self._session
        if session is None:
            raise RuntimeError("KubeApi is used outside of its context")
        connection = self.connection
        headers = {"accept": JSON_TYPE}
        if data is not None:
            headers["content-type"] = content_type
        with _unreachable(method, path):
            authorization = await connection.authorize()
            if authorization is not None:
                headers["authorization"] = authorization
            response = await session.request(
                method,
                connection.server + path,
                params=params,
                data=data,
                headers=headers,
                ssl=connection.tls if connection.tls is not None else True,
                proxy=connection.proxy,
                server_hostname=connection.server_name,
                timeout=limits or session.timeout,
                allow_redirects=False,
            )
            if response.status < 300:
                return response
            async with response:
                raise parse_error(response.status, await response.read())


@contextmanager
def _unreachable(method: str, path: str) -> Iterator[None]:
    """Raise UnavailableError for whatever the network does."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
        text = str(error) or type(error).__name__
        raise UnavailableError(0, "Unreachable", f"{method} {path}: {text}") from error


async def _watch_events(response: aiohttp.ClientResponse, path: str) -> AsyncIterator[WatchEvent]:
    lines = _lines(response.content)
    while True:
        with _unreachable("watch", path):
            line = await anext(lines, None)
            if line is None:
                return
            event: Any = msgspec.json.decode(line)
        if event["type"] == "ERROR":
            raise error_of_status(event["object"])
        yield WatchEvent(event["type"], event["object"])


def _params(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream at newlines, whatever the length of a line."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _keepalive_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made

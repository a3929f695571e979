"""Plays kube-proxy for one Service: new connections go to its ready endpoints, in turn.

Works as iptables do: a connection stays where it was sent, and an endpoint that is no longer ready
gets no new one while there are others.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from heliostat_kube.api import KubeApi
from heliostat_kube.informer import Informer
from heliostat_kube.resource import Resource

ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 3.0


class ServiceProxy:
    """Forwards connections on a local port to the Service's port of this name."""

    def __init__(self, api: KubeApi, namespace: str, service: str, port_name: str) -> None:
        self._port_name = port_name
        self._turn = itertools.count()
        self._changed = asyncio.Event()
        self._slices: Informer[Any] = Informer(
            api,
            ENDPOINT_SLICES,
            namespace=namespace,
            label_selector=f"kubernetes.io/service-name={service}",
            trim=lambda data: data,
            on_change=lambda _key, _old, _new: self._changed.set(),
        )

    @asynccontextmanager
    async def serve(self, address: str = "127.0.0.1") -> AsyncIterator[str]:
        """Forward until the context ends, from a port of this address; gives `host:port`."""
        watch = asyncio.create_task(self._slices.run())
        server = await asyncio.start_server(self._forward, address, 0)
        try:
            await self._slices.synced.wait()
            host, port = server.sockets[0].getsockname()[:2]
            yield f"{host}:{port}"
        finally:
            server.close()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def wait_for_endpoints(self, wanted: int, *, within_seconds: float = 60.0) -> None:
        """Wait until exactly so many endpoints are ready."""
        async with asyncio.timeout(within_seconds):
            while len(self.endpoints()) != wanted:
                self._changed.clear()
                await self._changed.wait()

    def endpoints(self) -> list[tuple[str, int]]:
        """Give the ready endpoints; those that still serve where none is ready."""
        ready, serving = set(), set()
        for piece in self._slices.items.values():
            ports = [p["port"] for p in piece.get("ports") or () if p["name"] == self._port_name]
            for endpoint in piece.get("endpoints") or ():
                conditions = endpoint.get("conditions", {})
                addresses = {(endpoint["addresses"][0], port) for port in ports}
                ready |= addresses if conditions.get("ready") else set()
                serving |= addresses if conditions.get("serving") else set()
        return sorted(ready or serving)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoints = self.endpoints()
        try:
            if not endpoints:
                return
            host, port = endpoints[next(self._turn) % len(endpoints)]
            async with asyncio.timeout(_CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(host, port)
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        except (OSError, TimeoutError):
            return
        finally:
            writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carry bytes one way; the end of the source ends the sink's writing half."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(_CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
    with contextlib.suppress(OSError):
        sink.write_eof()

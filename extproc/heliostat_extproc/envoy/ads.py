"""The ADS server: tells every connected Envoy the newest good pools, and learns what they hold."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

import grpc.aio
import structlog
from envoy.service.discovery.v3.ads_pb2_grpc import (
    AggregatedDiscoveryServiceServicer,
    add_AggregatedDiscoveryServiceServicer_to_server,
)
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.ads_stream import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    TYPES,
    Answer,
    EnvoyStream,
    Offer,
    Version,
)
from heliostat_extproc.envoy.peer_resources import NO_PEERING, Peering
from heliostat_extproc.envoy.resources import Resources, ResourceSettings, build_resources

_Context = grpc.aio.ServicerContext[DiscoveryRequest, DiscoveryResponse]
_log = structlog.get_logger(__name__)


class AdsServer(AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Serves ADS (state of the world) to any number of Envoys.

    `on_acked` is called with the addresses of each pool that every Envoy has acknowledged, whenever
    they change: only those may be picked. An Envoy counts from its first acknowledgement until it
    disconnects; after the last one they stay, because an Envoy keeps what it had.
    """

    def __init__(
        self,
        on_acked: Callable[[Mapping[str, frozenset[str]]], None],
        settings: ResourceSettings | None = None,
    ) -> None:
        self._on_acked = on_acked
        self._settings = settings or ResourceSettings()
        self._newest: dict[str, Version] = {}
        self._good: dict[str, Version] = {}
        self._refused: set[tuple[str, int]] = set()
        self._streams: dict[EnvoyStream, asyncio.Event] = {}
        self._acked: Mapping[str, frozenset[str]] = {}
        self.refusals = 0
        """How often an Envoy has refused an update."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service."""
        add_AggregatedDiscoveryServiceServicer_to_server(self, server)

    @property
    def connected(self) -> int:
        """The number of connected Envoys."""
        return len(self._streams)

    def publish(
        self,
        pools: Mapping[str, Sequence[str]],
        peering: Peering = NO_PEERING,
        restricted: Collection[str] = (),
        credentials: tuple[tuple[str, str], ...] | None = None,
    ) -> None:
        """Make these all the pools (name -> `ip:port` addresses) and all the peers of Envoys.

        `restricted` pools have a rule where requests may be served: nothing goes there by itself.
        `credentials` are the API keys of clients, each with its tenant.

        Call it again with the whole truth at each change; nothing is sent before the first call.
        Keep a pool, an endpoint or a peer in it until its last request is done. AddressError, and
        nothing changes, if an address is not `ip:port`.
        """
        self.offer(build_resources(pools, self._settings, peering, restricted, credentials))

    def offer(self, resources: Resources) -> None:
        """Make these resources the newest; Envoys that refuse them keep the last good ones."""
        self._renew(CLUSTER_TYPE, resources.clusters)
        self._renew(ENDPOINT_TYPE, resources.assignments, resources.addresses)
        self._renew(ROUTE_TYPE, resources.routes)
        if resources.secrets:  # a certificate is replaced, never taken back
            self._renew(SECRET_TYPE, resources.secrets)
        self._wake_all()

    def _renew(
        self,
        type_url: str,
        resources: Mapping[str, bytes],
        addresses: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        newest = self._newest.get(type_url)
        if newest is None or newest.resources != resources:
            number = newest.number + 1 if newest else 1
            self._newest[type_url] = Version(number, resources, addresses or {})

    def _current(self) -> Offer:
        offered = {}
        for type_url in TYPES:
            version = self._newest.get(type_url)
            if version and (type_url, version.number) in self._refused:
                version = self._good.get(type_url)
            if version:
                offered[type_url] = version
        return offered

    def _wake_all(self) -> None:
        for wake in self._streams.values():
            wake.set()

    async def StreamAggregatedResources(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[DiscoveryRequest], context: _Context
    ) -> None:
        """Serve one Envoy until it goes away."""
        stream, wake = EnvoyStream(), asyncio.Event()
        self._streams[stream] = wake
        try:
            async with asyncio.TaskGroup() as group:
                # Where it fails the stream ends: an Envoy that hears no more must connect anew.
                writer = group.create_task(self._write(stream, wake, context))
                async for request in request_iterator:
                    if answer := stream.on_request(request):
                        self._on_answer(answer)
                    self._report_acked()
                    wake.set()
                writer.cancel()
        finally:
            del self._streams[stream]
            self._report_acked()

    async def _write(self, stream: EnvoyStream, wake: asyncio.Event, context: _Context) -> None:
        while True:
            await wake.wait()
            wake.clear()
            for response in stream.responses(self._current()):
                self._report_acked()
                await context.write(response)

    def _on_answer(self, answer: Answer) -> None:
        if answer.refusal is None:
            self._on_acknowledged(answer)
        else:
            self._on_refused(answer)

    def _on_acknowledged(self, answer: Answer) -> None:
        good = self._good.setdefault(answer.type_url, answer.version)
        refused = (answer.type_url, answer.version.number) in self._refused
        if answer.version.number > good.number and not refused:
            self._good[answer.type_url] = answer.version

    def _on_refused(self, answer: Answer) -> None:
        self.refusals += 1
        key = (answer.type_url, answer.version.number)
        if key not in self._refused:
            self._refused.add(key)
            _log.error(
                "envoy refused an update; the last good one stays",
                resource_type=answer.type_url.rpartition(".")[2],
                version=answer.version.number,
                reason=answer.refusal,
            )
        self._wake_all()

    def _report_acked(self) -> None:
        held = [s.acked_addresses for s in self._streams if s.acked_addresses is not None]
        if not held:
            return
        acked = {
            wire.pool_name(cluster): frozenset.intersection(*(one[cluster] for one in held))
            for cluster in held[0]
            if all(cluster in one for one in held)
        }
        if acked != self._acked:
            self._acked = acked
            self._on_acked(acked)

"""The ADS server between its publisher and its Envoys, over real gRPC streams."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from heliostat_extproc.envoy.ads import AdsServer
from heliostat_extproc.envoy.ads_stream import CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE


class Envoy:
    """Speaks as an Envoy, one message at a time."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()

    async def ask(self, type_url: str, *names: str) -> None:
        """Subscribe."""
        await self._call.write(DiscoveryRequest(type_url=type_url, resource_names=names))

    async def read(self) -> DiscoveryResponse:
        """Wait for the next response."""
        async with asyncio.timeout(5):
            return await self._call.read()

    async def answer(self, response: DiscoveryResponse, *names: str, error: str = "") -> None:
        """Acknowledge or refuse a response."""
        request = DiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce, resource_names=names
        )
        if error:
            request.error_detail.message = error
        await self._call.write(request)


@asynccontextmanager
async def connected(ads: AdsServer, directory: Path) -> AsyncIterator[Envoy]:
    server = grpc.aio.server()
    ads.add_to(server)
    server.add_insecure_port(f"unix:{directory}/ads.sock")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{directory}/ads.sock") as channel:
            yield Envoy(channel)
    finally:
        await server.stop(None)


async def test_a_refusal_falls_back_to_the_last_version_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    """A version that is acknowledged after the next was published is good all the same."""
    acked: list[object] = []
    ads = AdsServer(acked.append)
    async with connected(ads, tmp_path) as envoy:
        ads.publish({"a": ["10.0.0.1:80"]})
        await envoy.ask(CLUSTER_TYPE)
        await envoy.ask(ENDPOINT_TYPE, "pool:a")
        clusters, first = await envoy.read(), await envoy.read()
        await envoy.answer(clusters)
        await envoy.answer(first, "pool:a")
        ads.publish({"a": ["10.0.0.1:80", "10.0.0.2:80"]})
        second = await envoy.read()
        ads.publish({"a": ["10.0.0.3:80"]})
        await envoy.answer(second, "pool:a")
        third = await envoy.read()
        await envoy.answer(third, "pool:a", error="no")
        fallback = await envoy.read()
    assert [r.version_info for r in (first, second, third, fallback)] == ["1", "2", "3", "2"]
    assert fallback.resources == second.resources


async def test_an_update_that_cannot_be_sent_ends_the_stream(tmp_path: Path) -> None:
    """The Envoy connects anew, where silence would leave it with what it has for ever."""

    def take(acked: Mapping[str, frozenset[str]]) -> None:
        if not acked["a"]:
            raise RuntimeError

    ads = AdsServer(take)
    async with connected(ads, tmp_path) as envoy:
        ads.publish({"a": ["10.0.0.1:80"]})
        await envoy.ask(CLUSTER_TYPE)
        await envoy.ask(ENDPOINT_TYPE, "pool:a")
        clusters, endpoints = await envoy.read(), await envoy.read()
        await envoy.answer(clusters)
        await envoy.answer(endpoints, "pool:a")
        await envoy.ask(ROUTE_TYPE, "pools")
        await envoy.read()
        ads.publish({"a": []})
        with pytest.raises(grpc.aio.AioRpcError):
            await envoy.read()

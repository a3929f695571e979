"""A gateway of others, played message by message: for what a real Envoy cannot be made to send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub

from heliostat_extproc.discovery.folder import FolderDiscovery
from heliostat_extproc.listeners import PickerAddress
from heliostat_extproc.process import RouterProcess, RouterSettings, run_router
from heliostat_extproc.upb import ProcessingMode
from heliostat_routing.router import Router
from heliostat_routing.views import EndpointView, PoolView
from tests.gateway.conftest import BODY_LIMIT_BYTES, SCRAPE, eventually, find_free_port

DEADLINE_SECONDS = 20.0
STREAMED = ProcessingMode.FULL_DUPLEX_STREAMED
BUFFERED = ProcessingMode.BUFFERED
DESTINATION = "x-gateway-destination-endpoint"


class Picker:
    """A router that other gateways alone ask, and its folder of manifests."""

    def __init__(self, folder: Path, router: RouterProcess, port: int) -> None:
        self.folder = folder
        self.router = router
        self.port = port
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def add_pool(
        self, model: str, *addresses: str, aliases: tuple[str, ...] = (), **routing: Any
    ) -> None:
        """Write a pool and wait until the core knows it."""
        manifest = {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": model},
            "spec": {
                "model": {"name": model, "aliases": list(aliases)},
                "endpoints": [{"address": address} for address in addresses],
                "routing": routing,
            },
        }
        draft = self.folder / f".{model}.yaml"
        draft.write_text(yaml.safe_dump(manifest))
        draft.rename(self.folder / f"{model}.yaml")
        await eventually(lambda: self.view(model) is not None, f"pool {model} is known")

    def view(self, pool: str) -> PoolView | None:
        return next((v for v in self.router.driver.views() if v.pool == pool), None)

    def endpoint(self, pool: str, address: str) -> EndpointView:
        view = self.view(pool)
        assert view is not None
        return next(endpoint for endpoint in view.endpoints if endpoint.address == address)

    async def until_idle(self) -> None:
        """Wait until no request is open."""
        await eventually(lambda: self.router.driver.open_requests == 0, "no request is open")

    def ask(self) -> "Asked":
        """Begin a request."""
        return Asked(self.channel)


@asynccontextmanager
async def run_picker(
    directory: Path, *, tls: bool = False, fallbacks: int = 2, **settings: Any
) -> AsyncIterator[Picker]:
    """Run a router without an Envoy of its own."""
    folder = directory / "pools"
    folder.mkdir()
    port = find_free_port()
    router_settings = RouterSettings(
        discovery=FolderDiscovery(folder),
        socket=directory / "router.sock",
        own_envoy=False,
        picker=PickerAddress(f"127.0.0.1:{port}", tls=tls, fallbacks=fallbacks),
        admin_port=0,
        body_limit_bytes=BODY_LIMIT_BYTES,
        scrape=SCRAPE,
        **settings,
    )
    async with run_router(router_settings, Router()) as router:
        picker = Picker(folder, router, port)
        try:
            yield picker
        finally:
            await picker.channel.close()


class Asked:
    """The gateway's side of one request."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stream = ExternalProcessorStub(channel).Process(timeout=DEADLINE_SECONDS)

    async def headers(
        self,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        *,
        mode: int | None = STREAMED,
        response_mode: int = ProcessingMode.NONE,
        end: bool = False,
        subset: object = None,
        **more: str,
    ) -> None:
        """Send the request's headers; `_` in a name stands for a dash."""
        message = ext_proc.ProcessingRequest()
        message.request_headers.end_of_stream = end
        named = {":method": method, ":path": path}
        named |= {name.replace("_", "-"): value for name, value in more.items()}
        for key, value in named.items():
            message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        if mode is not None:
            message.protocol_config.request_body_mode = mode
            message.protocol_config.response_body_mode = response_mode
        if subset is not None:
            hint = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
            hint.update({"x-gateway-destination-endpoint-subset": subset})
        await self._stream.write(message)

    async def body(self, content: bytes, *, end: bool = True) -> None:
        """Send a part of the request's body."""
        part = ext_proc.HttpBody(body=content, end_of_stream=end)
        await self._stream.write(ext_proc.ProcessingRequest(request_body=part))

    async def trailers(self) -> None:
        """End the request with trailers."""
        message = ext_proc.ProcessingRequest()
        message.request_trailers.SetInParent()
        await self._stream.write(message)

    async def response_headers(
        self, status: str = "200", *, served: str | None = None, end: bool = False
    ) -> None:
        """Show the response's headers."""
        message = ext_proc.ProcessingRequest()
        message.response_headers.end_of_stream = end
        message.response_headers.headers.headers.add(key=":status", raw_value=status.encode())
        if served is not None:
            message.metadata_context.filter_metadata["envoy.lb"].update(
                {"x-gateway-destination-endpoint-served": served}
            )
        await self._stream.write(message)

    async def response_body(self, content: bytes, *, end: bool = False) -> None:
        """Show a part of the response's body."""
        part = ext_proc.HttpBody(body=content, end_of_stream=end)
        await self._stream.write(ext_proc.ProcessingRequest(response_body=part))

    async def read(self) -> Any:
        """Give the next answer; None where the router has ended the stream."""
        answer = await self._stream.read()
        return None if answer is grpc.aio.EOF else answer

    async def answer(self) -> Any:
        """Give the next answer that is no wish for time."""
        while True:
            answer = await self.read()
            if answer is None or not answer.HasField("override_message_timeout"):
                return answer

    async def end(self) -> None:
        """End the stream as a gateway does after the exchange."""
        await self._stream.done_writing()

    async def code(self) -> grpc.StatusCode:
        """Give the status with which the router has ended the stream."""
        return await self._stream.code()


def picked(answer: Any, part: str) -> list[str]:
    """Give the endpoints that an answer names, checked to be the same in header and metadata."""
    mutation = getattr(answer, part).response.header_mutation
    headers = {option.header.key: option.header.raw_value for option in mutation.set_headers}
    named = headers[DESTINATION].decode()
    assert answer.dynamic_metadata["envoy.lb"][DESTINATION] == named
    return named.split(",")

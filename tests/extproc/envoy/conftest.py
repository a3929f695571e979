"""A real Envoy between a scripted router and small real engines, all in one event loop."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc.aio
import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import (
    ExternalProcessorServicer,
    add_ExternalProcessorServicer_to_server,
)

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.access_log import ACCESS_LOG_PATH, AccessLogServer
from heliostat_extproc.envoy.addresses import requests_socket
from heliostat_extproc.envoy.ads import AdsServer
from heliostat_extproc.envoy.bootstrap import BootstrapSettings
from heliostat_extproc.envoy.process import EnvoyProcess
from heliostat_extproc.grpc_streams.grpcio import generic_handler
from heliostat_routing.events import Event

DEADLINE_SECONDS = 10.0
BODY_LIMIT_BYTES = 100_000
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 2,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 8},
}


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail at the deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def free_port() -> int:
    """Find a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


Behaviour = Callable[[asyncio.StreamWriter, "Engine"], Awaitable[None]]


def _head(status: str, content_type: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n".encode()


async def answer_json(writer: asyncio.StreamWriter, engine: "Engine") -> None:
    """Answer a plain completion with usage."""
    body = json.dumps({"served_by": engine.address, "choices": [], "usage": USAGE}).encode()
    head = _head("200 OK", "application/json") + f"content-length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body)


async def answer_503(writer: asyncio.StreamWriter, engine: "Engine") -> None:
    """Answer as an overloaded engine."""
    writer.write(
        _head("503 Service Unavailable", "application/json") + b"content-length: 0\r\n\r\n"
    )


async def close_silently(writer: asyncio.StreamWriter, engine: "Engine") -> None:
    """Close the connection before any response header."""
    writer.close()


async def answer_nothing(writer: asyncio.StreamWriter, engine: "Engine") -> None:
    """Answer 200 without a body."""
    writer.write(_head("200 OK", "text/event-stream") + b"content-length: 0\r\n\r\n")


async def answer_overloaded_stream(writer: asyncio.StreamWriter, engine: "Engine") -> None:
    """Accept a stream and then refuse it, as vLLM does when several requests come at once."""
    writer.write(_head("200 OK", "text/event-stream") + b"transfer-encoding: chunked\r\n\r\n")
    error = {"message": "busy", "type": "Service Unavailable", "param": None, "code": 503}
    writer.write(_chunk(f"data: {json.dumps({'error': error})}\n\n"))
    writer.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")


def _chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


async def answer_stream(writer: asyncio.StreamWriter, engine: "Engine") -> None:
    """Stream tokens with usage; the first and the last wait for the engine's gates."""
    writer.write(_head("200 OK", "text/event-stream") + b"transfer-encoding: chunked\r\n\r\n")
    await writer.drain()
    await engine.first_token.wait()
    delta = {"choices": [{"delta": {"content": "a"}}], "model": "m"}
    writer.write(_chunk(f"data: {json.dumps(delta)}\n\n"))
    await writer.drain()
    await engine.last_token.wait()
    writer.write(_chunk(f"data: {json.dumps({'choices': [], 'model': 'm', 'usage': USAGE})}\n\n"))
    writer.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")


@dataclass
class Engine:
    """A small HTTP server that does one thing to each request."""

    behaviour: Behaviour = answer_json
    address: str = ""
    requests: list[dict[str, str]] = field(default_factory=list)
    first_token: asyncio.Event = field(default_factory=asyncio.Event)
    last_token: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append(headers)
                await self.behaviour(writer, self)
                await writer.drain()
        writer.close()


@dataclass
class Pick:
    """What the scripted router answers to a request."""

    endpoints: str
    pool: str = "a"
    hold: asyncio.Event | None = None
    reject_status: int | None = None


@dataclass
class ScriptedRouter(ExternalProcessorServicer):
    """A router whose picks the test decides; tickets count from 1."""

    pick: Pick = field(default_factory=lambda: Pick(""))
    events: list[Event] = field(default_factory=list)
    acked: Mapping[str, frozenset[str]] = field(default_factory=dict)
    tickets: int = 0
    held: int = 0
    finished: int = 0
    seen_headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ads = AdsServer(self._on_acked)
        self.log = AccessLogServer(self.events.append)

    def _on_acked(self, addresses: Mapping[str, frozenset[str]]) -> None:
        self.acked = addresses

    def of(self, kind: type) -> list[Event]:
        """List the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def Process(self, request_iterator, context):  # noqa: N802
        """Answer the headers, then the body."""
        try:
            async for request in request_iterator:
                if request.HasField("request_headers"):
                    headers = request.request_headers.headers.headers
                    self.seen_headers.append({h.key: h.raw_value.decode() for h in headers})
                    yield ext_proc.ProcessingResponse(request_headers=ext_proc.HeadersResponse())
                elif request.HasField("request_body"):
                    self.tickets += 1
                    ticket, pick = self.tickets, self.pick
                    if pick.hold:
                        yield _override_timeout(30)
                        self.held += 1
                        if await _client_left(request_iterator, pick.hold):
                            return
                    yield _reply(ticket, pick)
        finally:
            self.finished += 1


async def _client_left(request_iterator, hold: asyncio.Event) -> bool:
    """Hold until the event, or until Envoy ends the call because the client is gone."""
    held = asyncio.create_task(hold.wait())
    ended = asyncio.ensure_future(anext(request_iterator, None))
    await asyncio.wait((held, ended), return_when=asyncio.FIRST_COMPLETED)
    held.cancel()
    return ended.done()


def _override_timeout(seconds: int) -> ext_proc.ProcessingResponse:
    response = ext_proc.ProcessingResponse()
    response.override_message_timeout.seconds = seconds
    return response


def _reply(ticket: int, pick: Pick) -> ext_proc.ProcessingResponse:
    response = ext_proc.ProcessingResponse()
    if pick.reject_status:
        response.immediate_response.status.code = pick.reject_status
        response.immediate_response.body = b'{"router": true}'
        return response
    common = response.request_body.response
    common.clear_route_cache = True
    steering = {
        wire.CLUSTER_HEADER: wire.cluster_name(pick.pool),
        wire.TICKET_HEADER: str(ticket),
    }
    for key, text in steering.items():
        header = HeaderValue(key=key, raw_value=text.encode())
        common.header_mutation.set_headers.append(
            HeaderValueOption(
                header=header, append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
            )
        )
    response.dynamic_metadata.update(
        {
            wire.LB_NAMESPACE: {wire.ENDPOINT_KEY: pick.endpoints},
            wire.ROUTER_NAMESPACE: {wire.TICKET_KEY: str(ticket)},
        }
    )
    return response


@dataclass
class Answer:
    """What the client got."""

    status: int
    headers: dict[str, str]
    body: dict


class Gateway:
    """A running Envoy with its scripted router."""

    def __init__(self) -> None:
        self.router = ScriptedRouter()
        self.port = free_port()
        self.stack = AsyncExitStack()
        self.envoy: EnvoyProcess
        self.server: grpc.aio.Server | None = None

    async def start(self, directory: Path, message_timeout_seconds: float) -> None:
        """Start the router, then Envoy."""
        self.socket = directory / "router.sock"
        await self.start_router()
        self.envoy = EnvoyProcess(
            lambda admin: BootstrapSettings(
                router_socket=self.socket,
                admin=admin,
                listen_address="127.0.0.1",
                listen_port=self.port,
                body_limit_bytes=BODY_LIMIT_BYTES,
                message_timeout_seconds=message_timeout_seconds,
            )
        )
        await self.stack.enter_async_context(self.envoy)
        self.client = await self.stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS))
        )

    async def start_router(self) -> None:
        """Serve ext_proc, ADS and the access log on the Unix sockets."""
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        add_ExternalProcessorServicer_to_server(self.router, self.server)
        self.router.ads.add_to(self.server)
        self.server.add_generic_rpc_handlers(
            (generic_handler(ACCESS_LOG_PATH, self.router.log.serve),)
        )
        for path in (self.socket, requests_socket(self.socket)):
            self.server.add_insecure_port(f"unix:{path}")
        await self.server.start()

    async def stop_router(self) -> None:
        """Stop at once, as a crash does."""
        if self.server:
            await self.server.stop(None)

    async def publish(self, **pools: list[str]) -> None:
        """Publish pools and wait until Envoy serves and holds exactly these endpoints."""
        self.router.ads.publish(pools)
        await eventually(lambda: self.router.acked == {pool: {*pools[pool]} for pool in pools})
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.envoy.wait_until_ready()

    async def engine(self, behaviour: Behaviour = answer_json) -> Engine:
        """Start an engine."""
        engine = Engine(behaviour)
        server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
        self.stack.callback(server.close)
        engine.address = "127.0.0.1:" + str(server.sockets[0].getsockname()[1])
        return engine

    def url(self) -> str:
        """Give the address of chat completions."""
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"

    async def post(self, body: object = BODY, headers: dict[str, str] | None = None) -> Answer:
        """Send one request and read the whole JSON answer."""
        async with self.client.post(self.url(), json=body, headers=headers) as response:
            parsed = json.loads(await response.text() or "{}")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, parsed)

    async def close(self) -> None:
        """Stop everything."""
        await self.stack.aclose()
        await self.stop_router()


@asynccontextmanager
async def _running(message_timeout_seconds: float) -> AsyncIterator[Gateway]:
    gateway = Gateway()
    with tempfile.TemporaryDirectory() as directory:
        try:
            await gateway.start(Path(directory), message_timeout_seconds)
            yield gateway
        finally:
            await gateway.close()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway without pools."""
    async with _running(message_timeout_seconds=1.0) as running:
        yield running


@pytest.fixture
async def impatient_gateway() -> AsyncIterator[Gateway]:
    """A gateway that gives the router only 0.2 s a message."""
    async with _running(message_timeout_seconds=0.2) as running:
        yield running

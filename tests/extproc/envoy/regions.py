"""Two regions on one machine: a real Envoy each, routers whose words the test decides, engines."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import grpc.aio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import (
    ExternalProcessorServicer,
    add_ExternalProcessorServicer_to_server,
)

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.access_log import ACCESS_LOG_PATH, AccessLogServer
from heliostat_extproc.envoy.addresses import requests_socket, state_socket
from heliostat_extproc.envoy.ads import AdsServer
from heliostat_extproc.envoy.bootstrap import BootstrapSettings
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.peer_resources import LinkRoute, Peering, PeerRoute
from heliostat_extproc.envoy.process import EnvoyProcess
from heliostat_extproc.envoy.reachability import ReachabilityServer
from heliostat_extproc.envoy.resources import ResourceSettings
from heliostat_extproc.envoy.wire import Entrance
from heliostat_extproc.ext_proc_wire import (
    CONTINUE,
    Part,
    PeerTerms,
    dispatch_response,
    forward_response,
    immediate_response,
)
from heliostat_extproc.federation.region_certificate import RegionCertificate
from heliostat_extproc.grpc_streams.grpcio import generic_handler
from heliostat_routing.events import Event

from .conftest import DEADLINE_SECONDS, free_port

POOL = "p"
BODY_LIMIT_BYTES = 32 * 1024 * 1024
TOKEN = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def identity_of(region: str) -> str:
    return f"spiffe://heliostat.example/region/{region}"


class Authority:
    """Signs certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca-{id(self)}")])
        certificate = (
            self._begin(self._name, self._key.public_key(), 30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(Encoding.PEM)

    def issue(self, identity: str, days: float = 7, authority: bytes = b"") -> RegionCertificate:
        """Make a certificate for an identity; with negative days it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        certificate = (
            self._begin(x509.Name([]), key.public_key(), days)
            .add_extension(name, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return RegionCertificate(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            authority or self.pem,
            identity,
            certificate.not_valid_after_utc,
        )

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: float
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
        )


@dataclass(frozen=True)
class Serve:
    """Send the request to the region's own engine."""


@dataclass(frozen=True)
class Forward:
    """Send it to another region."""

    region: str


@dataclass(frozen=True)
class Refuse:
    """Answer it with this status."""

    status: int = 503


Word = Serve | Forward | Refuse


@dataclass(frozen=True)
class Asked:
    """One question of Envoy's."""

    entrance: Entrance
    headers: dict[str, str]


class RegionRouter(ExternalProcessorServicer):
    """Says at each entrance what the test has written there; tickets count from 1."""

    def __init__(self, engine: str, resources: ResourceSettings) -> None:
        self.words: dict[Entrance, Word] = dict.fromkeys(Entrance, Serve())
        self.asked: list[Asked] = []
        self.events: list[Event] = []
        self.acked: dict[str, frozenset[str]] = {}
        self.watched_by: list[str] = []
        self.ads = AdsServer(self.acked.update, resources)
        self.log = AccessLogServer(self.events.append)
        self.quick = asyncio.Event()
        """While it is not set, what has come back waits for its answer."""
        self.quick.set()
        self._engine = engine
        self._tickets = 0

    def at(self, entrance: Entrance) -> list[Asked]:
        """List what came in there."""
        return [asked for asked in self.asked if asked.entrance is entrance]

    async def Process(self, request_iterator, context):  # noqa: N802
        """Answer the headers of what has come back, else the body."""
        metadata = dict(context.invocation_metadata())
        entrance = Entrance(metadata[wire.ENTRANCE_METADATA])
        async for request in request_iterator:
            part = request.WhichOneof("request")
            if part == "request_headers":
                headers = request.request_headers.headers.headers
                seen = {header.key: header.raw_value.decode() for header in headers}
                self.asked.append(Asked(entrance, seen))
                if entrance is not Entrance.RETURN:
                    yield ext_proc.ProcessingResponse.FromString(CONTINUE[part])
                    continue
                await self.quick.wait()
            self._tickets += 1
            yield ext_proc.ProcessingResponse.FromString(self._say(self.words[entrance], part))

    def _say(self, word: Word, part: Part) -> bytes:
        if isinstance(word, Forward):
            terms = PeerTerms("router-1", 5.0, None)
            return forward_response(word.region, POOL, self._tickets, terms, part=part)
        if isinstance(word, Refuse):
            return immediate_response(word.status, b'{"refused": true}')
        return dispatch_response(POOL, self._tickets, [self._engine], part=part)

    async def watch(self, request_iterator, context):
        """Echo each message; who asks is noted."""
        metadata = dict(context.invocation_metadata())
        self.watched_by.append(metadata[wire.IDENTITY_HEADER])
        async for message in request_iterator:
            yield message
        context.set_trailing_metadata((("watched", "to-the-end"),))


class RegionEngine:
    """Answers by path: at once, never, or as a stream that the test lets go on."""

    def __init__(self, region: str) -> None:
        self._region = region
        self.waiting = 0
        self.aborted = 0
        self.last_headers: dict[str, str] = {}
        self.go_on = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer with the region and the body's length."""
        self.last_headers = dict(request.headers)
        body = await request.read()
        if request.query_string == "hang":
            await self._wait()
        if request.query_string == "stream":
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(TOKEN)
            await self._wait()
            await response.write(DONE)
            return response
        return web.json_response({"region": self._region, "body_bytes": len(body)})

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.waiting -= 1


@dataclass
class Region:
    """One region: its gateway, its router, its engine."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    federation_port: int = field(default_factory=free_port)
    peering: Peering = field(default_factory=Peering)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Start engine, router and Envoy."""
        self.engine = RegionEngine(self.name)
        app = web.Application(client_max_size=2 * BODY_LIMIT_BYTES)
        app.router.add_route("*", "/{path:.*}", self.engine.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.engine_address = f"127.0.0.1:{runner.addresses[0][1]}"
        socket = self.folder / f"{self.name}.sock"
        self.federation = FederationSettings.beside(socket, self.federation_port, "127.0.0.1")
        self.router = RegionRouter(
            self.engine_address, ResourceSettings(federation=self.federation)
        )
        self.health = ReachabilityServer(self.federation.health_socket)
        await self.health.start()
        self.stack.callback(self.health.stop)
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        add_ExternalProcessorServicer_to_server(self.router, self.server)
        self.router.ads.add_to(self.server)
        self.server.add_generic_rpc_handlers(
            (generic_handler(ACCESS_LOG_PATH, self.router.log.serve),)
        )
        watch = grpc.stream_stream_rpc_method_handler(self.router.watch)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("heliostat.v1.State", {"Watch": watch}),)
        )
        for path in (socket, requests_socket(socket), state_socket(socket)):
            self.server.add_insecure_port(f"unix:{path}")
        await self.server.start()
        self.stack.push_async_callback(self.server.stop, None)
        self.envoy = EnvoyProcess(
            lambda admin: BootstrapSettings(
                router_socket=socket,
                admin=admin,
                listen_address="127.0.0.1",
                listen_port=self.port,
                body_limit_bytes=BODY_LIMIT_BYTES,
                federation=self.federation,
            )
        )
        await self.stack.enter_async_context(self.envoy)
        self.client = await self.stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS))
        )

    async def publish(
        self, peering: Peering, *, pools: Sequence[str] = (POOL,), restricted: bool = False
    ) -> None:
        """Make this the peering and these the pools, and wait until Envoy serves.

        `restricted` pools have residency rules.
        """
        self.peering = peering
        addresses = {pool: [self.engine_address] for pool in pools}
        self.router.ads.publish(addresses, peering, addresses.keys() if restricted else ())
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.envoy.wait_until_ready()

    def url(self, query: str = "") -> str:
        """Give the address of chat completions for clients."""
        return f"http://127.0.0.1:{self.port}/v1/chat/completions?{query}"

    async def post(self, query: str = "", body: bytes = b"{}", **headers: str) -> tuple[int, dict]:
        """Ask as a client does."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(self.url(query), data=body, headers=named) as response:
            return response.status, await response.json()

    async def stat(self, name: str) -> int:
        """Read a statistic of Envoy's (with `_` for `:`); 0 where there is none."""
        connector = aiohttp.UnixConnector(path=str(self.envoy.admin_socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://envoy/stats?filter=^{name}$") as response,
        ):
            return int((await response.text()).rpartition(":")[2] or 0)


class Pair:
    """Regions a and b, which know each other."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.a = Region("a", folder)
        self.b = Region("b", folder)

    def peering(
        self, me: Region, other: Region, certificate: RegionCertificate, expected: str = ""
    ) -> Peering:
        """Let `me` reach the other region, where it expects that identity, and let it in."""
        identity = expected or identity_of(other.name)
        address = f"127.0.0.1:{other.federation_port}"
        return Peering(
            peers=(PeerRoute(other.name, (address,), identity),),
            links=(LinkRoute(other.name, (address,), identity, "first"),),
            certificate=certificate,
            allowed=frozenset({identity_of(other.name)}),
        )

    async def start(self) -> None:
        """Start both regions and wait until one serves a request of the other."""
        await asyncio.gather(self.a.start(), self.b.start())
        for me, other in ((self.a, self.b), (self.b, self.a)):
            certificate = self.authority.issue(identity_of(me.name))
            await me.publish(self.peering(me, other, certificate))
        self.a.router.words[Entrance.CLIENTS] = Forward("b")
        await self.until_served_by("b")

    async def until_served_by(self, region: str) -> None:
        """Wait until that region serves what clients ask of a."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await self.a.post())[1].get("region") != region:
                pass
        self.a.router.asked.clear()
        self.b.router.asked.clear()

    async def close(self) -> None:
        """Stop everything."""
        await self.a.stack.aclose()
        await self.b.stack.aclose()


@asynccontextmanager
async def running_pair(folder: Path) -> AsyncIterator[Pair]:
    """Run two regions."""
    pair = Pair(folder)
    try:
        await pair.start()
        yield pair
    finally:
        await pair.close()

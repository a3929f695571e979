"""What the operator tells of itself over HTTP: alive, ready, metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "heliostat_operator_reconcile_seconds",
            "Time to look at one pool and make what differs.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "heliostat_operator_reconcile_errors",
            "Pools that could not be looked after, by reason; each is tried again.",
            ["reason"],
            registry=self.registry,
        )
        self.writes = Counter(
            "heliostat_operator_writes",
            "Requests that changed something in the cluster, by kind of object.",
            ["kind"],
            registry=self.registry,
        )
        self.queued_pools = Gauge(
            "heliostat_operator_queued_pools",
            "Pools that wait to be looked at.",
            registry=self.registry,
        )
        self.pools = Gauge("heliostat_operator_pools", "Pools known.", registry=self.registry)
        self.leader = Gauge(
            "heliostat_operator_leader",
            "1 in the replica that leads, 0 in the others.",
            registry=self.registry,
        )


@asynccontextmanager
async def serve_health(
    host: str, port: int, metrics: Metrics, is_ready: Callable[[], bool]
) -> AsyncIterator[int]:
    """Serve /healthz, /readyz and /metrics, on the port given; 0 takes a free one."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if is_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the pools have not been read yet\n")

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()

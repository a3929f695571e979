"""The admin interface over HTTP: metrics, health and what the router believes, for operators."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from heliostat_extproc.federation.reports import PeerReport, SiblingReport
from heliostat_extproc.pool_sync import EndpointsReport
from heliostat_routing.views import PoolView


@dataclass(frozen=True, slots=True)
class PeersReport:
    """Which router of which region this is, and how it hears others; None without a region."""

    region: str | None
    router: str | None
    peers: tuple[PeerReport, ...]
    siblings: tuple[SiblingReport, ...]


@dataclass(frozen=True, slots=True)
class AdminSources:
    """What the admin interface shows."""

    registry: CollectorRegistry
    views: Callable[[], tuple[PoolView, ...]]
    problems: Callable[[], list[str]]
    """What is wrong with the manifests, a sentence each."""
    silent_engines: Callable[[], Mapping[str, str]]
    """The engines that give no metrics, with the reason."""
    is_ready: Callable[[], bool]
    endpoints: Callable[[], EndpointsReport]
    peers: Callable[[], PeersReport]
    requests: Callable[[str | None, int], Sequence[dict[str, Any]]]
    """The stories of the requests of this id, or of so many of the latest."""


def build_admin(sources: AdminSources) -> web.Application:
    """Build the application: /metrics, /healthz, /readyz, /pools, /endpoints, /peers, /requests."""

    async def metrics(_request: web.Request) -> web.Response:
        page = generate_latest(sources.registry)
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        ready = sources.is_ready()
        status = 200 if ready else 503
        return web.json_response({"status": "ready" if ready else "not ready"}, status=status)

    async def pools(_request: web.Request) -> web.Response:
        views = [asdict(view) for view in sources.views()]
        silent = [{"endpoint": it, "reason": why} for it, why in sources.silent_engines().items()]
        return web.json_response(
            {"pools": views, "problems": sources.problems(), "silent_engines": silent}
        )

    async def endpoints(_request: web.Request) -> web.Response:
        return web.json_response(asdict(sources.endpoints()))

    async def peers(_request: web.Request) -> web.Response:
        return web.json_response(asdict(sources.peers()))

    async def requests(request: web.Request) -> web.Response:
        most = request.query.get("most", "10")
        if not (most.isascii() and most.isdecimal() and len(most) < 6):
            return web.json_response({"error": "`most` must be a number"}, status=400)
        told = sources.requests(request.query.get("id"), int(most))
        return web.json_response({"requests": told})

    application = web.Application()
    application.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/pools", pools),
            web.get("/endpoints", endpoints),
            web.get("/peers", peers),
            web.get("/requests", requests),
        ]
    )
    return application


async def start_admin(sources: AdminSources, host: str, port: int) -> web.AppRunner:
    """Serve on this address; call `cleanup` on the result to stop. Raise OSError if it is taken."""
    runner = web.AppRunner(build_admin(sources), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner

"""The router process: all its parts, wired in one place.

One event loop drives the core; Envoy comes over one Unix socket for requests and their logs, over
another for configuration, over a third for those who watch the state; people and Prometheus come
over the admin port.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc
import structlog
from aiohttp import web

from heliostat_crds.tenants import Tenants
from heliostat_extproc.admin import AdminSources, PeersReport, start_admin
from heliostat_extproc.conversation import Sender
from heliostat_extproc.discovery.discovery import Discovery
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_extproc.driver import Core, Recorder, RouterDriver
from heliostat_extproc.engine_key import EngineKey, EngineKeyError
from heliostat_extproc.envoy.access_log import ACCESS_LOG_PATH, AccessLogServer
from heliostat_extproc.envoy.ads import AdsServer
from heliostat_extproc.envoy.peer_resources import NO_PEERING, Peering
from heliostat_extproc.envoy.resources import ResourceSettings
from heliostat_extproc.envoy.sidecar import SidecarSettings, publish_files, sidecar_files
from heliostat_extproc.exchange import ExchangeSettings
from heliostat_extproc.ext_proc import DEFAULT_BODY_LIMIT_BYTES, ExtProcServicer
from heliostat_extproc.ext_proc_wire import PROCESSOR_PATH, PROCESSOR_SERVICE
from heliostat_extproc.federation.core_state import FederatedCore
from heliostat_extproc.federation.declared_in_vain import excluded_pools, unreached_peers
from heliostat_extproc.grpc_streams.grpcio import generic_handler
from heliostat_extproc.grpc_streams.message_stream import Handler
from heliostat_extproc.listeners import ListenError, Listeners, PickerAddress
from heliostat_extproc.membership import Membership, MembershipSettings
from heliostat_extproc.observing.access_log_file import AccessLogFile
from heliostat_extproc.observing.kept_requests import KeepSettings
from heliostat_extproc.observing.observation import Observation
from heliostat_extproc.observing.trace_settings import TraceSettings
from heliostat_extproc.pool_sync import PoolSync
from heliostat_extproc.scraper import Scraper, ScrapeSettings
from heliostat_extproc.telemetry import Telemetry
from heliostat_extproc.tenancy.admission import Admission
from heliostat_extproc.tenancy.tenants_file import TenantsFile, TenantsFileError
from heliostat_extproc.upb import HealthCheckResponse, HealthServicer, add_health_servicer
from heliostat_routing.events import Event
from heliostat_routing.settings import PolicyName

HEALTH_SERVICES = ("", "liveness", "readiness", PROCESSOR_SERVICE)
_SWEEP_SECONDS = 0.5
_STOP_GRACE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class RouterStartError(RuntimeError):
    """The router cannot run as it is told to."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How one router process runs."""

    discovery: Discovery
    """Where the pools come from."""
    socket: Path
    """The Unix socket for Envoy; others lie beside it."""
    picker: PickerAddress | None = None
    """Where other gateways may ask too."""
    own_envoy: bool = True
    """Whether an Envoy connects to the socket; else other gateways alone ask."""
    envoy_files: SidecarSettings | None = None
    """What to write for an Envoy that someone else starts."""
    engine_key_file: Path | None = None
    """The file of the API key that engines ask for."""
    admin_host: str = "127.0.0.1"
    admin_port: int = 9090
    """0 takes a free port."""
    policy: PolicyName | None = None
    """Overrides the policy of every pool."""
    body_limit_bytes: int = DEFAULT_BODY_LIMIT_BYTES
    drain_seconds: float = 30.0
    """How long held requests may wait for an endpoint once the router is told to stop."""
    scrape: ScrapeSettings = field(default_factory=ScrapeSettings)
    tenants_file: Path | None = None
    """The file of those who may ask; None: whoever reaches the gateway may."""
    tokens: bool = False
    """Whether clients bring tokens instead of the keys in that file."""
    keep: KeepSettings = field(default_factory=KeepSettings)
    """Which requests can be explained afterwards."""
    traces: TraceSettings | None = None
    """Where decisions are told of as spans."""
    membership: MembershipSettings | None = None
    """Its region and its way to others; None: it has neither peers nor siblings."""


class RouterCore(Core, FederatedCore, Protocol):
    """All that is asked of the core."""


class RouterProcess:
    """A running router; made by `run_router`."""

    def __init__(
        self,
        settings: RouterSettings,
        core: RouterCore,
        recorder: Recorder | None = None,
        access_log: AccessLogFile | None = None,
    ) -> None:
        self._settings = settings
        self.telemetry = Telemetry(lambda: core.views(asyncio.get_running_loop().time()))
        name = "" if settings.membership is None else settings.membership.region.router
        self.observation = Observation(
            self.telemetry,
            keep=settings.keep,
            access_log=access_log,
            traces=settings.traces,
            router=name,
        )
        journal = self.observation.journal
        recorders = (journal,) if recorder is None else (journal, recorder)
        self.driver = RouterDriver(core, observer=self.telemetry, recorders=recorders)
        self.ads = AdsServer(
            lambda addresses: self.pools.on_acked(addresses), _resource_settings(settings)
        )
        self._peering = NO_PEERING
        self._pool_addresses: Mapping[str, Sequence[str]] | None = None
        self.pools = PoolSync(
            self.driver,
            self._publish_pools,
            policy=settings.policy,
            own_envoy=settings.own_envoy,
        )
        self.access_log = AccessLogServer(self._on_log_event, journal.on_measured)
        self._engine_key = _read_engine_key(settings.engine_key_file)
        self._tenants = _read_tenants(settings.tenants_file)
        self.membership = self._join(settings.membership, core)
        self._admission = self._build_admission()
        self.ext_proc = ExtProcServicer(
            self.driver,
            self.pools,
            self.observation,
            self._exchange_settings(),
            self._admission,
        )
        self.scraper = self._build_scraper()
        self.telemetry.watch_envoy(self.ads, self.access_log)
        self.telemetry.watch_discovery(settings.discovery.age_seconds)
        self._health = HealthServicer()
        self._listeners = Listeners(
            settings.socket,
            settings.picker,
            requests=self._request_services(),
            state=None if self.membership is None else self.membership.services,
            add_all=self._add_all_services,
            add_picker=self._add_picker_services,
        )
        self._admin: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._declared_in_vain: tuple[str, ...] = ()

    def _join(self, settings: MembershipSettings | None, core: FederatedCore) -> Membership | None:
        if settings is None:
            return None
        membership = Membership(settings, core, self.driver, self.pools, self._publish_peering)
        self.telemetry.watch_peers(membership.reports)
        self.telemetry.watch_certificate(lambda: membership.certificates.seconds_left)
        return membership

    def _build_scraper(self) -> Scraper:
        membership, scrape = self.membership, self._settings.scrape
        if membership is None:
            return Scraper(
                self.driver,
                self.telemetry,
                endpoints=self.pools.endpoints,
                busy=self.driver.serving_endpoints,
                settings=scrape,
            )
        scrapes = membership.scrapes
        return Scraper(
            scrapes,
            self.telemetry,
            endpoints=scrapes.endpoints,
            busy=scrapes.busy,
            settings=scrape,
        )

    def _build_admission(self) -> Admission | None:
        if self._tenants is None:
            return None
        admission = Admission(
            self._tenants.tenants.tenants,
            lambda: asyncio.get_running_loop().time(),
            self._count_gateways,
        )
        self.telemetry.watch_tenants(admission.reports)
        return admission

    def _count_gateways(self) -> int:
        return 1 if self.membership is None else len(self.membership.live_routers())

    def _exchange_settings(self) -> ExchangeSettings:
        membership, limit = self.membership, self._settings.body_limit_bytes
        priority_of = self.pools.priority_of
        if membership is None:
            return ExchangeSettings(limit, priority_of=priority_of)
        return ExchangeSettings(
            limit, membership.region, membership.peers.region_of, priority_of=priority_of
        )

    @property
    def _router_name(self) -> str:
        return "" if self.membership is None else self.membership.region.router

    def _publish_pools(self, pools: Mapping[str, Sequence[str]]) -> None:
        self._pool_addresses = pools
        self._publish()

    def _publish_peering(self, peering: Peering) -> None:
        self._peering = peering
        self._publish()

    def _publish(self) -> None:
        """Tell Envoy of pools, peers and keys, once the pools are known."""
        if self._pool_addresses is not None:
            self.ads.publish(
                self._pool_addresses, self._peering, self._restricted(), self._credentials()
            )

    def _restricted(self) -> frozenset[str]:
        """Name the pools that Envoy may not use by itself.

        It knows of no residency, nor which tenants a token may name.
        """
        if self._tenants is None:
            return self.pools.restricted
        ruled = any(tenant.residency is not None for tenant in self._tenants.tenants.tenants)
        if ruled or self._settings.tokens:
            return frozenset(self._pool_addresses or ())
        return self.pools.restricted

    def _credentials(self) -> tuple[tuple[str, str], ...] | None:
        if self._tenants is None or self._settings.tokens:
            return None
        return self._tenants.tenants.credentials

    def _on_tenants(self, tenants: Tenants) -> None:
        if self._admission is not None:
            self._admission.declare(tenants.tenants)
        self._publish()

    @property
    def is_ready(self) -> bool:
        """Whether Envoy should send requests."""
        return self.pools.is_synced and not self._draining

    @property
    def admin_url(self) -> str:
        """Where the admin interface listens."""
        if self._admin is None:
            raise RouterStartError("the router has not been started")
        host, port = self._admin.addresses[0][:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen, then watch the pools. Raise `RouterStartError` where that cannot be."""
        try:
            if self.membership is not None:
                await self.membership.start()
            await self._listeners.start()
        except (ListenError, OSError) as error:
            raise RouterStartError(str(error)) from error
        await self._report_health()
        self._write_envoy_files()
        self._admin = await self._start_admin()
        loops = [self._follow_pools(), self.scraper.run(), self._sweep()]
        loops += self.observation.loops()
        if self._engine_key is not None:
            loops.append(self._engine_key.follow())
        if self._tenants is not None:
            loops.append(self._tenants.follow(self._on_tenants))
        if self.membership is not None:
            loops += self.membership.loops()
        self._tasks.extend(asyncio.create_task(loop) for loop in loops)

    async def run(self) -> None:
        """Return only by raising the error of a part that must not fail."""
        await asyncio.gather(*self._tasks)

    async def drain(self) -> None:
        """Report not ready, and give held requests their time to be dispatched."""
        self._draining = True
        if self.membership is not None:
            self.membership.drain()
        await self._report_health()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while self.driver.held_requests:  # noqa: ASYNC110 - polled only while stopping
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End every stream and close every port."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.driver.close()
        self.ext_proc.close()
        if self.membership is not None:
            self.membership.stop()
        await self._listeners.stop(_STOP_GRACE_SECONDS)
        if self._admin is not None:
            await self._admin.cleanup()

    def _request_services(self) -> dict[str, Handler]:
        sender = Sender(self._router_name, self._engine_key)
        return {
            PROCESSOR_PATH: self.ext_proc.handler(sender, own_envoy=True),
            ACCESS_LOG_PATH: self.access_log.serve,
        }

    def _add_all_services(self, server: grpc.aio.Server) -> None:
        add_health_servicer(self._health, server)
        self.ads.add_to(server)

    def _add_picker_services(self, server: grpc.aio.Server) -> None:
        # Without the engines' key: an answer would tell it to whoever asks.
        fallbacks = 0 if self._settings.picker is None else self._settings.picker.fallbacks
        sender = Sender(self._router_name, forwards=False, fallbacks=fallbacks)
        picker = self.ext_proc.handler(sender, own_envoy=False)
        server.add_generic_rpc_handlers((generic_handler(PROCESSOR_PATH, picker),))
        add_health_servicer(self._health, server)

    def _write_envoy_files(self) -> None:
        settings = self._settings.envoy_files
        if settings is None:
            return
        try:
            publish_files(settings.folder, sidecar_files(settings))
        except OSError as error:
            raise RouterStartError(
                f"cannot write Envoy's configuration to {settings.folder}: {error.strerror}"
            ) from error

    def _on_log_event(self, event: Event) -> None:
        self.driver.submit(event)

    async def _start_admin(self) -> web.AppRunner:
        sources = AdminSources(
            registry=self.telemetry.registry,
            views=self.driver.views,
            problems=self._problems,
            silent_engines=self.scraper.silent,
            is_ready=lambda: self.is_ready,
            endpoints=self.pools.report,
            peers=self._report_peers,
            requests=self.observation.stories,
        )
        host, port = self._settings.admin_host, self._settings.admin_port
        try:
            return await start_admin(sources, host, port)
        except OSError as error:
            raise RouterStartError(
                f"cannot listen on {host}:{port} for admin, choose another --admin-port:"
                f" {error.strerror}"
            ) from error

    def _problems(self) -> list[str]:
        membership = self.membership
        own = () if membership is None else membership.problems()
        tenants = [] if self._tenants is None else [self._tenants.problem]
        return [*self.pools.problems, *self._declared_in_vain, *own, *filter(None, tenants)]

    def _report_peers(self) -> PeersReport:
        membership = self.membership
        if membership is None:
            return PeersReport(None, None, (), ())
        region = membership.region
        return PeersReport(
            region.name, region.router, membership.reports(), membership.sibling_reports()
        )

    async def _follow_pools(self) -> None:
        async for snapshot in self._settings.discovery.watch():
            self.pools.apply(snapshot)
            if self.membership is not None:
                self.membership.apply(snapshot)
            self._note_declared_in_vain(snapshot)
            self.telemetry.on_manifests_read(len(snapshot.problems))
            await self._report_health()

    def _note_declared_in_vain(self, snapshot: Snapshot) -> None:
        region = None if self.membership is None else self.membership.region
        before = self._declared_in_vain
        problems = (*unreached_peers(snapshot, region), *excluded_pools(snapshot, region))
        self._declared_in_vain = problems
        for problem in problems:
            if problem not in before:
                _log.warning("declared in vain", problem=problem)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.pools.sweep()
            self.observation.journal.sweep()
            if self.membership is not None:
                self.membership.peers.sweep()

    async def _report_health(self) -> None:
        for service in HEALTH_SERVICES:
            serving = service in ("", "liveness") or self.is_ready
            status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
            await self._health.set(service, status)


def _resource_settings(settings: RouterSettings) -> ResourceSettings:
    membership = settings.membership
    return ResourceSettings(federation=None if membership is None else membership.envoy)


def _read_tenants(file: Path | None) -> TenantsFile | None:
    if file is None:
        return None
    try:
        return TenantsFile(file)
    except TenantsFileError as error:
        raise RouterStartError(str(error)) from error


def _read_engine_key(file: Path | None) -> EngineKey | None:
    if file is None:
        return None
    try:
        return EngineKey(file)
    except EngineKeyError as error:
        raise RouterStartError(str(error)) from error


@asynccontextmanager
async def run_router(
    settings: RouterSettings,
    core: RouterCore,
    recorder: Recorder | None = None,
    access_log: AccessLogFile | None = None,
) -> AsyncIterator[RouterProcess]:
    """Run a router within this context; on leaving it stops at once (`drain` before for more)."""
    async with AsyncExitStack() as stack:
        router = RouterProcess(settings, core, recorder, access_log)
        stack.push_async_callback(router.stop)
        await router.start()
        yield router

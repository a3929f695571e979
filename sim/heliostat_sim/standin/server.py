"""The stand-in's HTTP server, and a way to run it inside another program's event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from heliostat_sim.engine.generation import warm_up
from heliostat_sim.standin.app import StandIn
from heliostat_sim.standin.faults import Fault, FaultKind
from heliostat_sim.standin.loop_lag import LoopLagProbe
from heliostat_sim.standin.options import EngineOptions


class RunningEngine:
    """A stand-in that listens. `address` is "HOST:PORT"."""

    def __init__(self, options: EngineOptions, lag: LoopLagProbe) -> None:
        self.options = options
        self._port = options.port
        self._stand_in = StandIn(options, lag, on_fault=self.set_fault)
        self._runner = web.AppRunner(
            self._stand_in.app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        self._site: web.TCPSite | None = None
        self._fault_end: asyncio.TimerHandle | None = None
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self.options.host}:{self._port}"

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return f"http://{self.address}"

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        await self._runner.setup()
        await self._listen()

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._fault_end is not None:
            self._fault_end.cancel()
        await self._runner.cleanup()

    @property
    def unfinished_requests(self) -> int:
        """How many requests have not been answered to the end."""
        return self._stand_in.unfinished_requests

    def refuse_new(self) -> None:
        """Answer 500 to new completions, as vLLM does while it ends; all else goes on."""
        self._stand_in.is_shutting_down = True

    async def set_fault(self, fault: Fault) -> None:
        """Switch a fault on, or off with kind none; it replaces the one before."""
        if self._fault_end is not None:
            self._fault_end.cancel()
            self._fault_end = None
        self._stand_in.fault = fault
        if fault.kind is FaultKind.REFUSE:
            await self._stop_listening()
        elif self._site is None:
            await self._listen()
        if fault.seconds is not None:
            loop = asyncio.get_running_loop()
            self._fault_end = loop.call_later(fault.seconds, self._end_fault)

    def _end_fault(self) -> None:
        self._fault_end = None
        change = asyncio.ensure_future(self.set_fault(Fault()))
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, self.options.host, self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop_listening(self) -> None:
        """Refuse new connections and reset the idle ones; answers under way go on."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()


@asynccontextmanager
async def running_engine(options: EngineOptions) -> AsyncIterator[RunningEngine]:
    """Run one stand-in in the current event loop for as long as the block lasts."""
    async with running_engines([options]) as engines:
        yield engines[0]


@asynccontextmanager
async def running_engines(options: Sequence[EngineOptions]) -> AsyncIterator[list[RunningEngine]]:
    """Run several stand-ins in the current event loop, with one loop-lag probe."""
    warm_up()
    lag = LoopLagProbe()
    async with AsyncExitStack() as stack:
        engines = []
        for one in options:
            engine = RunningEngine(one, lag)
            stack.push_async_callback(engine.close)
            await engine.start()
            engines.append(engine)
        lag.start()
        stack.callback(lag.stop)
        yield engines

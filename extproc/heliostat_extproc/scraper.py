"""Scrapes the engines' /metrics: seldom enough to leave them and the router alone.

Between scrapes the core's ledger knows what was sent. Endpoints with requests in flight are scraped
every 200 ms at most often, less often where that would cost more than a tenth of a core; the others
every few seconds. A slow engine holds up only its own next scrape.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

import aiohttp
import structlog

from heliostat_extproc.engine_metrics import MetricsError, MetricsProblem, parse_engine_metrics
from heliostat_routing.events import EngineMetrics, MetricsScraped, ScrapeFailed

_log = structlog.get_logger(__name__)


class FetchProblem(StrEnum):
    """Why no page of metrics came."""

    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed-out"
    BAD_STATUS = "bad-status"
    TOO_LARGE = "too-large"


class ScrapeError(Exception):
    """No usable page of metrics came; `problem` is from a closed set."""

    def __init__(self, problem: FetchProblem | MetricsProblem, detail: str = "") -> None:
        super().__init__(detail or problem.value)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """How often, and at what price."""

    busy_interval_seconds: float = 0.2
    """For endpoints with requests in flight; scraping faster slows real engines down."""
    idle_interval_seconds: float = 3.0
    timeout_seconds: float = 1.0
    jitter_ratio: float = 0.1
    """Each wait is this much longer or shorter, so that engines are not scraped in step."""
    concurrency: int = 64
    """Scrapes under way at once."""
    cpu_share_ratio: float = 0.1
    """Share of one core that scraping may take."""
    fetch_cpu_seconds: float = 0.0005
    """What one HTTP exchange is taken to cost beside parsing, which is measured."""
    page_limit_bytes: int = 1024 * 1024
    round_seconds: float = 0.05
    """How often the scraper looks for endpoints that are due."""


class ScrapeSink(Protocol):
    """Takes what the scrapes say."""

    def submit(self, event: MetricsScraped | ScrapeFailed) -> object:
        """Pass the event on."""
        ...


class ScrapeObserver(Protocol):
    """Counts scrapes, for metrics."""

    def on_scraped(self, problem: FetchProblem | MetricsProblem | None) -> None:
        """Count one scrape; `problem` is None where it worked."""
        ...


@dataclass(slots=True)
class _Target:
    last_at: float
    spread: float
    """This wait's factor, around 1."""
    task: asyncio.Task[None] | None = None
    problem: str | None = None


class Scraper:
    """Keeps the core's picture of each endpoint fresh.

    `endpoints` and `busy` are asked anew each round: the addresses to scrape, and those with
    requests in flight.
    """

    def __init__(
        self,
        sink: ScrapeSink,
        observer: ScrapeObserver,
        *,
        endpoints: Callable[[], Collection[str]],
        busy: Callable[[], Collection[str]],
        settings: ScrapeSettings | None = None,
        seed: int | None = None,
    ) -> None:
        self._sink = sink
        self._observer = observer
        self._endpoints = endpoints
        self._busy = busy
        self._settings = settings or ScrapeSettings()
        self._random = random.Random(seed)  # noqa: S311 - jitter, not a secret
        self._targets: dict[str, _Target] = {}
        self._underway = 0
        self._parse_cpu_seconds = 0.0

    async def run(self) -> None:
        """Scrape until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, auto_decompress=True
        ) as session:
            try:
                while True:
                    self._start_due(session, asyncio.get_running_loop().time())
                    await asyncio.sleep(self._settings.round_seconds)
            finally:
                await self._stop()

    def busy_interval_seconds(self, busy_count: int) -> float:
        """How long a busy endpoint waits for its next scrape: stretched to stay within budget."""
        cost_seconds = self._settings.fetch_cpu_seconds + self._parse_cpu_seconds
        affordable = busy_count * cost_seconds / self._settings.cpu_share_ratio
        return max(self._settings.busy_interval_seconds, affordable)

    def _start_due(self, session: aiohttp.ClientSession, now: float) -> None:
        self._sync_targets(now)
        busy = self._busy()
        busy_wait = self.busy_interval_seconds(len(busy))
        idle_wait = max(busy_wait, self._settings.idle_interval_seconds)
        for address, target in self._targets.items():
            if self._underway >= self._settings.concurrency:
                return
            failing = target.problem is not None
            wait = busy_wait if address in busy and not failing else idle_wait
            if target.task is None and now >= target.last_at + wait * target.spread:
                self._underway += 1
                target.task = asyncio.create_task(self._scrape(session, address, target))
                target.task.add_done_callback(partial(self._on_done, target))

    def _sync_targets(self, now: float) -> None:
        """Follow the endpoints; a new one is scraped at once, then at its own pace."""
        endpoints = self._endpoints()
        for address in [known for known in self._targets if known not in endpoints]:
            task = self._targets.pop(address).task
            if task is not None:
                task.cancel()
        for address in endpoints:
            if address not in self._targets:
                overdue = now - 2 * self._settings.idle_interval_seconds
                self._targets[address] = _Target(last_at=overdue, spread=self._jitter())

    async def _scrape(self, session: aiohttp.ClientSession, address: str, target: _Target) -> None:
        try:
            metrics = await self._fetch(session, address)
        except ScrapeError as error:
            self._observer.on_scraped(error.problem)
            if target.problem != error.problem:
                _log.warning("scrape failed", endpoint=address, reason=error.problem.value)
            target.problem = error.problem
            self._sink.submit(ScrapeFailed(address))
        else:
            self._observer.on_scraped(None)
            if target.problem is not None:
                _log.info("scrape works again", endpoint=address)
            target.problem = None
            self._sink.submit(MetricsScraped(address, metrics))

    def _on_done(self, target: _Target, _task: asyncio.Task[None]) -> None:
        self._underway -= 1
        target.task = None
        target.last_at = asyncio.get_running_loop().time()
        target.spread = self._jitter()

    async def _fetch(self, session: aiohttp.ClientSession, address: str) -> EngineMetrics:
        limit = self._settings.page_limit_bytes
        try:
            async with session.get(f"http://{address}/metrics", allow_redirects=False) as response:
                if response.status != 200:
                    raise ScrapeError(FetchProblem.BAD_STATUS, str(response.status))
                page = bytearray()
                async for chunk in response.content.iter_any():
                    page += chunk
                    if len(page) > limit:
                        raise ScrapeError(FetchProblem.TOO_LARGE)
        except TimeoutError as error:
            raise ScrapeError(FetchProblem.TIMED_OUT) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ScrapeError(FetchProblem.UNREACHABLE, str(error)) from error
        started = time.perf_counter()
        try:
            return parse_engine_metrics(bytes(page))
        except MetricsError as error:
            raise ScrapeError(error.problem, str(error)) from error
        finally:
            took_seconds = time.perf_counter() - started
            self._parse_cpu_seconds += 0.1 * (took_seconds - self._parse_cpu_seconds)

    def _jitter(self) -> float:
        return 1.0 + self._settings.jitter_ratio * (2.0 * self._random.random() - 1.0)

    async def _stop(self) -> None:
        tasks = [target.task for target in self._targets.values() if target.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

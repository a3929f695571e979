"""Scrapes the engines' /metrics: seldom enough to leave them and the router alone.

Between scrapes the core's ledger knows what was sent. Endpoints with requests in flight are scraped
every 200 ms at most often, the others every few seconds; both less often where all of it would cost
more than a tenth of a core. Who is most overdue goes first; a slow engine holds up only itself.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import Protocol

import aiohttp
import structlog

from heliostat_extproc.engine_metrics import MetricsError, MetricsProblem, parse_engine_metrics
from heliostat_routing.events import EngineMetrics, MetricsScraped, ScrapeFailed

MOST_SILENT_TOLD = 100

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
    idle_budget_ratio: float = 0.25
    """Share of that which idle endpoints get where busy ones could use it all."""
    fetch_cpu_seconds: float = 0.0005
    """What one HTTP exchange is taken to cost beside parsing, which is measured."""
    page_limit_bytes: int = 1024 * 1024
    round_seconds: float = 0.05
    """How often the scraper looks for endpoints that are due."""
    sync_seconds: float = 0.5
    """How often it looks which endpoints there are."""


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
    due_at: float
    last_at: float = -inf
    """When its last scrape ended."""
    task: asyncio.Task[None] | None = None
    problem: str | None = None


class Scraper:
    """Keeps the core's picture of each endpoint fresh.

    `endpoints` and `busy` are asked again and again: the addresses to scrape, and those with
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
        self._queue: list[tuple[float, str]] = []
        """A heap of instants and addresses; only a target's own `due_at` counts."""
        self._busy_now: frozenset[str] = frozenset()
        self._sync_at = -inf
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

    def intervals_seconds(self, busy_count: int, idle_count: int) -> tuple[float, float]:
        """How long a busy and an idle endpoint wait for a scrape: stretched to stay within budget.

        Busy endpoints come first, but leave idle ones a part of the budget.
        """
        settings = self._settings
        cost_seconds = settings.fetch_cpu_seconds + self._parse_cpu_seconds
        budget_ratio = settings.cpu_share_ratio
        idle_need_ratio = idle_count * cost_seconds / settings.idle_interval_seconds
        reserved_ratio = min(idle_need_ratio, settings.idle_budget_ratio * budget_ratio)
        busy_seconds = max(
            settings.busy_interval_seconds,
            busy_count * cost_seconds / (budget_ratio - reserved_ratio),
        )
        left_ratio = budget_ratio - busy_count * cost_seconds / busy_seconds
        idle_seconds = idle_count * cost_seconds / left_ratio if idle_count else 0.0
        return busy_seconds, max(settings.idle_interval_seconds, busy_seconds, idle_seconds)

    def _start_due(self, session: aiohttp.ClientSession, now: float) -> None:
        if now >= self._sync_at:
            self._sync_at = now + self._settings.sync_seconds
            self._sync_targets(now)
        self._note_busy(now)
        while self._queue and self._underway < self._settings.concurrency:
            due_at, address = self._queue[0]
            if due_at > now:
                return
            heappop(self._queue)
            target = self._targets.get(address)
            if target is not None and target.task is None and target.due_at == due_at:
                self._underway += 1
                target.task = asyncio.create_task(self._scrape(session, address, target))
                target.task.add_done_callback(partial(self._on_done, address, target))

    def _sync_targets(self, now: float) -> None:
        """Follow the endpoints; a new one is scraped at once, many as fast as the budget allows."""
        endpoints = self._endpoints()
        for address in self._targets.keys() - endpoints:
            task = self._targets.pop(address).task
            if task is not None:
                task.cancel()
        cost_seconds = self._settings.fetch_cpu_seconds + self._parse_cpu_seconds
        new = [address for address in endpoints if address not in self._targets]
        for position, address in enumerate(new):
            target = self._targets[address] = _Target(due_at=inf)
            self._plan(
                address, target, now + position * cost_seconds / self._settings.cpu_share_ratio
            )

    def _note_busy(self, now: float) -> None:
        """Bring the next scrape of those that have just become busy forward."""
        before, self._busy_now = self._busy_now, frozenset(self._busy())
        for address in self._busy_now - before:
            target = self._targets.get(address)
            if target is not None and target.task is None:
                due_at = max(now, target.last_at + self._wait_seconds(address, target))
                if due_at < target.due_at:
                    self._plan(address, target, due_at)

    def _wait_seconds(self, address: str, target: _Target) -> float:
        idle_count = max(0, len(self._targets) - len(self._busy_now))
        busy_wait, idle_wait = self.intervals_seconds(len(self._busy_now), idle_count)
        fast = address in self._busy_now and target.problem is None
        jitter = self._settings.jitter_ratio * (2.0 * self._random.random() - 1.0)
        return (busy_wait if fast else idle_wait) * (1.0 + jitter)

    def _plan(self, address: str, target: _Target, due_at: float) -> None:
        target.due_at = due_at
        heappush(self._queue, (due_at, address))

    def silent(self) -> dict[str, str]:
        """Say which engines gave no metrics when they were last asked, and why; of many some."""
        targets = self._targets.items()
        silent = ((address, it.problem) for address, it in targets if it.problem is not None)
        return dict(islice(silent, MOST_SILENT_TOLD))

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

    def _on_done(self, address: str, target: _Target, _task: asyncio.Task[None]) -> None:
        self._underway -= 1
        target.task = None
        target.last_at = asyncio.get_running_loop().time()
        if self._targets.get(address) is target:
            wait_seconds = self._wait_seconds(address, target)
            self._plan(address, target, target.last_at + wait_seconds)

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

    async def _stop(self) -> None:
        tasks = [target.task for target in self._targets.values() if target.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

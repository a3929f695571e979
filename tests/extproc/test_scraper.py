"""The scraper against real HTTP engines: fair to all, patient with none, within its budget."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from heliostat_extproc.engine_metrics import MetricsProblem
from heliostat_extproc.scraper import FetchProblem, Scraper, ScrapeSettings
from heliostat_routing.events import MetricsScraped, ScrapeFailed

GOOD_PAGE = "".join(
    f'vllm:{name}{{engine="0"}} 1.0\n'
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "request_success_total",
        "prompt_tokens_total",
        "generation_tokens_total",
    )
)
FAST = ScrapeSettings(
    busy_interval_seconds=0.02,
    idle_interval_seconds=0.2,
    timeout_seconds=0.3,
    round_seconds=0.005,
    sync_seconds=0.01,
    cpu_share_ratio=1.0,
    page_limit_bytes=10_000,
)
Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Sink:
    """Keeps every event, and lets a test wait until it has seen enough."""

    events: list[MetricsScraped | ScrapeFailed] = field(default_factory=list)
    problems: list[str | None] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def submit(self, event: MetricsScraped | ScrapeFailed) -> None:
        self.events.append(event)
        self.changed.set()

    def on_scraped(self, problem: FetchProblem | MetricsProblem | None) -> None:
        self.problems.append(problem)

    async def wait_until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not enough():
                self.changed.clear()
                await self.changed.wait()

    def count(self, kind: type, address: str) -> int:
        return sum(isinstance(e, kind) and e.endpoint == address for e in self.events)


async def good(_request: web.Request) -> web.StreamResponse:
    return web.Response(text=GOOD_PAGE)


async def stalled(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def broken(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def flooding(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="#" * 20_000)


async def lying(_request: web.Request) -> web.StreamResponse:
    return web.Response(text=GOOD_PAGE.replace('running{engine="0"} 1.0', "running -1"))


@asynccontextmanager
async def engine(respond: Respond) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/metrics", respond)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scraping(
    sink: Sink, endpoints: Collection[str], busy: set[str], settings: ScrapeSettings = FAST
) -> AsyncIterator[Scraper]:
    scraper = Scraper(
        sink,
        sink,
        endpoints=lambda: endpoints,
        busy=lambda: frozenset(busy),
        settings=settings,
        seed=1,
    )
    task = asyncio.create_task(scraper.run())
    try:
        yield scraper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_stalled_engine_delays_nobody() -> None:
    """The good engine is scraped again and again while the other's scrape times out."""
    sink = Sink()
    async with engine(good) as quick, engine(stalled) as slow:
        async with scraping(sink, {quick, slow}, {quick, slow}):
            await sink.wait_until(lambda: sink.count(ScrapeFailed, slow) >= 1)
        assert sink.count(MetricsScraped, quick) >= 5
        assert FetchProblem.TIMED_OUT in sink.problems


@pytest.mark.parametrize(
    ("respond", "problem"),
    [
        (broken, FetchProblem.BAD_STATUS),
        (flooding, FetchProblem.TOO_LARGE),
        (lying, MetricsProblem.OUT_OF_RANGE),
    ],
)
async def test_a_bad_answer_is_a_failed_scrape_with_its_reason(
    respond: Respond, problem: FetchProblem | MetricsProblem
) -> None:
    """What an engine says is bounded and checked; the core hears that it is missing."""
    sink = Sink()
    async with engine(respond) as address, scraping(sink, {address}, set()):
        await sink.wait_until(lambda: bool(sink.events))
    assert sink.events[0] == ScrapeFailed(address)
    assert sink.problems[0] == problem


async def test_an_engine_that_refuses_is_a_failed_scrape() -> None:
    """A closed port is told at once."""
    sink = Sink()
    async with engine(good) as address:
        pass
    async with scraping(sink, {address}, set()):
        await sink.wait_until(lambda: bool(sink.events))
    assert sink.problems[0] == FetchProblem.UNREACHABLE


async def test_who_gives_no_metrics_is_named_until_it_does() -> None:
    """With the reason; an engine that answers is not."""
    sink, is_well = Sink(), False

    async def mended(request: web.Request) -> web.StreamResponse:
        return await (good if is_well else broken)(request)

    async with (
        engine(good) as one,
        engine(mended) as other,
        scraping(sink, {one, other}, set()) as scraper,
    ):
        await sink.wait_until(lambda: sink.count(ScrapeFailed, other) >= 1)
        await sink.wait_until(lambda: sink.count(MetricsScraped, one) >= 1)
        assert scraper.silent() == {other: "bad-status"}
        is_well = True
        await sink.wait_until(lambda: sink.count(MetricsScraped, other) >= 1)
        assert scraper.silent() == {}


async def test_busy_endpoints_are_scraped_more_often_than_idle_ones() -> None:
    """Requests in flight make an endpoint worth looking at."""
    sink = Sink()
    async with engine(good) as busy, engine(good) as idle:
        async with scraping(sink, {busy, idle}, {busy}):
            await sink.wait_until(lambda: sink.count(MetricsScraped, idle) >= 2)
        assert sink.count(MetricsScraped, busy) >= 2 * sink.count(MetricsScraped, idle)


async def test_follows_the_endpoints() -> None:
    """A new endpoint is scraped at once, one that has left never again."""
    sink = Sink()
    endpoints: set[str] = set()
    async with engine(good) as first, engine(good) as second, scraping(sink, endpoints, set()):
        endpoints.add(first)
        await sink.wait_until(lambda: sink.count(MetricsScraped, first) >= 1)
        endpoints.remove(first)
        endpoints.add(second)
        await sink.wait_until(lambda: sink.count(MetricsScraped, second) >= 1)
        before = Counter(e.endpoint for e in sink.events)[first]
        await sink.wait_until(lambda: sink.count(MetricsScraped, second) >= 3)
        assert Counter(e.endpoint for e in sink.events)[first] == before


async def test_many_stalled_engines_starve_nobody() -> None:
    """Where not all can be scraped at once, the most overdue is next, wherever it is listed."""
    sink = Sink()
    settings = replace(FAST, concurrency=2)
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(engine(stalled)) for _ in range(4)]
        quick = await stack.enter_async_context(engine(good))
        await stack.enter_async_context(scraping(sink, [*slow, quick], set(), settings))
        await sink.wait_until(lambda: sink.count(MetricsScraped, quick) >= 2)


@pytest.mark.parametrize(
    ("busy_count", "idle_count"), [(4, 0), (1000, 0), (0, 10_000), (4, 10_000), (5000, 5000)]
)
async def test_many_endpoints_stretch_the_intervals_to_stay_within_the_budget(
    busy_count: int, idle_count: int
) -> None:
    """Scraping takes a tenth of a core at most, and busy endpoints come first."""
    scraper = Scraper(Sink(), Sink(), endpoints=frozenset, busy=frozenset)
    busy_seconds, idle_seconds = scraper.intervals_seconds(busy_count, idle_count)
    scrapes_per_second = busy_count / busy_seconds + idle_count / idle_seconds
    assert scrapes_per_second * ScrapeSettings().fetch_cpu_seconds <= 0.1 + 1e-9
    assert 0.2 <= busy_seconds <= idle_seconds
    assert idle_seconds >= 3.0
    if busy_count <= 4:
        assert busy_seconds == pytest.approx(0.2)

"""The informer against a server that speaks the wire and fails in every known way."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from heliostat_kube.api import KubeApi
from heliostat_kube.informer import Informer, InformerTiming
from heliostat_kube.resource import PODS, Json
from tests.kube.api_server import FakeApiServer, status

QUICK = InformerTiming(
    watch_seconds=1, silence_seconds=0.2, first_retry_seconds=0.01, max_retry_seconds=0.05
)
POD_A = "/api/v1/namespaces/a/pods/one"
POD_B = "/api/v1/namespaces/b/pods/two"


class Watched:
    """An informer that runs, and what it has told."""

    def __init__(self, api: KubeApi, timing: InformerTiming) -> None:
        self.told: list[tuple[str, str | None, str | None]] = []
        self.informer: Informer[str] = Informer(
            api,
            PODS,
            trim=lambda pod: str(pod.get("phase", "")),
            on_change=lambda *change: self.told.append(change),
            timing=timing,
        )

    def phases(self) -> dict[str, str]:
        return dict(self.informer.items)


Watching = Callable[..., Awaitable[Watched]]


@pytest.fixture
async def watching(api: KubeApi) -> AsyncIterator[Watching]:
    """Start informers; all end with the test."""
    tasks: list[asyncio.Task[None]] = []

    async def start(timing: InformerTiming = QUICK) -> Watched:
        watched = Watched(api, timing)
        tasks.append(asyncio.create_task(watched.informer.run()))
        return watched

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def within(seconds: float = 5.0) -> AsyncIterator[None]:
    """Fail if what is awaited inside takes longer."""
    async with asyncio.timeout(seconds):
        yield


async def until(condition: Callable[[], bool]) -> None:
    async with within():
        while not condition():  # noqa: ASYNC110 - conditions of several parties
            await asyncio.sleep(0.005)


def pod(phase: str) -> Json:
    return {"phase": phase}


async def test_it_lists_then_follows(server: FakeApiServer, watching: Watching) -> None:
    """What exists and what comes later is told once each, in order, without another list."""
    server.put(POD_A, pod("Pending"))
    watched = await watching()
    async with within():
        await watched.informer.synced.wait()
    server.put(POD_A, pod("Running"))
    server.put(POD_B, pod("Pending"))
    server.remove(POD_A)
    await until(lambda: len(watched.told) == 4)
    assert watched.told == [
        ("a/one", None, "Pending"),
        ("a/one", "Pending", "Running"),
        ("b/two", None, "Pending"),
        ("a/one", "Running", None),
    ]
    assert watched.phases() == {"b/two": "Pending"}
    assert server.calls("GET", watch=False) == 1


async def test_a_change_that_is_trimmed_away_is_not_told(
    server: FakeApiServer, watching: Watching
) -> None:
    """Only what the owner keeps of an object counts as a change."""
    server.put(POD_A, pod("Running"))
    watched = await watching()
    server.put(POD_A, {"phase": "Running", "noise": 1})
    server.put(POD_B, pod("Running"))
    await until(lambda: "b/two" in watched.phases())
    assert [key for key, _, _ in watched.told] == ["a/one", "b/two"]


async def test_long_lists_come_in_pages(server: FakeApiServer, watching: Watching) -> None:
    """More objects than a page are all read, page by page."""
    for number in range(1203):
        server.put(f"/api/v1/namespaces/a/pods/p{number}", pod("Running"))
    watched = await watching()
    async with within():
        await watched.informer.synced.wait()
    assert len(watched.phases()) == 1203
    assert server.calls("GET", watch=False) == 3


async def test_a_watch_that_ends_is_continued(server: FakeApiServer, watching: Watching) -> None:
    """The server's own timeout costs no list and loses nothing."""
    watched = await watching()
    await until(lambda: server.calls("GET", watch=True) >= 3)
    server.put(POD_A, pod("Running"))
    await until(lambda: watched.phases() == {"a/one": "Running"})
    assert server.calls("GET", watch=False) == 1


async def test_a_cut_connection_is_continued(server: FakeApiServer, watching: Watching) -> None:
    """What happens while a connection is broken is told after it, without another list."""
    server.put(POD_A, pod("Pending"))
    watched = await watching(InformerTiming(watch_seconds=30, first_retry_seconds=0.01))
    await until(lambda: bool(server.watch_responses))
    server.cut_watches()
    server.put(POD_A, pod("Running"))
    await until(lambda: watched.phases() == {"a/one": "Running"})
    assert server.calls("GET", watch=False) == 1


async def test_a_silent_connection_is_given_up(server: FakeApiServer, watching: Watching) -> None:
    """A server that says nothing at all is asked again, on another connection."""
    server.mute_watches = True
    watched = await watching(
        InformerTiming(watch_seconds=0.1, silence_seconds=0.1, first_retry_seconds=0.01)
    )
    await until(lambda: server.calls("GET", watch=True) == 2)
    server.mute_watches = False
    server.put(POD_A, pod("Running"))
    await until(lambda: watched.phases() == {"a/one": "Running"})


async def test_a_forgotten_moment_lists_again(server: FakeApiServer, watching: Watching) -> None:
    """After 410 the list is read anew, and what vanished meanwhile is told as gone."""
    server.put(POD_A, pod("Running"))
    server.put(POD_B, pod("Running"))
    watched = await watching()
    await until(lambda: len(watched.told) == 2 and bool(server.watch_responses))
    server.cut_watches()
    server.remove(POD_A)
    server.put(POD_B, pod("Failed"))
    server.forget_history()
    await until(lambda: watched.phases() == {"b/two": "Failed"})
    assert watched.told[2:] == [("a/one", "Running", None), ("b/two", "Running", "Failed")]


async def test_what_did_not_change_is_not_told_again(
    server: FakeApiServer, watching: Watching
) -> None:
    """A list read anew tells differences only."""
    server.put(POD_A, pod("Running"))
    watched = await watching()
    await until(lambda: bool(server.watch_responses))
    server.forget_history()
    server.cut_watches()
    await until(lambda: server.calls("GET", watch=False) == 2)
    server.put(POD_B, pod("Running"))
    await until(lambda: "b/two" in watched.phases())
    assert [key for key, _, _ in watched.told] == ["a/one", "b/two"]


async def test_items_stay_while_the_server_fails(server: FakeApiServer, watching: Watching) -> None:
    """The last good view stays through an outage, its age grows, and the watch recovers."""
    server.put(POD_A, pod("Running"))
    watched = await watching()
    await until(lambda: bool(server.watch_responses))
    server.faults = [(503, "ServiceUnavailable")] * 1000
    server.cut_watches()
    await until(lambda: len(server.faults) < 990)
    assert watched.phases() == {"a/one": "Running"}
    assert watched.informer.age_seconds() > 0.05
    server.faults.clear()
    server.put(POD_A, pod("Failed"))
    await until(lambda: watched.phases() == {"a/one": "Failed"})
    assert watched.informer.age_seconds() < 1


async def test_a_server_with_another_history_is_listed(
    server: FakeApiServer, watching: Watching
) -> None:
    """A server that refuses our resource version for long is read from the beginning."""
    server.put(POD_A, pod("Running"))
    watched = await watching()
    await until(lambda: bool(server.watch_responses))
    server.watch_errors = [status(504, "Timeout", "too large resource version")] * 3
    server.cut_watches()
    await until(lambda: not server.watch_errors)
    server.put(POD_B, pod("Running"))
    await until(lambda: "b/two" in watched.phases())


async def test_a_kind_that_is_not_served_is_waited_for(
    server: FakeApiServer, watching: Watching
) -> None:
    """Without its CRD the informer is not synced, asks calmly, and starts once it is there."""
    server.missing = {"/api/v1/pods"}
    watched = await watching()
    await until(lambda: server.calls("GET") >= 3)
    assert not watched.informer.synced.is_set()
    assert watched.informer.age_seconds() == float("inf")
    server.put(POD_A, pod("Running"))
    server.missing.clear()
    await until(lambda: watched.phases() == {"a/one": "Running"})


@pytest.mark.parametrize(("optional", "told"), [(True, "info"), (False, "warning")])
async def test_a_kind_that_may_be_missing_raises_no_alarm(
    server: FakeApiServer, api: KubeApi, *, optional: bool, told: str
) -> None:
    """That a kind is not served is told once, as a warning only where it must be."""
    server.missing = {"/api/v1/pods"}
    informer = Informer(
        api, PODS, trim=bool, on_change=lambda *_: None, timing=QUICK, optional=optional
    )
    with capture_logs() as lines:
        task = asyncio.create_task(informer.run())
        await until(lambda: server.calls("GET") >= 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [line["log_level"] for line in lines] == [told]


async def test_an_idle_server_is_asked_rarely(server: FakeApiServer, watching: Watching) -> None:
    """A server whose watches end at once does not make the informer spin."""
    server.watch_errors = [status(410, "Expired")] * 10_000
    await watching(InformerTiming(first_retry_seconds=0.1, max_retry_seconds=0.2))
    started = time.monotonic()
    await until(lambda: server.calls("GET", watch=True) >= 5)
    assert time.monotonic() - started > 0.3

"""The driver: delivers each command to whoever waits, keeps the clock, survives the core."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from heliostat_extproc import driver as driver_module
from heliostat_extproc.driver import FallOpen, RouterDriver, ShutDown
from heliostat_routing.commands import (
    Command,
    Dispatch,
    Enqueue,
    Evict,
    EvictReason,
    Forward,
    Reject,
    RejectReason,
    WakeAt,
)
from heliostat_routing.events import (
    AttemptStarted,
    DispatchFailed,
    Event,
    ForwardRefused,
    RequestArrived,
    RequestFinished,
    Tick,
)
from heliostat_routing.explanation import Explanation
from heliostat_routing.views import PoolView

WHY = Explanation(policy="p", rule="r", winner=None, eligible=1)


@dataclass
class ScriptedCore:
    """Answers each event as the test says and remembers it."""

    answer: Callable[[Event, float], list[Command]]
    events: list[Event] = field(default_factory=list)

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        self.events.append(event)
        return self.answer(event, now)

    def views(self, now: float) -> tuple[PoolView, ...]:
        return ()


def arrival(ticket: int) -> RequestArrived:
    return RequestArrived(ticket=ticket, pool="p", block_keys=(), prompt_bytes=0)


def queueing(event: Event, now: float) -> list[Command]:
    """Hold every request for ten seconds, and give all to `e:1` at the first tick."""
    if isinstance(event, RequestArrived):
        return [Enqueue(event.ticket, now + 10.0, WHY), WakeAt(now + 0.01)]
    return []


async def test_the_answer_to_an_arrival_is_there_at_once() -> None:
    """A dispatch or a rejection needs no waiting."""
    core = ScriptedCore(lambda event, now: [Dispatch(1, ("a:1", "b:1"), WHY)])
    driver = RouterDriver(core)
    assert driver.arrive(arrival(1)) == Dispatch(1, ("a:1", "b:1"), WHY)
    assert driver.serving_endpoints() == {"a:1"}
    assert driver.promised_endpoints() == {"a:1", "b:1"}
    core.answer = lambda event, now: [Reject(2, RejectReason.QUEUE_FULL, 1.0)]
    assert driver.arrive(arrival(2)) == Reject(2, RejectReason.QUEUE_FULL, 1.0)


async def test_a_held_request_gets_the_command_that_a_later_event_brings() -> None:
    """Commands find their stream by ticket, whichever event caused them."""
    core = ScriptedCore(queueing)
    driver = RouterDriver(core)
    first, second = driver.arrive(arrival(1)), driver.arrive(arrival(2))
    assert isinstance(first, Enqueue)
    assert isinstance(second, Enqueue)
    waits = [asyncio.ensure_future(driver.verdict(e)) for e in (first, second)]
    core.answer = lambda event, now: [
        Dispatch(2, ("a:1",), WHY),
        Evict(1, EvictReason.DEADLINE_PASSED, 1.0),
    ]
    driver.submit(Tick())
    assert await asyncio.gather(*waits) == [
        Evict(1, EvictReason.DEADLINE_PASSED, 1.0),
        Dispatch(2, ("a:1",), WHY),
    ]
    assert driver.held_requests == 0


async def test_only_the_last_wish_to_wake_counts() -> None:
    """`WakeAt` replaces the instant asked for before and brings one tick."""
    ticked = asyncio.Event()

    def answer(event: Event, now: float) -> list[Command]:
        if isinstance(event, Tick):
            ticked.set()
            return []
        return [WakeAt(now + 1000.0), WakeAt(now + 0.001)]

    core = ScriptedCore(answer)
    driver = RouterDriver(core)
    driver.submit(RequestFinished(1))
    async with asyncio.timeout(2):
        await ticked.wait()
    assert core.events == [RequestFinished(1), Tick()]


async def test_a_request_finishes_once_however_often_its_stream_ends() -> None:
    """The core hears of each end exactly once, and never of a request that did not arrive."""
    core = ScriptedCore(lambda event, now: [])
    driver = RouterDriver(core)
    driver.arrive(arrival(1))
    assert driver.open_requests == 1
    for ticket in (1, 1, 2):
        driver.finish(ticket)
    assert core.events == [arrival(1), RequestFinished(1)]
    assert driver.open_requests == 0


async def test_a_failing_core_lets_requests_fall_open() -> None:
    """An exception of the core reaches no stream; the next event is handled as ever."""

    def fail(event: Event, now: float) -> list[Command]:
        raise ZeroDivisionError

    core = ScriptedCore(fail)
    driver = RouterDriver(core)
    assert driver.arrive(arrival(1)) == FallOpen(1)
    core.answer = lambda event, now: [Dispatch(2, ("a:1",), WHY)]
    assert driver.arrive(arrival(2)) == Dispatch(2, ("a:1",), WHY)


async def test_a_core_that_forgets_a_held_request_does_not_hang_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past its deadline a request falls open."""
    monkeypatch.setattr(driver_module, "OVERDUE_SECONDS", 0.01)
    core = ScriptedCore(lambda event, now: [Enqueue(1, now + 0.01, WHY)])
    driver = RouterDriver(core)
    enqueued = driver.arrive(arrival(1))
    assert isinstance(enqueued, Enqueue)
    assert await driver.verdict(enqueued) == FallOpen(1)


async def test_a_word_that_comes_as_late_as_it_may_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loop that was busy finds word and time limit due at once: the word is the last one."""
    monkeypatch.setattr(driver_module, "OVERDUE_SECONDS", 0.0)
    core = ScriptedCore(lambda event, now: [Enqueue(1, now + 0.02, WHY)])
    driver = RouterDriver(core)
    enqueued = driver.arrive(arrival(1))
    assert isinstance(enqueued, Enqueue)
    verdict = asyncio.ensure_future(driver.verdict(enqueued))
    core.answer = lambda event, now: [Evict(1, EvictReason.DEADLINE_PASSED, 1.0)]
    loop = asyncio.get_running_loop()
    loop.call_at(enqueued.deadline - 1e-6, lambda: driver.submit(Tick()))
    assert await verdict == Evict(1, EvictReason.DEADLINE_PASSED, 1.0)


async def test_closing_gives_up_what_is_held() -> None:
    """A held stream learns that the router stops."""
    driver = RouterDriver(ScriptedCore(queueing))
    enqueued = driver.arrive(arrival(1))
    assert isinstance(enqueued, Enqueue)
    waiting = asyncio.ensure_future(driver.verdict(enqueued))
    await asyncio.sleep(0)
    driver.close()
    assert await waiting == ShutDown(1)


async def test_an_attempt_elsewhere_moves_the_request() -> None:
    """The access log's word on who serves replaces the pick."""
    core = ScriptedCore(lambda event, now: [Dispatch(1, ("a:1", "b:1"), WHY)])
    driver = RouterDriver(core)
    driver.arrive(arrival(1))
    core.answer = lambda event, now: []
    driver.submit(AttemptStarted(1, "b:1"))
    assert driver.serving_endpoints() == {"b:1"}
    driver.finish(1)
    assert driver.promised_endpoints() == frozenset()


async def test_tickets_do_not_repeat() -> None:
    """Each request has a number of its own, across restarts too."""
    first, second = RouterDriver(ScriptedCore(queueing)), RouterDriver(ScriptedCore(queueing))
    tickets = [first.next_ticket(), first.next_ticket(), second.next_ticket() + 10**6]
    assert len(set(tickets)) == 3


async def test_what_a_region_gives_back_is_decided_anew() -> None:
    """The core hears of the refusal once, and its word goes to the stream of the return."""
    core = ScriptedCore(lambda event, now: [Forward(1, "eu", 0.1, WHY)])
    driver = RouterDriver(core)
    assert driver.arrive(arrival(1)) == Forward(1, "eu", 0.1, WHY)
    core.answer = queueing_again
    enqueued = driver.give_back(1)
    assert core.events[-1] == ForwardRefused(1, "eu")
    assert isinstance(enqueued, Enqueue)
    assert driver.give_back(1) is None
    wait = asyncio.ensure_future(driver.verdict(enqueued))
    core.answer = lambda event, now: [Dispatch(1, ("a:1",), WHY)]
    driver.submit(Tick())
    assert await wait == Dispatch(1, ("a:1",), WHY)
    assert driver.inflight_by_endpoint() == {"a:1": 1}
    driver.finish(1)
    assert driver.give_back(1) is None


async def test_a_held_request_that_finishes_holds_nobody() -> None:
    """Whoever waits for its last word is told at once that none comes, before and after."""
    driver = RouterDriver(ScriptedCore(queueing))
    first, second = driver.arrive(arrival(1)), driver.arrive(arrival(2))
    assert isinstance(first, Enqueue)
    assert isinstance(second, Enqueue)
    waiting = asyncio.ensure_future(driver.verdict(first))
    await asyncio.sleep(0)
    driver.finish(1)
    driver.finish(2)
    assert await waiting == ShutDown(1)
    assert await driver.verdict(second) == ShutDown(2)


def queueing_again(event: Event, now: float) -> list[Command]:
    """Hold a request that has come back for ten seconds."""
    return [Enqueue(1, now + 10.0, WHY)] if isinstance(event, ForwardRefused) else []


async def test_what_comes_back_names_each_endpoint_once_however_it_was_tried() -> None:
    """One failed request is one failure of each, also of those to which Envoy has moved it."""
    core = ScriptedCore(lambda event, now: [Dispatch(1, ("a:1", "b:1"), WHY)])
    driver = RouterDriver(core)
    driver.arrive(arrival(1))
    core.answer = lambda event, now: []
    for endpoint in ("a:1", "b:1"):
        driver.submit(AttemptStarted(1, endpoint))
    assert driver.serving_endpoints() == {"b:1"}
    driver.give_back(1)
    assert core.events[-1] == DispatchFailed(1, ("b:1", "a:1"))


async def test_who_follows_and_fails_ends_no_request() -> None:
    """The answer is given all the same, and whoever follows too hears of the step."""

    class Failing:
        def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
            raise ValueError

    class Following:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
            self.events.append(event)

    core, following = ScriptedCore(lambda event, now: [Dispatch(1, ("a:1",), WHY)]), Following()
    driver = RouterDriver(core, recorders=(Failing(), following))
    assert driver.arrive(arrival(1)) == Dispatch(1, ("a:1",), WHY)
    assert following.events == [arrival(1)]

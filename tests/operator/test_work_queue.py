"""The work queue, in virtual time."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from heliostat_operator.work_queue import WorkQueue
from tests.operator.virtual_time import run_virtually


class Worked:
    """What a queue's workers did, and when."""

    def __init__(self, *, takes_seconds: float = 0.0, fails: int = 0) -> None:
        self.queue: WorkQueue[str] = WorkQueue(first_retry_seconds=1.0, max_retry_seconds=4.0)
        self.log: list[tuple[str, float]] = []
        self.retries: list[float] = []
        self.at_once: defaultdict[str, int] = defaultdict(int)
        self.most_at_once = 0
        self.again: float | None = None
        self._takes_seconds = takes_seconds
        self._fails = fails

    async def work(self, key: str) -> float | None:
        self.at_once[key] += 1
        assert self.at_once[key] == 1, "one key, one worker"
        self.most_at_once = max(self.most_at_once, sum(self.at_once.values()))
        self.log.append((key, asyncio.get_running_loop().time()))
        await asyncio.sleep(self._takes_seconds)
        self.at_once[key] -= 1
        if self._fails:
            self._fails -= 1
            raise ValueError("again")
        again, self.again = self.again, None
        return again

    def add_all(self, keys: str) -> None:
        for key in keys:
            self.queue.add(key)

    def during(self, seconds: float, act: Callable[[], None], workers: int = 2) -> None:
        """Act, let the workers run for so long, and have them end."""

        async def main() -> None:
            act()
            running = asyncio.create_task(
                self.queue.run(
                    self.work, workers=workers, on_error=lambda *told: self.retries.append(told[2])
                )
            )
            await asyncio.sleep(seconds)
            self.queue.stop()
            await running

        run_virtually(main())


def test_a_key_added_twice_is_worked_on_once() -> None:
    """What waits already needs no second place in the queue."""
    worked = Worked()
    worked.during(1, lambda: worked.add_all("aba"))
    assert [key for key, _ in worked.log] == ["a", "b"]


def test_a_key_added_during_its_work_is_worked_on_again() -> None:
    """A change that comes while its pool is looked at is not lost, nor looked at in parallel."""
    worked = Worked(takes_seconds=2)

    def act() -> None:
        worked.queue.add("a")
        asyncio.get_running_loop().call_later(1, worked.queue.add, "a")
        asyncio.get_running_loop().call_later(1.5, worked.queue.add, "a")

    worked.during(10, act)
    assert worked.log == [("a", 0.0), ("a", 2.0)]


def test_no_more_keys_than_workers_run_at_once() -> None:
    """Concurrency is bounded, and used."""
    worked = Worked(takes_seconds=1)
    worked.during(20, lambda: worked.add_all("abcdefg"), workers=3)
    assert len(worked.log) == 7
    assert worked.most_at_once == 3


def test_a_failing_key_is_tried_later_each_time() -> None:
    """Delays double up to the bound, and start over after a success."""
    worked = Worked(fails=4)
    worked.during(60, lambda: worked.queue.add("a"))
    assert worked.retries == [1.0, 2.0, 4.0, 4.0]
    assert [at for _, at in worked.log] == [0.0, 1.0, 3.0, 7.0, 11.0]


def test_a_failing_key_does_not_hold_up_others() -> None:
    """While one key waits for its next try the others are worked on."""
    worked = Worked(fails=1)
    worked.during(5, lambda: worked.add_all("ab"), workers=1)
    assert worked.log == [("a", 0.0), ("b", 0.0), ("a", 1.0)]


def test_work_may_ask_to_be_done_again() -> None:
    """What a worker returns is after how many seconds the key comes again."""
    worked = Worked()
    worked.again = 5.0
    worked.during(30, lambda: worked.queue.add("a"))
    assert worked.log == [("a", 0.0), ("a", 5.0)]


def test_of_several_wishes_the_earliest_counts() -> None:
    """A later wish does not postpone an earlier one, and is met by it."""

    def act() -> None:
        for seconds in (9, 3, 6):
            worked.queue.add_after("a", seconds)

    worked = Worked()
    worked.during(30, act)
    assert worked.log == [("a", 3.0)]


def test_stopping_ends_what_is_under_way_only() -> None:
    """The key under way is finished, the others stay in the queue for whoever leads next."""
    worked = Worked(takes_seconds=2)
    worked.during(1, lambda: worked.add_all("abc"), workers=1)
    assert worked.log == [("a", 0.0)]
    assert worked.at_once["a"] == 0
    assert len(worked.queue) == 2


def test_a_key_cut_off_is_worked_on_by_whoever_leads_next() -> None:
    """Losing the Lease in the midst of a key's work loses no key."""
    worked = Worked(takes_seconds=2)

    async def main() -> None:
        worked.queue.add("a")
        running = asyncio.create_task(
            worked.queue.run(worked.work, workers=1, on_error=lambda *_: None)
        )
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtually(main())
    assert [key for key, _ in worked.log] == ["a"]
    assert len(worked.queue) == 1

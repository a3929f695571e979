"""A queue of keys: each is worked on by one worker at a time, and never lost.

A key says only that something may differ; whoever works on it looks at everything anew. So a key
that is added twice is worked on once, and one added during its own work is worked on again after.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from heliostat_kube.backoff import GROWTH

K = TypeVar("K", bound=Hashable)

Work = Callable[[K], Awaitable[float | None]]
"""Works on a key; the result is after how many seconds to work on it again, None for not by
itself. An exception means again, later each time."""

OnError = Callable[[K, Exception, float], None]
"""Told of a failure: the key, what went wrong, and after how many seconds it is tried again."""


class WorkQueue(Generic[K]):
    """Keys to work on, with backoff per key and bounded concurrency."""

    def __init__(
        self, *, first_retry_seconds: float = 0.2, max_retry_seconds: float = 60.0
    ) -> None:
        self._first_retry_seconds = first_retry_seconds
        self._max_retry_seconds = max_retry_seconds
        self._due: dict[K, None] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def __len__(self) -> int:
        """How many keys wait for a worker, those that wait for their time not counted."""
        return len(self._due)

    def add(self, key: K) -> None:
        """Have the key worked on soon."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._due:
            self._due[key] = None
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key worked on in a while; of several such wishes the earliest counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._on_timer, key)

    async def run(self, work: Work[K], *, workers: int, on_error: OnError[K]) -> None:
        """Work until `stop`, then end what is under way; keys that wait stay in the queue."""
        self._stopping = False
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._serve(work, on_error))

    def stop(self) -> None:
        """Have `run` return once the keys under way are done."""
        self._stopping = True
        self._wake.set()

    async def _serve(self, work: Work[K], on_error: OnError[K]) -> None:
        while True:
            while not self._due and not self._stopping:
                self._wake.clear()
                await self._wake.wait()
            if self._stopping:
                return
            key = next(iter(self._due))
            del self._due[key]
            self._running.add(key)
            try:
                await self._work_on(key, work, on_error)
            except asyncio.CancelledError:
                self._again.add(key)  # cut off: whoever leads next begins anew
                raise
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _work_on(self, key: K, work: Work[K], on_error: OnError[K]) -> None:
        try:
            again_seconds = await work(key)
        except Exception as error:  # whatever it is, the key is tried again
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            seconds = self._first_retry_seconds * GROWTH ** min(failures, 30)
            seconds = min(self._max_retry_seconds, seconds)
            on_error(key, error, seconds)
            self.add_after(key, seconds)
            return
        self._failures.pop(key, None)
        if again_seconds is not None:
            self.add_after(key, again_seconds)

    def _on_timer(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

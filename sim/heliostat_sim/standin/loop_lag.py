"""How late the event loop runs: a measurement through a lagging stand-in is worth nothing."""

import asyncio

_INTERVAL_SECONDS = 0.01
_CLOCK_SECONDS = 0.0005
"""Half of what uvloop's clock can tell: a tick so little early is on time, and is not waited for,
which would spin."""
_BIN_SECONDS = 0.0005
_BINS = 2000


class LoopLagProbe:
    """Ticks every 10 ms and keeps how late each tick was, over the whole run.

    A stall delays all ticks that fall into it, and each of them is counted.
    """

    def __init__(self) -> None:
        self._counts = [0] * (_BINS + 1)
        self._samples = 0
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.max_seconds = 0.0

    def start(self) -> None:
        """Begin to measure the running loop."""
        self._due_at = asyncio.get_running_loop().time()
        self._wake()

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()

    def quantile_seconds(self, share: float) -> float:
        """Return the lag that this share of the samples does not exceed (0.5 ms bins)."""
        wanted = share * self._samples
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min((index + 1) * _BIN_SECONDS, self.max_seconds)
        return self.max_seconds

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._due_at <= now + _CLOCK_SECONDS:
            self._count(max(0.0, now - self._due_at))
            self._due_at += _INTERVAL_SECONDS
        self._timer = loop.call_at(self._due_at, self._wake)

    def _count(self, lag_seconds: float) -> None:
        self._samples += 1
        self._counts[min(int(lag_seconds / _BIN_SECONDS), _BINS)] += 1
        self.max_seconds = max(self.max_seconds, lag_seconds)

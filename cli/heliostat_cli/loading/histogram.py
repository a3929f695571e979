"""Percentiles of durations in bounded memory."""

import math

_GROWTH = math.log(1.01)
_SMALLEST_SECONDS = 1e-5
_BUCKETS = 1 + math.ceil(math.log(1e5 / _SMALLEST_SECONDS) / _GROWTH)


class DurationHistogram:
    """Counts durations in buckets that grow by 1 %: 10 microseconds to a day, in 18 KiB.

    A percentile is exact to 0.5 % above 10 microseconds; the least and the greatest are exact.
    """

    def __init__(self) -> None:
        self._buckets = [0] * (_BUCKETS + 1)
        self._count = 0
        self._least_seconds = math.inf
        self._greatest_seconds = 0.0

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return self._count

    @property
    def max_seconds(self) -> float | None:
        """The longest; None if nothing was recorded."""
        return self._greatest_seconds if self._count else None

    def record(self, seconds: float) -> None:
        """Count one duration; below 0 counts as 0."""
        seconds = max(0.0, seconds)
        self._count += 1
        self._least_seconds = min(self._least_seconds, seconds)
        self._greatest_seconds = max(self._greatest_seconds, seconds)
        bucket = 0
        if seconds > _SMALLEST_SECONDS:
            bucket = min(1 + int(math.log(seconds / _SMALLEST_SECONDS) / _GROWTH), _BUCKETS)
        self._buckets[bucket] += 1

    def percentile(self, percent: float) -> float | None:
        """The nearest-rank percentile in seconds; None if nothing was recorded."""
        if not self._count:
            return None
        rank = max(1, math.ceil(self._count * percent / 100))
        if rank == self._count:
            return self._greatest_seconds
        seen = 0
        for bucket, count in enumerate(self._buckets):
            seen += count
            if seen >= rank:
                middle = _SMALLEST_SECONDS * math.exp((bucket - 0.5) * _GROWTH) if bucket else 0.0
                return min(max(middle, self._least_seconds), self._greatest_seconds)
        raise AssertionError("the buckets hold fewer durations than were recorded")

"""Waiting longer after each failure, with jitter, so that many clients do not come back at once."""

import random

GROWTH = 2.0


class Backoff:
    """Delays that double from `first_seconds` to `max_seconds`, each shortened by up to a half."""

    def __init__(self, first_seconds: float, max_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._seconds = first_seconds

    def next_seconds(self) -> float:
        """How long to wait after one more failure."""
        seconds = self._seconds
        self._seconds = min(self._max_seconds, seconds * GROWTH)
        return seconds * (0.5 + 0.5 * random.random())  # noqa: S311 - jitter

    def reset(self) -> None:
        """Start over after a success."""
        self._seconds = self._first_seconds

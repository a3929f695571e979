"""How fast another router may make this one work: a budget that fills again as time goes by."""

from collections.abc import Callable


class Budget:
    """So much a second, and so much at once after a pause."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()

    def spend(self, amount: float) -> float:
        """Take so much; return for how many seconds nothing more is to be taken."""
        before, self._at = self._at, self._clock()
        filled = self._left + (self._at - before) * self._per_second
        self._left = min(filled, self._burst) - amount
        return max(0.0, -self._left / self._per_second)

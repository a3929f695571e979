"""The instants at which a router does what it does again and again.

To wake up costs more than most of what is done then, so all that is periodic comes together.
"""

from collections.abc import Callable

_AT_ONCE_SECONDS = 0.005
"""An instant that is so near has been served: a timer may fire a little early."""


class Pulse:
    """Instants from now on, at the multiples of any period. The clock is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_at = clock()

    def pause_seconds(self, period_seconds: float) -> float:
        """Say how long it is until the next instant of this period."""
        pause_seconds = period_seconds - (self._clock() - self._began_at) % period_seconds
        if pause_seconds < _AT_ONCE_SECONDS:
            pause_seconds += period_seconds
        return pause_seconds

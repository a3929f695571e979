"""The event loop of virtual time: actions at instants, those of one instant in order of asking."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf

Action = Callable[[], None]


class EventLoop:
    """A heap of (instant, order, action)."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._order = count()

    def at(self, instant: float, action: Action) -> None:
        """Run the action at this instant, or now if it is past."""
        heappush(self._heap, (max(instant, self.now), next(self._order), action))

    def after(self, seconds: float, action: Action) -> None:
        """Run the action so much later."""
        heappush(self._heap, (self.now + seconds, next(self._order), action))

    def run(self, until: float = inf) -> None:
        """Run all actions up to and including this instant."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action = heappop(heap)
            action()
        if until != inf:
            self.now = max(self.now, until)

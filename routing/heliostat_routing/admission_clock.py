"""When an endpoint's prefill work will be done, predicted from what was sent to it.

Counting at the pick is what lets the next decision see the last one; waiting for a scrape would
send every request of an interval to the endpoint that looked idle at its start.
"""

from collections import deque


class AdmissionClock:
    """The dispatches of one endpoint whose prefill is predicted to lie ahead.

    Entries are (instant at which the prefill is done, its length in seconds, ticket), ascending.
    """

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead: deque[tuple[float, float, int]] = deque()

    def pending(self, now: float) -> int:
        """Dispatches whose prefill is predicted to be unfinished."""
        ahead = self._ahead
        while ahead and ahead[0][0] <= now:
            ahead.popleft()
        return len(ahead)

    def done_at(self, now: float) -> float:
        """The instant at which all prefill work is predicted to be done, `now` if it is."""
        return max(now, self._ahead[-1][0]) if self._ahead else now

    def frees_at(self, now: float, limit: int) -> float:
        """The instant from which at most `limit` dispatches are pending."""
        count = self.pending(now)
        return self._ahead[count - 1 - limit][0] if count > limit else now

    def push(self, ticket: int, start: float, work_seconds: float) -> float:
        """Account a dispatch that arrives at `start`; return when its prefill will be done."""
        done_at = self.done_at(start) + work_seconds
        self._ahead.append((done_at, work_seconds, ticket))
        return done_at

    def release(self, ticket: int, now: float) -> None:
        """Take back what is left of this dispatch's work: those behind it move up."""
        self.pending(now)
        for position, (done_at, work_seconds, owner) in enumerate(self._ahead):
            if owner == ticket:
                saved = min(work_seconds, done_at - now)
                tail = [self._ahead.pop() for _ in range(len(self._ahead) - position - 1)]
                self._ahead.pop()
                self._ahead.extend((at - saved, work, who) for at, work, who in reversed(tail))
                return

    def delay(self, seconds: float) -> None:
        """Move all pending work back: the clock has stood still for so long."""
        self._ahead = deque((at + seconds, work, who) for at, work, who in self._ahead)

    def reset(self) -> None:
        """Forget all work: the engine has restarted."""
        self._ahead.clear()

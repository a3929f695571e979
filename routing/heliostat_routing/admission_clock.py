"""When an endpoint's prefill work will be done, predicted from what was sent to it.

Counting at the pick is what lets the next decision see the last one; waiting for a scrape would
send every request of an interval to the endpoint that looked idle at its start.
"""

from collections import deque

ROUNDING_SECONDS = 1e-6
"""What is due so soon is due: the instant that was promised must not come out a hair too early."""


class AdmissionClock:
    """The dispatches of one endpoint whose prefill is predicted to lie ahead.

    Entries are (instant at which the prefill is done, its length in seconds, ticket), ascending.
    While the clock is stopped no work gets done, and all of it moves back by as long.
    """

    __slots__ = ("_ahead", "_stopped_at")

    def __init__(self) -> None:
        self._ahead: deque[tuple[float, float, int]] = deque()
        self._stopped_at: float | None = None

    def pending(self, now: float) -> int:
        """Dispatches whose prefill is predicted to be unfinished."""
        ahead = self._ahead
        if ahead:
            reached = self._reached(now) + ROUNDING_SECONDS
            while ahead and ahead[0][0] <= reached:
                ahead.popleft()
        return len(ahead)

    def waiting(self, now: float, step_seconds: float) -> int:
        """Dispatches whose prefill is predicted to be unfinished a step from now."""
        count = self.pending(now)
        joined = self._reached(now) + step_seconds + ROUNDING_SECONDS
        for done_at, _, _ in self._ahead:
            if done_at > joined:
                break
            count -= 1
        return count

    def done_at(self, now: float) -> float:
        """The instant at which all prefill work is predicted to be done, `now` if it is."""
        return now + max(0.0, self._ahead[-1][0] - self._reached(now)) if self._ahead else now

    def frees_at(self, now: float, limit: int, step_seconds: float = 0.0) -> float:
        """The instant from which at most `limit` dispatches are waiting."""
        count = self.pending(now)
        if count <= limit:
            return now
        return max(now, now + self._ahead[count - 1 - limit][0] - self._reached(now) - step_seconds)

    def push(self, ticket: int, start: float, work_seconds: float) -> float:
        """Account a dispatch that arrives at `start`; return when its prefill will be done."""
        begins_at = max(self._reached(start), self._ahead[-1][0] if self._ahead else 0.0)
        self._ahead.append((begins_at + work_seconds, work_seconds, ticket))
        return self.done_at(start)

    def release(self, ticket: int, now: float) -> None:
        """Take back what is left of this dispatch's work: those behind it move up."""
        self.pending(now)
        for position, (done_at, work_seconds, owner) in enumerate(self._ahead):
            if owner == ticket:
                saved = min(work_seconds, done_at - self._reached(now))
                tail = [self._ahead.pop() for _ in range(len(self._ahead) - position - 1)]
                self._ahead.pop()
                self._ahead.extend((at - saved, work, who) for at, work, who in reversed(tail))
                return

    def stop(self, now: float) -> None:
        """Stand still from now on: the engine does not get on with this work."""
        if self._stopped_at is None:
            self.pending(now)
            self._stopped_at = now

    def run(self, now: float) -> None:
        """Go on, with what is left moved back by the time that the clock stood still."""
        if self._stopped_at is not None:
            seconds = now - self._stopped_at
            self._ahead = deque((at + seconds, work, who) for at, work, who in self._ahead)
            self._stopped_at = None

    def reset(self) -> None:
        """Forget all work: the engine has restarted."""
        self._ahead.clear()
        self._stopped_at = None

    def _reached(self, now: float) -> float:
        return now if self._stopped_at is None else self._stopped_at

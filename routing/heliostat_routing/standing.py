"""Whether a region does what its states promise: one that does not is left alone.

A request that comes back is a failure, and so is one that it answers badly. Each failure that
follows another without a served request between them doubles the time for which the region is left
alone. Until it serves one, only a few requests at a time try it out; so they do while it has
answered none for long. And what is not served may be no more than a share of what is sent there, so
that a region that serves some and fails most is no better off; requests that it calls wrong count
in this share alone, for they may be. All this follows from requests, never from what the region
says.
"""

from math import inf

SHORTEST_SECONDS = 0.01
LONGEST_SECONDS = 5.0
"""A region is left alone for a round trip at first, then for twice as long, up to this."""
TRIALS = 4
"""Unanswered requests that a region may have which has failed and has served none since."""
ANSWER_MARGIN_SECONDS = 0.1
"""A request that is not back so long after it had to be is being served."""
UNSERVED_RATIO = 0.2
"""Share of the requests sent there that may be not served, for all that."""
FIRST_BUDGET = 10.0
MOST_BUDGET = 50.0
"""Requests that may be not served at first, and at most after a long time without."""
MUTE_SECONDS = 60.0
"""A region is mute that has, for so long, answered none of the requests sent since its last answer.
"""


class Standing:
    """How one region has done by the requests sent there, and whether it gets more."""

    def __init__(self) -> None:
        self.forwarded = 0
        self.refused = 0
        self.lost = 0
        """Requests that came back because the region was not reached."""
        self._failures = 0
        self._left_alone_at = -inf
        self._left_alone_until = -inf
        self._budget = FIRST_BUDGET
        self._trials: dict[int, float] = {}
        """Unanswered trials by ticket, with when each counts as accepted."""
        self._unanswered_since: float | None = None
        """When the first request was sent since the last answer; None if none was."""

    def on_forward(self, ticket: int, answer_seconds: float, now: float) -> None:
        """Note a request that is sent there, which has to be answered within so long."""
        self.forwarded += 1
        self._budget = min(MOST_BUDGET, self._budget + UNSERVED_RATIO)
        if self._unanswered_since is None:
            self._unanswered_since = now
        if self._is_on_trial(now):
            self._trials[ticket] = now + answer_seconds + ANSWER_MARGIN_SECONDS

    def on_return(
        self, ticket: int, sent_at: float, round_trip_seconds: float, now: float, *, lost: bool
    ) -> None:
        """Note a request that has come back unserved."""
        self.lost += lost
        self.refused += not lost
        self._trials.pop(ticket, None)
        self.on_failed(sent_at, round_trip_seconds, now)

    def on_failed(self, sent_at: float, round_trip_seconds: float, now: float) -> None:
        """Note that a request was answered badly, or not to its end."""
        news = sent_at > self._left_alone_at
        self._fail(round_trip_seconds, now, news=news)
        self._spend(now, news=news)

    def on_client_error(self, sent_at: float, now: float) -> None:
        """Note that a request was answered as wrong, which it may be."""
        self._spend(now, news=sent_at > self._left_alone_at)

    def on_unreached(self, round_trip_seconds: float, now: float) -> None:
        """Note that the region is not reached any more."""
        self._fail(round_trip_seconds, now, news=True)

    def on_served(self) -> None:
        """Note that a request was served there."""
        self._failures = 0
        self._trials.clear()
        self.on_output()

    def on_output(self) -> None:
        """Note that a request was being served, though its client has left."""
        self._unanswered_since = None

    def on_end(self, ticket: int) -> None:
        """Note that a request's stream is over."""
        self._trials.pop(ticket, None)

    def backoff_seconds(self, now: float) -> float:
        """How long it is left alone from now on."""
        return max(0.0, self._left_alone_until - now)

    def tried_out(self, now: float) -> bool:
        """Whether as many requests try it out as may; of a mute region none counts as accepted."""
        if not self._trials or not self._is_on_trial(now):
            return False
        if not self._is_mute(now):
            for ticket in [ticket for ticket, until in self._trials.items() if until <= now]:
                del self._trials[ticket]
        return len(self._trials) >= TRIALS

    def _is_on_trial(self, now: float) -> bool:
        return self._failures > 0 or self._budget < 1 or self._is_mute(now)

    def _is_mute(self, now: float) -> bool:
        since = self._unanswered_since
        return since is not None and now - since >= MUTE_SECONDS

    def _spend(self, now: float, *, news: bool) -> None:
        """Count a request that was not served, though it came to an end."""
        self._unanswered_since = None
        self._budget = max(0.0, self._budget - 1)
        if news and not self._budget:
            self._left_alone_at = now
            self._left_alone_until = now + LONGEST_SECONDS

    def _fail(self, round_trip_seconds: float, now: float, *, news: bool) -> None:
        """Leave it alone; what was sent before it was last left alone says nothing new of it."""
        if news:
            self._failures += 1
            self._left_alone_at = now
        doubled = max(round_trip_seconds, SHORTEST_SECONDS) * 2 ** min(self._failures - 1, 10)
        until = now + min(LONGEST_SECONDS, doubled)
        self._left_alone_until = max(self._left_alone_until, until)

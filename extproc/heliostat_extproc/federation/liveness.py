"""Whether the other end of a link is heard, from its echoes alone.

An echo proves both directions at once. What counts is when the ping was sent that it answers: an
old echo that comes late says nothing of now. Pings have numbers that nobody can guess, so none is
echoed before it has come.
"""

from collections import OrderedDict
from secrets import randbits

MOST_UNANSWERED = 256
"""Pings that are remembered for their echo."""
NUMBER_BITS = 64
_RISE_RATIO = 1 / 64
"""How fast the round trip follows echoes that take longer: an echo may have waited somewhere, but
none comes before its time."""


class Liveness:
    """The pings of one link. Its clock is the caller's, in seconds."""

    def __init__(self) -> None:
        self.round_trip_seconds: float | None = None
        self.heard_at: float | None = None
        """When the newest echo came."""
        self._proven_at: float | None = None
        """When the ping was sent that it answers."""
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        """The pings that no echo has answered or overtaken, by number, in the order of sending."""

    def ping(self, now: float) -> int:
        """Number a ping that is sent now."""
        number = randbits(NUMBER_BITS)
        self._sent_at[number] = now
        if len(self._sent_at) > MOST_UNANSWERED:
            self._sent_at.popitem(last=False)
        return number

    def on_echo(self, number: int, now: float) -> bool:
        """Take in an echo; false, and nothing changes, if no such ping waits for one."""
        sent_at = self._sent_at.get(number)
        if sent_at is None:
            return False
        while number in self._sent_at:
            self._sent_at.popitem(last=False)
        self.heard_at, self._proven_at = now, sent_at
        measured, known = now - sent_at, self.round_trip_seconds
        if known is None or measured < known:
            self.round_trip_seconds = measured
        else:
            self.round_trip_seconds = known + _RISE_RATIO * (measured - known)
        return True

    def silent_seconds(self, now: float) -> float | None:
        """For how much longer than a round trip nothing is known; None if nothing ever was."""
        if self._proven_at is None or self.round_trip_seconds is None:
            return None
        return now - self._proven_at - self.round_trip_seconds

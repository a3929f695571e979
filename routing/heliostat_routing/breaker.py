"""Keeps requests away from an endpoint that fails, and lets one through now and then to see."""

from heliostat_routing.views import BreakerState

FAILURES_TO_OPEN = 2
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
PROBE_SECONDS = 10.0
"""How long a probe may stay without a word before another is let through."""


class Breaker:
    """Closed -> open after consecutive failures -> half-open after a pause that doubles."""

    __slots__ = ("_failures", "_pause", "_probe", "_probed_at", "_retry_at")

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at: float | None = None
        self._probe: int | None = None
        self._probed_at = 0.0

    def state(self, now: float) -> BreakerState:
        """The state at this instant."""
        if self._retry_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._retry_at else BreakerState.HALF_OPEN

    def admits(self, now: float) -> bool:
        """Whether a request may be sent."""
        if self._retry_at is None:
            return True
        admits_at = self.admits_at
        return admits_at is None or now >= admits_at

    @property
    def admits_at(self) -> float | None:
        """From when on a request may be sent to try the endpoint out; None while closed."""
        if self._retry_at is None or self._probe is None:
            return self._retry_at
        return self._probed_at + PROBE_SECONDS

    def on_dispatch(self, ticket: int, now: float) -> None:
        """Note a request that was sent: in the half-open state it is the probe."""
        if self._retry_at is not None:
            self._probe, self._probed_at = ticket, now

    def on_success(self) -> None:
        """Close: the endpoint has served a request."""
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at = self._probe = None

    def on_probe_output(self, ticket: int) -> None:
        """Close if this is the probe: it has got a first token."""
        if self._probe == ticket:
            self.on_success()

    def on_failure(self, now: float) -> None:
        """Count a failure; open when there were enough in a row, for longer if a probe failed."""
        self._failures += 1
        if self._retry_at is not None and now >= self._retry_at:
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._open(now)
        elif self._retry_at is None and self._failures >= FAILURES_TO_OPEN:
            self._open(now)

    def trip(self, now: float) -> None:
        """Open at once, whatever was counted."""
        self._failures = max(self._failures, FAILURES_TO_OPEN - 1)
        self.on_failure(now)

    def on_neither(self, ticket: int) -> None:
        """Forget a probe that ended without telling anything (its client left)."""
        if self._probe == ticket:
            self._probe = None

    def _open(self, now: float) -> None:
        self._probe = None
        self._retry_at = now + self._pause

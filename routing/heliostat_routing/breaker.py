"""Keeps requests away from an endpoint that fails, and lets one through now and then to see."""

from heliostat_routing.views import BreakerState

FAILURES_TO_OPEN = 2
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class Breaker:
    """Closed -> open after consecutive failures -> half-open after a pause that doubles."""

    __slots__ = ("_failures", "_pause", "_probe", "_retry_at")

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at: float | None = None
        self._probe: int | None = None

    def state(self, now: float) -> BreakerState:
        """The state at this instant."""
        if self._retry_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._retry_at else BreakerState.HALF_OPEN

    def admits(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self._retry_at is None or (now >= self._retry_at and self._probe is None)

    @property
    def retry_at(self) -> float | None:
        """When an open breaker turns half-open; None while closed."""
        return self._retry_at

    def on_dispatch(self, ticket: int) -> None:
        """Note a request that was sent: in the half-open state it is the probe."""
        if self._retry_at is not None and self._probe is None:
            self._probe = ticket

    def on_success(self) -> None:
        """Close: the endpoint has served a request."""
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at = self._probe = None

    def on_failure(self, ticket: int, now: float) -> None:
        """Count a failure; open when there were enough in a row, longer if the probe failed."""
        self._failures += 1
        if self._probe == ticket:
            self._probe = None
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._retry_at = now + self._pause
        elif self._retry_at is None and self._failures >= FAILURES_TO_OPEN:
            self._retry_at = now + self._pause

    def on_neither(self, ticket: int) -> None:
        """Forget a probe that ended without telling anything (its client left)."""
        if self._probe == ticket:
            self._probe = None

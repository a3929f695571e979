"""Compares the cached tokens that were promised with the engine's own hit counter.

It matters where answers carry no usage: nothing else then tells that the index promised too much.
The counter also has the hits of requests that still run, so only a shortfall proves something.
"""

SAMPLE_TOKENS = 4096
"""Promised blindly, without usage to check them by, before the counter is asked."""
TOLERANCE_RATIO = 0.3


class HitAudit:
    """Hits of one engine's finished requests, against the counter since the audit began."""

    __slots__ = ("_began_at", "_blind", "_finished", "_running")

    def __init__(self) -> None:
        self._began_at: int | None = None
        self._finished = 0.0
        self._blind = 0.0
        self._running = 0.0

    def on_dispatch(self, promised_tokens: float) -> None:
        """Note what the index promises for a request that is sent."""
        self._running += promised_tokens

    def on_end(self, promised_tokens: float, *, counted: bool, cached_tokens: int | None) -> None:
        """Note that the request is over; `counted` if the engine has computed it."""
        self._running = max(0.0, self._running - promised_tokens)
        if counted:
            self._finished += promised_tokens if cached_tokens is None else cached_tokens
            self._blind += promised_tokens if cached_tokens is None else 0.0

    def shortfall_tokens(self, hit_tokens: int | None) -> float:
        """Tokens promised and proven absent by the counter; an answer begins the next audit."""
        began_at = self._began_at
        if hit_tokens is None or began_at is None or hit_tokens < began_at:
            self._begin(hit_tokens)
            return 0.0
        if self._blind < SAMPLE_TOKENS:
            return 0.0
        missing = self._finished - (hit_tokens - began_at)
        proven = missing > TOLERANCE_RATIO * self._blind
        self._begin(hit_tokens)
        return missing if proven else 0.0

    def _begin(self, hit_tokens: int | None) -> None:
        """Requests that run now may be in the counter already: their hits are granted."""
        self._began_at = hit_tokens
        self._finished = -self._running
        self._blind = 0.0

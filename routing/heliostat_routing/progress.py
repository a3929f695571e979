"""Tells an engine that is silent from one that is busy with a long prompt."""

PATIENCE_SECONDS = 10.0
"""Silence that is always tolerated, beyond twice the prefill that is under way."""


class Progress:
    """When an engine last got on with its work, and how long its silence is no cause for worry."""

    __slots__ = ("_patience_until", "stalled")

    def __init__(self, now: float) -> None:
        self._patience_until = now + PATIENCE_SECONDS
        self.stalled = False

    def on_sign(self, now: float, prefill_seconds: float) -> None:
        """Note a sign of life; `prefill_seconds` is how long the next one may be in coming."""
        self.stalled = False
        self._patience_until = now + PATIENCE_SECONDS + 2 * prefill_seconds

    def judge(self, now: float) -> bool:
        """Say whether the engine has just been found stalled."""
        newly = not self.stalled and now > self._patience_until
        self.stalled = self.stalled or newly
        return newly

"""How long an engine takes to the first token, learned from what the access log measured.

A line, seconds = base + tokens x slope, fitted by least squares with exponential forgetting, the
slope drawn to the assumed one until samples of different lengths outweigh it (ridge regression).
Only the slope is used to predict: the base is the engine's step and network, not prefill work.
"""

from heliostat_routing.learned import LineSamples

MEMORY = 0.97
"""What a sample keeps of its weight when the next one comes: about 33 samples count."""
PRIOR_SPREAD_TOKENS = 1000.0
"""The assumed slope weighs as much as samples whose lengths spread so far around their mean."""
RATE_BOUND = 100.0
"""The learned rate stays within this factor of the assumed one."""


class PrefillModel:
    """Seconds of prefill as a function of uncached prompt tokens."""

    __slots__ = ("_assumed", "_slope", "_t", "_u", "_ut", "_uu", "_weight")

    def __init__(self, tokens_per_second: float) -> None:
        self._assumed = 1.0 / tokens_per_second
        self._slope = self._assumed
        self._weight = self._u = self._t = self._uu = self._ut = 0.0

    @property
    def tokens_per_second(self) -> float:
        """The prefill rate believed now."""
        return 1.0 / self._slope

    def seconds(self, uncached_tokens: float) -> float:
        """Predicted prefill time."""
        return uncached_tokens * self._slope

    def observe(self, uncached_tokens: float, seconds: float) -> None:
        """Learn from one request that did not wait: its time to first token."""
        u, t = uncached_tokens, seconds
        self._weight = self._weight * MEMORY + 1.0
        self._u = self._u * MEMORY + u
        self._t = self._t * MEMORY + t
        self._uu = self._uu * MEMORY + u * u
        self._ut = self._ut * MEMORY + u * t
        self._slope = self._fit()

    @property
    def samples(self) -> LineSamples:
        """What it was fitted to."""
        return LineSamples(self._weight, self._u, self._t, self._uu, self._ut)

    def take_over(self, told: LineSamples) -> None:
        """Know what a sibling has learned, where that is more and can be."""
        if told.weight > self._weight and told.can_be(MEMORY):
            self._weight, self._u, self._t = told.weight, told.x, told.y
            self._uu, self._ut = told.xx, told.xy
            self._slope = self._fit()

    def _fit(self) -> float:
        spread = self._uu - self._u * self._u / self._weight
        covariance = self._ut - self._u * self._t / self._weight
        prior = PRIOR_SPREAD_TOKENS**2
        slope = (covariance + prior * self._assumed) / (spread + prior)
        return min(max(slope, self._assumed / RATE_BOUND), self._assumed * RATE_BOUND)

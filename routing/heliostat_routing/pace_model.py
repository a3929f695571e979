"""How long one output token takes when so many requests share an engine, learned from answers.

A line, seconds = base + load x growth, fitted by least squares with exponential forgetting. The
growth is drawn to zero until samples of different loads outweigh it (ridge regression): without
evidence a crowded engine is taken to be as fast as an empty one.
"""

from heliostat_routing.learned import LineSamples

MEMORY = 0.98
"""What a sample keeps of its weight when the next one comes: about 50 samples count."""
PRIOR_SPREAD_RATIO = 0.3
"""Zero growth weighs as much as samples whose loads spread by this share of their mean."""


class PaceModel:
    """Seconds per output token as a function of the requests in flight on the engine."""

    __slots__ = ("_load", "_load_load", "_load_seconds", "_seconds", "_weight", "growth_seconds")

    def __init__(self) -> None:
        self.growth_seconds = 0.0
        """What one more request adds to the time that each output token takes."""
        self._weight = self._load = self._seconds = self._load_load = self._load_seconds = 0.0

    def observe(self, load: float, seconds_per_token: float) -> None:
        """Learn from one answer: the mean load while it was made, and its pace."""
        self._weight = self._weight * MEMORY + 1.0
        self._load = self._load * MEMORY + load
        self._seconds = self._seconds * MEMORY + seconds_per_token
        self._load_load = self._load_load * MEMORY + load * load
        self._load_seconds = self._load_seconds * MEMORY + load * seconds_per_token
        self._fit()

    @property
    def samples(self) -> LineSamples:
        """What it was fitted to."""
        return LineSamples(
            self._weight, self._load, self._seconds, self._load_load, self._load_seconds
        )

    def take_over(self, told: LineSamples) -> None:
        """Know what a sibling has learned, where that is more and can be."""
        if told.weight > self._weight and told.can_be(MEMORY):
            self._weight, self._load, self._seconds = told.weight, told.x, told.y
            self._load_load, self._load_seconds = told.xx, told.xy
            self._fit()

    def _fit(self) -> None:
        mean_load = self._load / self._weight
        mean_seconds = self._seconds / self._weight
        covariance = self._load_seconds - self._load * mean_seconds
        spread = self._load_load - self._load * mean_load
        prior = (PRIOR_SPREAD_RATIO * mean_load) ** 2 + 1.0
        growth = max(0.0, covariance / (spread + prior))
        self.growth_seconds = min(growth, mean_seconds / max(1.0, mean_load))

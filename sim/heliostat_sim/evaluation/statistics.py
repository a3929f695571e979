"""The few statistics that the evaluation rests on, exact and without a dependency."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""The 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom."""


def quantile(ascending: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of sorted values; None if there are none."""
    if not ascending:
        return None
    rank = math.ceil(round(len(ascending) * share, 9))
    return ascending[max(1, rank) - 1]


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean, summed without rounding; None if there are no values."""
    return math.fsum(values) / len(values) if values else None


def t_quantile(degrees_of_freedom: int) -> float:
    """Student's t at 97.5 %; above 30 degrees that of 30, which makes limits a little wide."""
    return _T_QUANTILES[min(degrees_of_freedom, len(_T_QUANTILES)) - 1]


@dataclass(frozen=True, slots=True)
class Spread:
    """What a measure came to over seeds."""

    mean: float
    least: float
    greatest: float
    deviation: float
    """The sample standard deviation; 0 of one seed."""
    seeds: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and spread of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    middle = mean(known)
    if middle is None:
        return None
    return Spread(middle, min(known), max(known), _deviation(known, middle), len(known))


@dataclass(frozen=True, slots=True)
class RatioEstimate:
    """How many times the reference's value a policy's is, paired by seed."""

    ratio: float
    """The geometric mean over seeds."""
    low: float | None
    """The lower 95 % confidence limit; None of one seed."""
    high: float | None
    per_seed: tuple[float, ...]

    @property
    def decided(self) -> bool:
        """Whether 1 is outside the limits."""
        if self.low is None or self.high is None:
            return False
        return self.low > 1.0 or self.high < 1.0


def paired_ratio(
    values: Mapping[int, float | None], reference: Mapping[int, float | None]
) -> RatioEstimate | None:
    """The ratio of two measures by seed, with 95 % limits from Student's t over the log ratios.

    Pairing takes out what a seed does to both. Only seeds that both have count; None if there are
    none, or if one of their values is unknown or not positive: a ratio would have no meaning.
    """
    logs = []
    for seed in sorted(values.keys() & reference.keys()):
        own, other = values[seed], reference[seed]
        if own is None or other is None or own <= 0 or other <= 0:
            return None
        logs.append(math.log(own / other))
    middle = mean(logs)
    if middle is None:
        return None
    low = high = None
    if len(logs) > 1:
        error = _deviation(logs, middle) / math.sqrt(len(logs))
        margin = t_quantile(len(logs) - 1) * error
        low, high = math.exp(middle - margin), math.exp(middle + margin)
    return RatioEstimate(math.exp(middle), low, high, tuple(math.exp(value) for value in logs))


def _deviation(values: Sequence[float], middle: float) -> float:
    if len(values) < 2:
        return 0.0
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))

import math

import pytest

from heliostat_sim.evaluation import paired_ratio, quantile, spread
from heliostat_sim.evaluation.statistics import t_quantile


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.51, 3.0), (0.75, 3.0), (1.0, 4.0)]
)
def test_quantiles_are_nearest_rank(share: float, expected: float) -> None:
    """A quantile is the least value that at least this share of the values do not exceed."""
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == expected


def test_quantiles_do_not_fall_for_rounding() -> None:
    """The 0.07 quantile of 100 values is the seventh, though 100 x 0.07 is a little above 7."""
    assert quantile([float(v) for v in range(1, 101)], 0.07) == 7.0
    assert quantile([], 0.5) is None


def test_pairing_takes_out_the_seed() -> None:
    """A policy that is a tenth better with every seed has narrow limits, however seeds differ."""
    reference = {0: 1.0, 1: 10.0, 2: 100.0}
    estimate = paired_ratio({seed: 0.9 * value for seed, value in reference.items()}, reference)
    assert estimate is not None
    assert (estimate.ratio, estimate.low, estimate.high) == pytest.approx((0.9, 0.9, 0.9))
    assert estimate.decided


def test_limits_are_students() -> None:
    """Limits of two seeds are 12.706 standard errors of the log ratio away."""
    estimate = paired_ratio({0: 2.0, 1: 8.0}, {0: 1.0, 1: 1.0, 5: 3.0})
    assert estimate is not None
    assert estimate.ratio == pytest.approx(4.0)
    assert estimate.high == pytest.approx(4.0 * math.exp(12.706 * math.log(2)))
    assert not estimate.decided
    assert estimate.per_seed == pytest.approx((2.0, 8.0))


def test_one_seed_has_no_limits() -> None:
    """A single pair is a ratio without limits, which decides nothing."""
    estimate = paired_ratio({0: 2.0}, {0: 1.0})
    assert estimate is not None
    assert (estimate.low, estimate.high, estimate.decided) == (None, None, False)


@pytest.mark.parametrize(
    ("own", "other"), [({0: 0.0}, {0: 1.0}), ({0: 1.0}, {0: None}), ({0: 1.0}, {1: 1.0}), ({}, {})]
)
def test_a_ratio_without_meaning_is_none(
    own: dict[int, float | None], other: dict[int, float | None]
) -> None:
    """Zeros, unknown values and seeds without a partner give no ratio."""
    assert paired_ratio(own, other) is None


def test_spread_is_of_what_is_known() -> None:
    """Values that are unknown are left out of the spread."""
    found = spread([1.0, None, 3.0])
    assert found is not None
    assert (found.mean, found.least, found.greatest, found.seeds) == (2.0, 1.0, 3.0, 2)
    assert found.deviation == pytest.approx(math.sqrt(2))
    assert spread([None]) is None


def test_many_seeds_use_the_last_t() -> None:
    """Beyond the table the limits are those of 30 degrees of freedom."""
    assert t_quantile(1) == 12.706
    assert t_quantile(500) == t_quantile(30) == 2.042

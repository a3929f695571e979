import statistics
from collections.abc import Sequence
from itertools import islice, pairwise
from random import Random

import pytest

from heliostat_sim.demand.arrivals import (
    ArrivalProcess,
    DayCurve,
    GammaBursts,
    OnOffBursts,
    Poisson,
    arrival_times,
)
from heliostat_sim.workload.session import WorkloadError


def cv(times: Sequence[float]) -> float:
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return statistics.pstdev(gaps) / statistics.mean(gaps)


@pytest.mark.parametrize(
    "process", [Poisson(), GammaBursts(3.0), OnOffBursts(5, 10, 0.2), OnOffBursts(5, 10)]
)
def test_processes_keep_the_mean_rate(process: ArrivalProcess) -> None:
    """Whatever the bursts, the mean rate is that asked for, and times ascend."""
    times = list(arrival_times(Random(1), 5.0, 10_000.0, process))
    assert len(times) == pytest.approx(50_000, rel=0.05)
    assert times == sorted(times)
    assert times[-1] < 10_000


def test_gamma_bursts_vary_as_asked() -> None:
    """The gaps have the coefficient of variation asked for."""
    times = list(islice(GammaBursts(3.0).times(Random(1), 10.0), 50_000))
    assert cv(times) == pytest.approx(3.0, rel=0.1)


def test_on_off_bursts_are_burstier_than_poisson() -> None:
    """Switching between busy and quiet spreads the gaps."""
    assert cv(list(arrival_times(Random(1), 5.0, 5000.0, OnOffBursts(5, 10)))) > 1.5
    assert cv(list(arrival_times(Random(1), 5.0, 5000.0))) == pytest.approx(1.0, abs=0.05)


def test_a_day_has_its_peak_and_trough() -> None:
    """The rate at the peak over that at the trough is the ratio asked for; the mean stays."""
    day = DayCurve(day_seconds=1000.0, peak_at_seconds=250.0, peak_to_trough=5.0)
    assert day.ratio(250) / day.ratio(750) == pytest.approx(5.0)
    assert day.ratio(1250) == pytest.approx(day.ratio(250))
    times = list(arrival_times(Random(1), 50.0, 10_000.0, day=day))
    assert len(times) == pytest.approx(500_000, rel=0.02)
    peak = sum(200 <= at % 1000 < 300 for at in times)
    trough = sum(700 <= at % 1000 < 800 for at in times)
    assert peak / trough == pytest.approx(5.0, rel=0.1)


def test_no_rate_is_no_arrival() -> None:
    """A region without a rate asks for nothing."""
    assert list(arrival_times(Random(1), 0.0, 100.0)) == []


def test_impossible_processes_are_refused() -> None:
    """Bursts and days that cannot be are errors."""
    with pytest.raises(WorkloadError):
        GammaBursts(0)
    with pytest.raises(WorkloadError):
        OnOffBursts(0, 1)
    with pytest.raises(WorkloadError):
        DayCurve(10, 0, 0.5)

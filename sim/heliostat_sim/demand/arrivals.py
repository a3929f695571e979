"""When sessions arrive by themselves: steadily, in bursts, or as the day goes.

A process gives instants at a mean rate; a curve thins them to what it makes of that rate at each
instant (Lewis and Shedler, 1979), so that any process can follow any curve.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi
from random import Random
from typing import Protocol

from heliostat_sim.workload.session import WorkloadError


class ArrivalProcess(Protocol):
    """Instants in ascending order, without end."""

    def times(self, rng: Random, rate_per_second: float) -> Iterator[float]:
        """So many instants a second in the mean, from 0."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Arrivals that know nothing of each other."""

    def times(self, rng: Random, rate_per_second: float) -> Iterator[float]:
        """So many instants a second in the mean, from 0."""
        at_seconds = 0.0
        while True:
            at_seconds += rng.expovariate(rate_per_second)
            yield at_seconds


@dataclass(frozen=True, slots=True)
class GammaBursts:
    """Gaps of a gamma distribution: above 1, its coefficient of variation makes bursts."""

    cv: float
    """Standard deviation of the gaps over their mean; 1 is a Poisson process."""

    def __post_init__(self) -> None:
        if not self.cv > 0:
            raise WorkloadError("the coefficient of variation must be positive")

    def times(self, rng: Random, rate_per_second: float) -> Iterator[float]:
        """So many instants a second in the mean, from 0."""
        shape = self.cv**-2
        scale = 1.0 / (shape * rate_per_second)
        at_seconds = 0.0
        while True:
            at_seconds += rng.gammavariate(shape, scale)
            yield at_seconds


@dataclass(frozen=True, slots=True)
class OnOffBursts:
    """A Poisson process that is switched between busy and quiet, for exponential times."""

    on_seconds: float
    """Mean time of a burst."""
    off_seconds: float
    """Mean time between two."""
    quiet_ratio: float = 0.0
    """The rate between bursts over that in them."""

    def __post_init__(self) -> None:
        if not (self.on_seconds > 0 and self.off_seconds > 0 and 0 <= self.quiet_ratio <= 1):
            raise WorkloadError("bursts need times above 0 and a quiet ratio of 0 to 1")

    def times(self, rng: Random, rate_per_second: float) -> Iterator[float]:
        """So many instants a second in the mean, from 0."""
        whole = self.on_seconds + self.off_seconds
        busy_rate = rate_per_second * whole
        busy_rate /= self.on_seconds + self.quiet_ratio * self.off_seconds
        on, begins = rng.random() < self.on_seconds / whole, 0.0
        while True:
            mean = self.on_seconds if on else self.off_seconds
            ends = begins + rng.expovariate(1.0 / mean)
            rate = busy_rate if on else busy_rate * self.quiet_ratio
            at = begins
            while rate > 0 and (at := at + rng.expovariate(rate)) < ends:
                yield at
            on, begins = not on, ends


@dataclass(frozen=True, slots=True)
class DayCurve:
    """How a region's rate goes round with the day: 1 + A cos(2 pi (t - peak) / day)."""

    day_seconds: float
    peak_at_seconds: float
    peak_to_trough: float
    """The greatest rate over the least; A = (P - 1) / (P + 1)."""

    def __post_init__(self) -> None:
        if not (self.day_seconds > 0 and self.peak_to_trough >= 1):
            raise WorkloadError("a day needs a length, and a peak that is no less than its trough")

    @property
    def amplitude(self) -> float:
        """A: the peak's rate is 1 + A of the mean."""
        return (self.peak_to_trough - 1) / (self.peak_to_trough + 1)

    def ratio(self, at_seconds: float) -> float:
        """The rate at an instant over the mean rate."""
        angle = 2 * pi * (at_seconds - self.peak_at_seconds) / self.day_seconds
        return 1 + self.amplitude * cos(angle)


def arrival_times(
    rng: Random,
    rate_per_second: float,
    until_seconds: float,
    process: ArrivalProcess | None = None,
    day: DayCurve | None = None,
) -> Iterator[float]:
    """The instants before the end at which sessions arrive."""
    if not rate_per_second > 0:
        return
    highest = 1.0 if day is None else 1 + day.amplitude
    for at_seconds in (process or Poisson()).times(rng, rate_per_second * highest):
        if at_seconds >= until_seconds:
            return
        if day is None or rng.random() * highest < day.ratio(at_seconds):
            yield at_seconds

"""Counters and histograms that cost a request next to nothing.

One event loop counts and is scraped, so nothing here locks; a bucket is found by bisection. What
prometheus_client spends on both is more than all else that a request is observed by.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from math import inf
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from heliostat_extproc.observing import metric_list

MOST_SERIES = 10_000
"""Of one metric; beyond, whatever is new counts under the labels `other`."""


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, more: int = 1) -> None:
        """Count."""
        self.value += more


class Distribution:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value in the first bucket that it fits into."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Give upper bound and cumulative count of each bucket."""
        below = 0
        for bound, count in zip((*self._bounds, inf), self.counts, strict=True):
            below += count
            yield ("+Inf" if bound == inf else str(bound)), below


_Series = TypeVar("_Series", Count, Distribution)


class Family(Generic[_Series]):
    """All series of one metric by their labels' values."""

    def __init__(self, metric: metric_list.Metric) -> None:
        self.metric = metric
        self.series: dict[tuple[str, ...], _Series] = {}
        if not metric.labels:
            self.at()

    def at(self, *labels: str) -> _Series:
        """Give the series with these values, in the order of the metric's labels."""
        found = self.series.get(labels)
        return self._add(labels) if found is None else found

    def _add(self, labels: tuple[str, ...]) -> _Series:
        if len(self.series) >= MOST_SERIES:
            labels = ("other",) * len(labels)
        return self.series.setdefault(labels, self._new())

    def _new(self) -> _Series:
        raise NotImplementedError

    def collect(self) -> Metric:
        """Show all series."""
        raise NotImplementedError


class CounterFamily(Family[Count]):
    """A counter."""

    def _new(self) -> Count:
        return Count()

    def collect(self) -> Metric:
        """Show all series."""
        name, labels = self.metric.name.removesuffix("_total"), self.metric.labels
        family = CounterMetricFamily(name, self.metric.text, labels=labels)
        for values, series in self.series.items():
            family.add_metric(values, series.value)
        return family


class HistogramFamily(Family[Distribution]):
    """A histogram."""

    def _new(self) -> Distribution:
        return Distribution(self.metric.buckets)

    def collect(self) -> Metric:
        """Show all series."""
        metric = self.metric
        family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
        for values, series in self.series.items():
            family.add_metric(values, list(series.buckets()), sum_value=series.total)
        return family


class Instruments(Collector):
    """Shows families to Prometheus."""

    def __init__(self, families: Iterable[CounterFamily | HistogramFamily]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        """Show every family as it is now."""
        for family in self._families:
            yield family.collect()

"""The router's own counters and histograms, beside the library's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from heliostat_extproc.observing import instruments
from heliostat_extproc.observing.instruments import CounterFamily, HistogramFamily, Instruments
from heliostat_extproc.observing.metric_list import METRICS, Metric, MetricKind

BOUNDS = (0.1, 1.0, 2.5)
HISTOGRAM = Metric("waits_seconds", MetricKind.HISTOGRAM, "Waits.", ("pool",), BOUNDS)
COUNTER = Metric("asked_total", MetricKind.COUNTER, "Asked.", ("pool",))


def page(*families: CounterFamily | HistogramFamily) -> str:
    registry = CollectorRegistry()
    registry.register(Instruments(families))
    return generate_latest(registry).decode()


@given(st.lists(st.one_of(st.floats(0, 5), st.sampled_from(BOUNDS))))
def test_a_histogram_shows_what_the_librarys_shows(values: list[float]) -> None:
    """The same values give the same page, those on a bound included."""
    ours = HistogramFamily(HISTOGRAM)
    registry = CollectorRegistry()
    theirs = Histogram("waits_seconds", "Waits.", ["pool"], buckets=BOUNDS, registry=registry)
    for value in values:
        ours.at("a").observe(value)
        theirs.labels("a").observe(value)
    lines = [
        line for line in generate_latest(registry).decode().splitlines() if "_created" not in line
    ]
    assert page(ours).splitlines() == lines


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes beyond the bound counts under `other`."""
    monkeypatch.setattr(instruments, "MOST_SERIES", 2)
    family = CounterFamily(COUNTER)
    for pool in ("a", "b", "c", "d", "a"):
        family.at(pool).add()
    assert {labels: series.value for labels, series in family.series.items()} == {
        ("a",): 2,
        ("b",): 1,
        ("other",): 2,
    }


def test_names_follow_the_conventions() -> None:
    """Counters end in _total, histograms in their unit, and no name is there twice."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.startswith("heliostat_router_")
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        if metric.kind is MetricKind.HISTOGRAM:
            assert metric.name.endswith("_seconds")
            assert list(metric.buckets) == sorted(set(metric.buckets))

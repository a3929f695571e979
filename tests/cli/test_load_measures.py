import asyncio
import math
import time

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_cli.loading.histogram import DurationHistogram
from heliostat_cli.loading.lag import fetch_engine_lag, watch_lag
from heliostat_cli.loading.report import Measurements, Outcome
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engine

durations = st.lists(st.floats(2e-5, 50_000), min_size=1, max_size=200)


@given(durations, st.sampled_from([0, 1, 50, 90, 99, 100]))
def test_percentiles_are_nearest_rank(seconds: list[float], percent: int) -> None:
    """A percentile is the nearest-rank sample to half a percent."""
    histogram = DurationHistogram()
    for value in seconds:
        histogram.record(value)
    rank = max(1, math.ceil(len(seconds) * percent / 100))
    assert histogram.percentile(percent) == pytest.approx(sorted(seconds)[rank - 1], rel=0.0051)


def test_extremes_stay_in_range() -> None:
    """Zero, negative and enormous durations are counted at the ends, exactly."""
    histogram = DurationHistogram()
    for value in (-1.0, 0.0, 1e9):
        histogram.record(value)
    assert histogram.percentile(1) == 0.0
    assert histogram.percentile(99) == histogram.max_seconds == 1e9


def test_nothing_recorded_has_no_percentile() -> None:
    """Without samples there is no percentile, rather than a zero."""
    assert DurationHistogram().percentile(50) is None
    assert DurationHistogram().max_seconds is None


async def test_a_stall_is_seen_as_lag() -> None:
    """Each tick that a stall delays is counted, so that one long stall reaches the p99."""
    lag = DurationHistogram()
    task = asyncio.create_task(watch_lag(lag))
    await asyncio.sleep(0)
    time.sleep(0.25)  # noqa: ASYNC251 - the stall under test
    await asyncio.sleep(0.001)
    task.cancel()
    assert lag.count >= 20
    assert (lag.max_seconds or 0) > 0.2
    assert (lag.percentile(50) or 0) > 0.05


def lagging(p99_seconds: float) -> Measurements:
    measurements = Measurements()
    measurements.lag.record(p99_seconds)
    return measurements


def test_a_lagging_run_is_not_valid() -> None:
    """A run is valid only while its own event loop lags at most 20 ms at p99."""
    assert lagging(0.019).report("w", 0, interrupted=False).valid
    assert not lagging(0.021).report("w", 0, interrupted=False).valid
    assert not Measurements().report("w", 0, interrupted=False).valid


def test_a_run_through_lagging_engines_is_not_valid() -> None:
    """Where the stand-ins were asked, their lag counts like the load tool's own."""
    measurements = lagging(0.001)
    measurements.engine_lag_p99_seconds = 0.021
    assert not measurements.report("w", 0, interrupted=False).valid
    measurements.engine_lag_p99_seconds = 0.019
    assert measurements.report("w", 0, interrupted=False).valid


async def test_a_stand_in_tells_its_own_lag() -> None:
    """The lag is read from the stand-in's metrics; another server tells none."""
    async with running_engine(EngineOptions()) as engine, aiohttp.ClientSession() as http:
        lag = await fetch_engine_lag(http, engine.url)
        assert lag is not None
        assert 0 <= lag < 5
        assert await fetch_engine_lag(http, f"{engine.url}/elsewhere") is None
    async with aiohttp.ClientSession() as http:
        assert await fetch_engine_lag(http, engine.url) is None


def test_hit_ratio_counts_only_engines_that_report() -> None:
    """The hit ratio is cached over prompt tokens of the answers that told their cached tokens."""
    measurements = Measurements()
    measurements.on_send()
    measurements.record(Outcome(prompt_tokens=100, cached_tokens=50))
    measurements.record(Outcome(prompt_tokens=300, cached_tokens=250))
    measurements.record(Outcome(prompt_tokens=900, cached_tokens=None))
    measurements.record(Outcome(failure="timeout"))
    report = measurements.report("w", 0, interrupted=False)
    assert report.hit_ratio == pytest.approx(0.75)
    assert (report.requests, report.failed, report.errors) == (4, 1, {"timeout": 1})
    assert report.input_tokens_per_second * report.duration_seconds == pytest.approx(1300)


def test_json_has_the_agreed_keys() -> None:
    """The JSON report has exactly the keys that readers rely on."""
    plain = lagging(0.001).report("mooncake", 3, interrupted=False).to_json()
    assert set(plain) == {
        "workload", "seed", "requests", "failed", "errors", "hit_ratio", "ttft_seconds",
        "time_between_tokens_seconds", "e2e_seconds", "output_tokens_per_second",
        "input_tokens_per_second", "requests_per_second", "duration_seconds",
        "event_loop_lag_seconds", "engine_lag_p99_seconds",
        "valid", "interrupted",
    }  # fmt: skip
    assert plain["ttft_seconds"] == {"p50": None, "p90": None, "p99": None}
    assert plain["event_loop_lag_seconds"] == {"p50": 0.001, "p99": 0.001, "max": 0.001}
    assert (plain["workload"], plain["seed"], plain["hit_ratio"]) == ("mooncake", 3, None)

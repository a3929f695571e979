import json

import pytest

from heliostat_sim.engine import PROFILES
from heliostat_sim.evaluation import Report, Terms, make_report
from heliostat_sim.world.records import OpenRequest, Record, Records, Sample
from heliostat_sim.world.request import Ending
from heliostat_sim.world.settings import RegionSettings, WorldSettings

SETTINGS = WorldSettings(
    regions=(RegionSettings("us", 2), RegionSettings("eu", 1)),
    profile=PROFILES["l4-llama-8b"],
    round_trips={frozenset(("us", "eu")): 0.1},
    duration_seconds=100.0,
    queue_timeout_seconds=30.0,
)


def record(
    sent_at: float = 10.0,
    ended_at: float = 20.0,
    ttft: float | None = 0.5,
    ending: Ending = Ending.SERVED,
    region: str = "us",
    served_in: str = "us",
    cached: int = 0,
    attempts: int = 0,
) -> Record:
    """A request of 100 prompt tokens and 20 output tokens."""
    served = ending is Ending.SERVED
    return Record(
        region=region,
        served_in=served_in if served else "",
        sent_at=sent_at,
        ended_at=ended_at,
        ending=ending,
        ttft_seconds=ttft,
        prompt_tokens=100,
        cached_tokens=cached,
        output_tokens=20 if served else 0,
        forwarded=False,
        attempts=attempts,
    )


def report_of(
    *requests: Record,
    still_open: tuple[OpenRequest, ...] = (),
    samples: tuple[Sample, ...] = (),
    terms: Terms = Terms(),  # noqa: B008 - frozen
) -> Report:
    records = Records(
        sent=len(requests) + len(still_open),
        requests=list(requests),
        still_open=list(still_open),
        samples=list(samples),
        engine_seconds=7200.0,
    )
    return make_report(records, SETTINGS, scenario="two", policy="heliostat", seed=3, terms=terms)


def test_throughput_is_the_papers() -> None:
    """Throughput counts prompt tokens in full, output twice, over the span, finished ones only."""
    report = report_of(record(cached=90), record(ended_at=101.0))
    assert report.throughput_tokens_per_second == pytest.approx(140 / 100)
    assert report.output_tokens_per_second == pytest.approx(0.2)
    assert report.requests_per_second == pytest.approx(0.01)


def test_failures_wait_for_the_deadline() -> None:
    """A request without an answer counts with the deadline, or with its time if that was longer."""
    report = report_of(
        record(),
        record(ending=Ending.REJECTED, ttft=None, ended_at=10.1),
        record(ending=Ending.EXPIRED, ttft=None, ended_at=50.0),
        record(ending=Ending.BROKEN, ttft=0.2, ended_at=11.0),
    )
    assert report.ttft_curve_seconds[0] == 0.5
    assert report.ttft_p50_seconds == 30.0
    assert report.ttft_p99_seconds == 40.0
    assert report.slo_ratio == 0.25
    assert (report.served, report.rejected, report.expired, report.broken) == (1, 1, 1, 1)
    assert report.failed_ratio == 0.75
    assert report.output_tokens_per_second == pytest.approx(0.2)


def test_open_requests_count_as_far_as_they_are_known() -> None:
    """Open requests count with a known first token, else with an age above the objective."""
    waiting, young = OpenRequest("us", 60.0, None), OpenRequest("us", 99.5, None)
    report = report_of(record(), still_open=(waiting, young, OpenRequest("eu", 90.0, 2.0)))
    assert (report.ttft_p50_seconds, report.ttft_p99_seconds) == (2.0, 40.0)
    assert report.slo_ratio == pytest.approx(1 / 3)
    assert (report.sent, report.still_open, report.lost) == (4, 3, 0)


def test_a_lost_request_is_told() -> None:
    """What was sent and is neither ended nor open is lost."""
    report = make_report(
        Records(sent=2, requests=[record(attempts=2)]),
        SETTINGS,
        scenario="two",
        policy="x",
        seed=0,
        terms=Terms(),
    )
    assert (report.lost, report.resent) == (1, 2)


def test_a_request_that_nobody_answers_is_told() -> None:
    """Open without a first token ten seconds after the deadline is hung, in the warm-up too."""
    waiting = (OpenRequest("us", sent_at, None) for sent_at in (59.0, 61.0))
    streaming = OpenRequest("us", 10.0, 2.0)
    report = report_of(still_open=(*waiting, streaming), terms=Terms(warmup_seconds=60.0))
    assert (report.lost, report.hung) == (0, 1)


def test_the_warmup_is_cut_off() -> None:
    """Latencies leave out what was sent in the warm-up, rates what was finished in it."""
    early, over = record(sent_at=1.0, ended_at=5.0), record(sent_at=1.0, ended_at=50.0, ttft=9.0)
    report = report_of(early, over, record(), terms=Terms(warmup_seconds=10.0))
    assert (report.served, report.ttft_p99_seconds) == (1, 0.5)
    assert report.requests_per_second == pytest.approx(2 / 90)
    with pytest.raises(ValueError, match="leaves nothing"):
        report_of(terms=Terms(warmup_seconds=100.0))


def test_tokens_and_places() -> None:
    """Hit ratio is over prompt tokens, gaps over tokens after the first, regions the clients'."""
    report = report_of(
        record(cached=64), record(region="eu", cached=16, ttft=1.5), record(served_in="eu")
    )
    assert report.hit_ratio == pytest.approx(80 / 300)
    assert report.time_per_output_token_p90_seconds == pytest.approx(9.5 / 19)
    assert report.cross_region_ratio == pytest.approx(2 / 3)
    assert report.gpu_hours == 2.0
    assert (report.regions["us"].slo_ratio, report.regions["eu"].slo_ratio) == (1.0, 0.0)
    assert report.good_requests_per_second == pytest.approx(0.02)


def test_imbalance_is_averaged_over_samples() -> None:
    """Imbalance is greatest over mean and over least, where anything is outstanding at all."""
    samples = (Sample(1.0, (4, 2, 0), 1), Sample(2.0, (3, 3, 3), 0), Sample(3.0, (0, 0, 0), 2))
    report = report_of(samples=samples)
    assert report.imbalance_mean_ratio == pytest.approx((2 + 1) / 2)
    assert report.imbalance_least_ratio == pytest.approx((4 + 1) / 2)
    assert (report.queued_mean_requests, report.queued_greatest_requests) == (1.0, 2)


def test_nothing_is_none() -> None:
    """A run without requests has no latencies and no ratios, and still is JSON."""
    report = report_of()
    assert (report.ttft_mean_seconds, report.hit_ratio, report.slo_ratio) == (None, None, None)
    assert json.loads(report.dumps())["ttft_curve_seconds"] == []


def test_a_report_survives_json() -> None:
    """A report read back from its JSON gives the same bytes."""
    report = report_of(record(ttft=1 / 3), record(region="eu"))
    again = Report.from_json(json.loads(report.dumps()))
    assert again.dumps() == report.dumps()
    assert again.regions["eu"].requests == 1


@pytest.mark.parametrize(
    ("terms", "message"),
    [({"warmup_seconds": -1.0}, "cannot be -1 s"), ({"slo_seconds": 0.0}, "positive, not 0 s")],
)
def test_terms_must_make_sense(terms: dict[str, float], message: str) -> None:
    """A warm-up below zero or an objective of nothing is refused."""
    with pytest.raises(ValueError, match=message):
        Terms(**terms)

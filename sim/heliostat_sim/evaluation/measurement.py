"""How a report is made from records: who counts, with what, and in which sum."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from heliostat_sim.evaluation.report import RegionReport, Report
from heliostat_sim.evaluation.statistics import mean, quantile
from heliostat_sim.world.records import Record, Records, Sample
from heliostat_sim.world.request import Ending
from heliostat_sim.world.settings import WorldSettings

_HUNG_MARGIN_SECONDS = 10.0
"""How much older than the deadline a request without a first token is when it counts as hung."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run is measured."""

    warmup_seconds: float = 0.0
    """Cut off at the start, while caches and queues fill."""
    slo_seconds: float = 1.0
    """The objective for the time to first token."""

    def __post_init__(self) -> None:
        if self.warmup_seconds < 0:
            raise ValueError(f"the warm-up cannot be {self.warmup_seconds:g} s")
        if self.slo_seconds <= 0:
            raise ValueError(f"the objective must be positive, not {self.slo_seconds:g} s")


class _Wait(NamedTuple):
    """A time to first token as it counts."""

    region: str
    seconds: float
    in_time: bool


def make_report(
    records: Records,
    settings: WorldSettings,
    *,
    scenario: str,
    policy: str,
    seed: int,
    terms: Terms,
) -> Report:
    """What the records of a run come to."""
    begin, end = terms.warmup_seconds, settings.duration_seconds
    if begin >= end:
        raise ValueError(f"a warm-up of {begin:g} s leaves nothing of {end:g} s")
    deadline_seconds = settings.queue_timeout_seconds
    span_seconds = end - begin
    ended = [record for record in records.requests if record.sent_at >= begin]
    served = [record for record in ended if record.ending is Ending.SERVED]
    finished = [
        record
        for record in records.requests
        if record.ending is Ending.SERVED and begin <= record.ended_at <= end
    ]
    samples = [sample for sample in records.samples if sample.at >= begin]
    waits = _waits(records, ended, settings, terms)
    ttft = sorted(wait.seconds for wait in waits)
    e2e = sorted(record.ended_at - record.sent_at for record in served)
    gaps = _token_gaps(served)
    endings = Counter(record.ending for record in ended)
    output_tokens = sum(record.output_tokens for record in finished)
    input_tokens = sum(record.prompt_tokens for record in finished)
    good = sum(_in_time(record, terms) for record in finished)
    queued = [sample.queued for sample in samples]
    return Report(
        scenario=scenario,
        policy=policy,
        seed=seed,
        duration_seconds=end,
        warmup_seconds=begin,
        span_seconds=span_seconds,
        slo_seconds=terms.slo_seconds,
        deadline_seconds=deadline_seconds,
        sent=records.sent,
        still_open=len(records.still_open),
        lost=records.sent - len(records.requests) - len(records.still_open),
        hung=_hung(records, settings),
        resent=sum(record.attempts for record in records.requests),
        served=endings[Ending.SERVED],
        rejected=endings[Ending.REJECTED],
        expired=endings[Ending.EXPIRED],
        broken=endings[Ending.BROKEN],
        failed_ratio=_share(len(ended) - len(served), len(ended)),
        throughput_tokens_per_second=(input_tokens + 2 * output_tokens) / span_seconds,
        output_tokens_per_second=output_tokens / span_seconds,
        requests_per_second=len(finished) / span_seconds,
        good_requests_per_second=good / span_seconds,
        ttft_mean_seconds=mean(ttft),
        ttft_p50_seconds=quantile(ttft, 0.5),
        ttft_p90_seconds=quantile(ttft, 0.9),
        ttft_p99_seconds=quantile(ttft, 0.99),
        ttft_curve_seconds=_curve(ttft),
        e2e_p50_seconds=quantile(e2e, 0.5),
        e2e_p90_seconds=quantile(e2e, 0.9),
        e2e_p99_seconds=quantile(e2e, 0.99),
        time_per_output_token_p50_seconds=quantile(gaps, 0.5),
        time_per_output_token_p90_seconds=quantile(gaps, 0.9),
        hit_ratio=_share(
            sum(record.cached_tokens for record in served),
            sum(record.prompt_tokens for record in served),
        ),
        slo_ratio=_share(sum(wait.in_time for wait in waits), len(waits)),
        cross_region_ratio=_share(
            sum(record.served_in != record.region for record in served), len(served)
        ),
        imbalance_mean_ratio=mean(_over_mean(samples)),
        imbalance_least_ratio=mean(_over_least(samples)),
        queued_mean_requests=mean(queued),
        queued_greatest_requests=max(queued, default=None),
        preemptions=records.preemptions,
        generated_tokens=records.generated_tokens,
        prefill_tokens=records.prefill_tokens,
        messages=records.messages,
        message_bytes=records.message_bytes,
        gpu_hours=records.engine_seconds / 3600,
        regions=_regions(ended, waits),
    )


def _waits(
    records: Records, ended: Iterable[Record], settings: WorldSettings, terms: Terms
) -> list[_Wait]:
    """The times to first token of all requests sent after the warm-up, as they count."""
    waits = []
    for record in ended:
        seconds = record.ttft_seconds
        if record.ending is not Ending.SERVED or seconds is None:
            took_seconds = record.ended_at - record.sent_at
            seconds = max(settings.queue_timeout_seconds, took_seconds)
        waits.append(_Wait(record.region, seconds, _in_time(record, terms)))
    for request in records.still_open:
        if request.sent_at < terms.warmup_seconds:
            continue
        seconds = request.ttft_seconds
        if seconds is not None:
            waits.append(_Wait(request.region, seconds, seconds <= terms.slo_seconds))
            continue
        age_seconds = settings.duration_seconds - request.sent_at
        if age_seconds > terms.slo_seconds:
            waits.append(_Wait(request.region, age_seconds, in_time=False))
    return waits


def _hung(records: Records, settings: WorldSettings) -> int:
    """Requests that nobody answers, turns away or lets expire."""
    sent_before = settings.duration_seconds - settings.queue_timeout_seconds - _HUNG_MARGIN_SECONDS
    return sum(
        request.ttft_seconds is None and request.sent_at < sent_before
        for request in records.still_open
    )


def _in_time(record: Record, terms: Terms) -> bool:
    seconds = record.ttft_seconds
    return record.ending is Ending.SERVED and seconds is not None and seconds <= terms.slo_seconds


def _token_gaps(served: Iterable[Record]) -> list[float]:
    """Each request's mean time between its output tokens, ascending."""
    return sorted(
        (record.ended_at - record.sent_at - record.ttft_seconds) / (record.output_tokens - 1)
        for record in served
        if record.ttft_seconds is not None and record.output_tokens > 1
    )


def _over_mean(samples: Iterable[Sample]) -> list[float]:
    return [
        max(loads) * len(loads) / math.fsum(loads)
        for loads in (sample.outstanding for sample in samples)
        if any(loads)
    ]


def _over_least(samples: Iterable[Sample]) -> list[float]:
    return [
        max(loads) / max(1, min(loads))
        for loads in (sample.outstanding for sample in samples)
        if any(loads)
    ]


def _regions(ended: Iterable[Record], waits: Iterable[_Wait]) -> dict[str, RegionReport]:
    requests = Counter(record.region for record in ended)
    by_region: dict[str, list[_Wait]] = {name: [] for name in requests}
    for wait in waits:
        by_region.setdefault(wait.region, []).append(wait)
    return {name: _region(requests[name], by_region[name]) for name in sorted(by_region)}


def _region(requests: int, waits: Sequence[_Wait]) -> RegionReport:
    ttft = sorted(wait.seconds for wait in waits)
    return RegionReport(
        requests=requests,
        ttft_p50_seconds=quantile(ttft, 0.5),
        ttft_p90_seconds=quantile(ttft, 0.9),
        slo_ratio=_share(sum(wait.in_time for wait in waits), len(waits)),
    )


def _curve(ascending: Sequence[float]) -> tuple[float, ...]:
    points = (quantile(ascending, percent / 100) for percent in range(101))
    return tuple(point for point in points if point is not None)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
